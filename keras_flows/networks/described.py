"""A model that its constructor's arguments describe."""

import keras

from keras_flows.presets import Preset


class DescribedModel(Preset, keras.Model):
    """Base of the networks: `get_config` is what the constructor was given.

    A subclass keeps its arguments in the dict `_arguments`.
    """

    def get_config(self):
        return dict(self._arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)
