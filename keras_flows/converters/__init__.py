"""Converters of published checkpoints, for `kf.presets.convert`."""

from keras_flows.converters import kinds
