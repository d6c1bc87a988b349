"""Presets: trained models by name or folder, in KerasHub's file layout."""

from keras_flows.presets.preset import Preset
from keras_flows.presets.registry import BUILTIN
from keras_flows.presets.registry import preset_folder
