"""A function as a graph of PyTorch's operators, weights as its arguments."""

import collections
import threading
import warnings

import keras
import numpy as np
import torch
from keras.src.backend.common.stateless_scope import in_stateless_scope

from keras_flows.ops.autodiff import in_jvp
from keras_flows.ops.torch_graph import Recording
from keras_flows.ops.torch_graph import Untraceable

# Graphs of other shapes that a function keeps.
KEPT = 16


class Compiled:
    """`fn` of `compiled`: run as it is at first, then as a graph.

    A shape that comes once needs no graph: the first call is `fn` itself. The
    second notes what `fn` calls. In the third `fn` and its graph must give
    the same; from then on there is the graph. Where `fn` has none it runs as
    it is for good, with a warning.

    Args:
        fn, variables: of `compiled`.
    """

    def __init__(self, fn, variables):
        self._fn = fn
        self._variables = list(variables)
        self._graphs = collections.OrderedDict()
        self._lock = threading.Lock()
        self._refused = False
        self._fold = True

    def __call__(self, *args):
        leaves = []
        structure = tuple(structure_of(arg, leaves) for arg in args)
        with torch.no_grad():
            if self._refused or not _can_trace(leaves):
                return self._fn(*arguments_of(structure, leaves))
            graph = self._graph_of(
                (structure, _surroundings(leaves, self._variables))
            )
            if graph is None:
                return self._fn(*arguments_of(structure, leaves))
            if graph.verified:
                return graph(leaves)
            if graph.run is None:
                return self._record(graph, structure, leaves)
            return self._verify(graph, structure, leaves)

    def _graph_of(self, key):
        """The `_Graph` of a key, None for the key's first call."""
        with self._lock:
            graph = self._graphs.get(key)
            if graph is None:
                self._graphs[key] = _Graph()
                while len(self._graphs) > KEPT:
                    self._graphs.popitem(last=False)
            else:
                self._graphs.move_to_end(key)
        return graph

    def _record(self, graph, structure, leaves):
        variables = {id(v._value): v for v in self._variables}.values()
        # Each a tensor of its own, also where two are one.
        leaves = [leaf.detach() for leaf in leaves]
        inputs = [v._value for v in variables] + leaves
        with Recording(inputs, self._fold) as recording:
            result = self._fn(*arguments_of(structure, leaves))
        outputs = []
        graph.output = structure_of(result, outputs)
        graph.variables = list(variables)
        try:
            graph.run = recording.function(outputs)
        except Untraceable as error:
            if recording.folded_in_place and self._fold:
                self._fold = False
            else:
                self._refuse(error)
        return result

    def _verify(self, graph, structure, leaves):
        result = self._fn(*arguments_of(structure, leaves))
        found, expected = [], []
        structure_of(graph(leaves), found)
        structure_of(result, expected)
        if agree(found, expected):
            graph.verified = True
        else:
            self._refuse("its operators give another result when called again")
        return result

    def _refuse(self, reason):
        self._refused = True
        self._graphs.clear()
        warnings.warn(
            "A model runs operator by operator on PyTorch, which is right but "
            f"slower, since it cannot be traced: {reason}.",
            stacklevel=5,
        )


class _Graph:
    """The operators of one shape, once they are known."""

    def __init__(self):
        self.run = self.output = self.variables = None
        self.verified = False

    def __call__(self, leaves):
        values = [v._value for v in self.variables]
        return _packed(self.output, iter(self.run(*values, *leaves)))


def _can_trace(leaves):
    """Whether the tensors are plain ones, and no one else traces them."""
    return (
        all(type(x) in (torch.Tensor, torch.nn.Parameter) for x in leaves)
        and not torch._C._len_torch_dispatch_stack()
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and not in_stateless_scope()
        and not in_jvp()
        and not any(x.is_meta for x in leaves)
    )


def _surroundings(leaves, variables):
    """What a graph depends on beside its inputs' shapes."""
    values = [v._value for v in variables[:1]] + leaves[:1]
    kind = values[0].device.type if values else "cpu"
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(
        kind
    )
    return keras.config.floatx(), autocast, *(v.device for v in values)


def agree(found, expected):
    """Whether two lists of tensors are equal but for rounding."""
    if len(found) != len(expected):
        return False
    return all(map(_close, found, expected))


def _close(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not b.is_floating_point() or not b.numel():
        return torch.equal(a, b)
    tolerance = torch.finfo(b.dtype).eps ** 0.5
    size = torch.nan_to_num(b, 0.0, 0.0, 0.0).abs().max()
    return torch.allclose(
        a, b, rtol=tolerance, atol=tolerance * float(size), equal_nan=True
    )


def structure_of(x, leaves):
    """A hashable description of nested tensors, which go to `leaves`."""
    if isinstance(x, torch.Tensor):
        leaves.append(x)
        return x.dtype, x.shape, x.stride(), x.device
    if isinstance(x, (np.ndarray, np.generic)):
        return structure_of(keras.ops.convert_to_tensor(x), leaves)
    if isinstance(x, dict):
        parts = tuple(structure_of(part, leaves) for part in x.values())
        return dict, tuple(x), parts
    if isinstance(x, (tuple, list)):
        return type(x), tuple(structure_of(part, leaves) for part in x)
    if x is None or isinstance(x, (bool, int, float, str)):
        return "static", x
    leaves.append(x)
    return (type(x),)


def arguments_of(structure, leaves):
    leaves = iter(leaves)
    return [_packed(part, leaves) for part in structure]


def _packed(structure, leaves):
    """The nested tensors again; `leaves` is an iterator."""
    kind = structure[0]
    if kind == "static":
        return structure[1]
    if kind is dict:
        parts = [_packed(part, leaves) for part in structure[2]]
        return dict(zip(structure[1], parts, strict=True))
    if kind is list or kind is tuple:
        return kind(_packed(part, leaves) for part in structure[1])
    return next(leaves)
