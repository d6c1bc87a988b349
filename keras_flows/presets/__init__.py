"""Presets: trained models by handle, in KerasHub's file layout."""

from keras_flows.presets.card import Card
from keras_flows.presets.configs import registered_config
from keras_flows.presets.configs import serialized
from keras_flows.presets.convert import CONVERTERS
from keras_flows.presets.convert import Conversion
from keras_flows.presets.convert import Converter
from keras_flows.presets.convert import convert
from keras_flows.presets.convert import register_converter
from keras_flows.presets.convert import torch_state
from keras_flows.presets.handles import preset_folder
from keras_flows.presets.limits import Limits
from keras_flows.presets.limits import limits
from keras_flows.presets.limits import set_limits
from keras_flows.presets.preset import Preset
from keras_flows.presets.preset import from_preset
from keras_flows.presets.preset import save_to_preset
from keras_flows.presets.registry import BUILTIN
from keras_flows.presets.registry import Entry
from keras_flows.presets.registry import describe
from keras_flows.presets.registry import names
from keras_flows.presets.registry import register
from keras_flows.presets.slim import slim
from keras_flows.presets.upload import upload_preset

__all__ = [
    "Card",
    "Conversion",
    "convert",
    "Converter",
    "describe",
    "from_preset",
    "Limits",
    "limits",
    "names",
    "preset_folder",
    "register",
    "register_converter",
    "save_to_preset",
    "set_limits",
    "slim",
    "torch_state",
    "upload_preset",
]
