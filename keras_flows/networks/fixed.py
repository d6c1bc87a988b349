"""A layer whose variables no `trainable` flag reaches."""

import keras


class Fixed(keras.layers.Layer):
    """Holds variables and layers that are used, and never trained.

    `model.trainable = True` goes down to every layer of a model; here it
    ends. `trainable` is False whatever it is set to, `trainable_variables`
    is empty, and a variable, layer or list of them is frozen when it becomes
    an attribute.

    Args:
        name: layer name.
        **kwargs: of `keras.layers.Layer`; `trainable` is ignored.
    """

    def __init__(self, name=None, **kwargs):
        super().__init__(name=name, **{**kwargs, "trainable": False})

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        parts = value if isinstance(value, (list, tuple)) else [value]
        for part in parts:
            if isinstance(part, (keras.layers.Layer, keras.Variable)):
                part.trainable = False

    @property
    def trainable(self):
        """False."""
        return False

    @trainable.setter
    def trainable(self, value):
        """Nothing: what is held stays as it is."""

    def freeze(self):
        """Freeze again what was unfrozen from outside."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            layer.trainable = False
        for variable in self.variables:
            variable.trainable = False
