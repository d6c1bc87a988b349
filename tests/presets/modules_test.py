"""Built-in presets name the modules that their classes are in."""

import pathlib

import keras
import pytest

import keras_flows as kf
from keras_flows.presets.configs import serialized
from keras_flows.presets.files import read_config

BUILTIN = pathlib.Path(kf.presets.__file__).parent / "builtin"


@pytest.mark.once
@pytest.mark.parametrize("name", kf.presets.names())
def test_modules_are_where_the_classes_are(name):
    ours = [
        each
        for each in serialized(read_config(BUILTIN / name))
        if str(each.get("registered_name")).startswith("keras_flows>")
    ]
    assert len(ours) > 2
    for each in ours:
        registered = keras.saving.get_registered_object(each["registered_name"])
        assert each["module"] == registered.__module__
