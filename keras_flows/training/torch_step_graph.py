"""The loss and its gradients as a graph of PyTorch's operators.

Forward and backward pass, derivatives inside the loss among them, are what
`ops.torch_graph` records of a step; weights, data and noise are its inputs.
"""

import collections
import contextlib
import warnings

import torch

from keras_flows.ops.torch_compiled import agree
from keras_flows.ops.torch_compiled import arguments_of
from keras_flows.ops.torch_compiled import structure_of
from keras_flows.ops.torch_graph import Recording
from keras_flows.ops.torch_graph import Untraceable
from keras_flows.training import torch_draws

# Graphs of other shapes that a model keeps.
KEPT = 4


class StepGraphs:
    """What a model knows of its steps: a graph for each shape of a batch.

    Of a shape's first step nothing is kept. In the second its operators are
    recorded, and in the third, as in the first one of each epoch, the graph
    must give what the step gives. Steps of which there is no graph run as
    they are for good, with a warning.

    Args:
        model: the `Trainable`, whose variables are the graphs' inputs.
    """

    def __init__(self, model):
        variables = [*model.variables, *model.optimizer.variables]
        self.variables = list({id(v._value): v for v in variables}.values())
        self.fold = True
        self._graphs = collections.OrderedDict()
        self._refused = False

    def recheck(self):
        """Compare each graph once more: callbacks may have changed a model."""
        for graph in self._graphs.values():
            graph.verified = False

    def step(self, data):
        """The `Step` of a batch."""
        leaves = []
        structure = structure_of(data, leaves)
        plain = all(type(x) is torch.Tensor for x in leaves)
        if self._refused or not plain:
            return Step(data)
        key = structure, torch.is_autocast_enabled(leaves[0].device.type)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self)
            while len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
            return Step(data)
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        if graph.run is None:
            return _Recorded(graph, structure, leaves)
        return _Known(graph, data, leaves)

    def refuse(self, reason):
        """There are no graphs of this model's steps."""
        self._refused = True
        self._graphs.clear()
        warnings.warn(
            "Training runs operator by operator on PyTorch, which is right but "
            f"slower, since the loss cannot be traced: {reason}.",
            stacklevel=2,
        )


class _Graph:
    """The operators of one shape, once they are known.

    `once`: whether they were found right before.
    """

    def __init__(self, owner):
        self.owner = owner
        self.run = self.draws = self.names = None
        self.verified = self.once = False

    def __call__(self, leaves):
        with torch.no_grad():
            draws = torch_draws.again(self.draws)
            values = [v._value for v in self.owner.variables]
            return self.run(*values, *leaves, *draws)


class Step:
    """A step that runs as it is, within `with`.

    Attributes:
        data: its batch.
        known: whether `results` gives (tensors, names) without running it.
    """

    known = False

    def __init__(self, data):
        self.data = data

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def learn(self, tensors, names):
        """Told what the step gave, and what says which tensor is which."""


class _Recorded(Step):
    def __init__(self, graph, structure, leaves):
        self._graph = graph
        # Each a tensor of its own, also where two are one.
        leaves = [leaf.detach() for leaf in leaves]
        (data,) = arguments_of([structure], leaves)
        super().__init__(data)
        values = [v._value for v in graph.owner.variables]
        self._recording = Recording(values + leaves, graph.owner.fold)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.enter_context(self._recording)
        self._stack.enter_context(torch_draws.noted_in(self._recording))
        return self

    def __exit__(self, *error):
        self._stack.close()

    def learn(self, tensors, names):
        graph, recording = self._graph, self._recording
        try:
            graph.run = recording.function(tensors)
            graph.draws, graph.names = recording.draws, names
        except Untraceable as error:
            if recording.folded_in_place and graph.owner.fold:
                graph.owner.fold = False
            else:
                graph.owner.refuse(error)


class _Known(Step):
    def __init__(self, graph, data, leaves):
        super().__init__(data)
        self._graph, self._leaves = graph, leaves
        self.known = graph.verified

    def results(self):
        return self._graph(self._leaves), self._graph.names

    def __enter__(self):
        """The graph first, from the same random numbers as the step."""
        states = torch_draws.states(self._graph.draws)
        before = [state.clone() for state in states]
        with torch.random.fork_rng():
            self._found = self._graph(self._leaves)
        for state, value in zip(states, before, strict=True):
            state.copy_(value)
        return self

    def learn(self, tensors, names):
        graph = self._graph
        if agree(self._found, tensors):
            graph.verified = graph.once = True
        elif graph.once:
            # What is no tensor has changed since.
            graph.run, graph.once = None, False
        else:
            graph.owner.refuse("its operators give another result each time")
