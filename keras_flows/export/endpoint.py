"""What an exported file computes: functions with named inputs."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A function of a dict of tensors to one tensor.

    Attributes:
        function: of {name: tensor}, in `keras.ops`.
        inputs: {name: (shape, dtype)}, the batch axis as None.
        output: name of the output.
        shape: its shape, the batch axis as None; float32.
    """

    function: typing.Callable
    inputs: dict
    output: str
    shape: tuple
