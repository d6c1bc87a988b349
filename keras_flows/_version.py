"""The version, for the records that are written beside models."""

__version__ = "0.1.0"
