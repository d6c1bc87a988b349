"""What a preset's folder tells of its training."""

from keras_flows.presets import preset_folder
from keras_flows.presets.files import read_metadata


def metadata_of(handle):
    """The dict of a preset's metadata.json."""
    return read_metadata(preset_folder(handle))
