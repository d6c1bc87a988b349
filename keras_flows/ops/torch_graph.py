"""Functions of tensors as plain sequences of PyTorch's operators.

A `Recording` notes, while a function runs as it always does, which operators
it calls with which tensors. `function` of it calls these and nothing else: all
the Python between them is gone. Where the function looked at a value (`int`,
`if`, NumPy), wrote to an input or drew by a generator, its operators do not
tell what it does, and there is none.
"""

import contextlib
import math

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_aten = torch.ops.aten
# What gives its argument back where nothing is differentiated.
_SAME = (_aten.detach.default, _aten.alias.default)
# What a tensor made of numbers, or of an array, goes through.
_FRESH = (_aten.lift_fresh.default, _aten.lift_fresh_copy.default)
# What hands a tensor's numbers to Python and is no operator.
_READS = (
    torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__,
    torch.Tensor.data_ptr, torch.Tensor.__dlpack__,
    torch.Tensor.untyped_storage, torch.Tensor.storage,
)  # fmt: skip
# What tells of tensors no numbers.
_KINDS = (
    torch.ops.prim.device.default, _aten.is_same_size.default,
    _aten._has_same_storage_numel.default,
)  # fmt: skip
# Elements of the largest constant that is kept.
_LARGEST = 2**20


class Untraceable(Exception):
    """A function that its operators do not tell."""


class Recording:
    """The operators that run within `with`.

    Args:
        inputs: tensors, of which no two are one object; those that the
            function will be called with stand in their places.
        fold: whether what no input reaches is worked out once. Not where it
            is then written to: see `folded_in_place`.

    Attributes:
        seed: None; set before a draw by a generator that can be seeded again.
        draws: (seed, operator, args, kwargs) of each such draw, whose result
            the function takes after its other inputs.
        folded_in_place: whether the function wrote to such a tensor.
    """

    def __init__(self, inputs, fold=True):
        self.fold = fold
        self.folded_in_place = False
        self.seed = None
        self.draws = []
        self._paused = False
        self._reason = None
        self._names = WeakTensorKeyDictionary()  # Of tensors, in the source.
        self._constants = WeakTensorKeyDictionary()
        self._roots = WeakTensorKeyDictionary()  # Whose memory views show.
        self._inputs = []
        for tensor in inputs:
            self._inputs.append(f"v{len(self._inputs)}")
            self._names[tensor] = self._inputs[-1]
        self._outer = set(self._inputs)
        self._count = len(self._inputs)
        self._lines = []
        self._globals = {"inf": math.inf, "nan": math.nan}
        self._by_id = {}
        self._modes = _Reads(self), _Operators(self)

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    @contextlib.contextmanager
    def paused(self):
        """Within, nothing is noted."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def refuse(self, reason):
        """There is no function, for this reason."""
        self._reason = self._reason or reason

    def function(self, outputs):
        """The function of the inputs to the list of these tensors.

        Raises:
            Untraceable: if there is none.
        """
        found = []
        for tensor in outputs:
            name = self._name(tensor)
            # Whoever gets a constant may write to it.
            copied = ".clone()" if name[0] == "c" else ""
            found.append((name, copied))
        if self._reason is not None:
            raise Untraceable(self._reason)
        needed = {name for name, _ in found}
        lines = []
        for line in reversed(self._lines):
            if not line.kept and not needed & set(line.written):
                continue
            done = {*line.read, *line.written} - needed - {*self._inputs}
            done = sorted(name for name in done if name[0] == "v")
            if done:
                lines.append(f"del {', '.join(done)}")
            lines.append(line.text)
            needed.update(line.read)
        body = "\n    ".join(reversed(lines))
        result = ", ".join(name + copied for name, copied in found)
        source = (
            f"def run({', '.join(self._inputs)}):\n    {body}\n"
            f"    return [{result}]"
        )
        code = compile(source, "<graph>", "exec")
        exec(code, self._globals)
        run = self._globals["run"]
        # Without the constants that only others were made of.
        used = self._globals.keys() & set(run.__code__.co_names)
        kept = {name: self._globals[name] for name in used}
        exec(code, kept)
        return kept["run"]

    def read(self, tensor):
        """Python was told a tensor's numbers."""
        if not self._paused and not self._is_constant(tensor):
            self.refuse("it looks at the values of tensors")

    def ran(self, operator, args, kwargs, result):
        """An operator ran."""
        if self._paused:
            return
        outputs = list(_tensors(result))
        inputs = list(_tensors((args, kwargs)))
        if operator in _FRESH:
            self._remember(outputs[0])
            return
        written = _written(operator, args, kwargs)
        if kwargs.get("generator") is not None:
            self._draw(operator, args, kwargs, inputs, outputs, written)
            return
        for tensor in written:
            self._check_written(tensor, operator)
        if not outputs and not written:
            if operator not in _KINDS:
                for tensor in inputs:
                    self.read(tensor)
            return
        random = torch.Tag.nondeterministic_seeded in operator.tags
        constant = all(map(self._is_constant, inputs))
        if constant and not written and not random and self._folds(outputs):
            for tensor in outputs:
                self._constants[tensor] = True
                self._names[tensor] = self._global(tensor)
            return
        if _has_any_shape(operator, args):
            self.refuse("its shapes depend on the values of tensors")
        if not written and _makes_views(operator):
            for tensor in outputs:
                self._roots[tensor] = self._roots.get(inputs[0], inputs[0])
        if operator in _SAME:
            self._names[outputs[0]] = self._name(inputs[0])
            return
        read = [self._name(tensor) for tensor in inputs]
        given = [self._text(a) for a in args]
        given += [f"{k}={self._text(v)}" for k, v in kwargs.items()]
        called = f"{self._global(operator)}({', '.join(given)})"
        names = [self._local(tensor) for tensor in outputs]
        left = _pattern(result, iter(names))
        line = _Line(names, read, f"{left} = {called}", written or random)
        self._lines.append(line)

    def _draw(self, operator, args, kwargs, inputs, outputs, written):
        """A draw, which is made again before the function is called."""
        seed, self.seed = self.seed, None
        if seed is None or written or not all(map(self._is_constant, inputs)):
            self.refuse("it draws by a generator of its own")
            return
        self.draws.append((seed, operator, args, kwargs))
        self._inputs.append(self._local(outputs[0]))
        self._outer.add(self._inputs[-1])

    def _remember(self, tensor):
        """A tensor that was made of numbers."""
        # An array may share its memory, and change.
        kept = self._global(tensor.clone())
        if self.fold:
            self._names[tensor] = kept
            self._constants[tensor] = True
            return
        name = self._local(tensor)
        clone = self._global(_aten.clone.default)
        self._lines.append(_Line([name], [], f"{name} = {clone}({kept})"))

    def _folds(self, tensors):
        return self.fold and sum(t.numel() for t in tensors) <= _LARGEST

    def _is_constant(self, tensor):
        return tensor in self._constants

    def _check_written(self, tensor, operator):
        root = self._roots.get(tensor, tensor)
        if self._is_constant(root):
            self.folded_in_place = True
            self.refuse("it writes to a constant")
        elif self._names.get(root, "c")[0] == "c" or (
            self._names[root] in self._outer
        ):
            self.refuse(f"it writes to its inputs, by {operator}")

    def _local(self, tensor):
        if tensor in self._names and self._names[tensor][0] == "v":
            # Written in place: the same tensor is returned.
            return self._names[tensor]
        name = self._names[tensor] = f"v{self._count}"
        self._count += 1
        return name

    def _name(self, tensor):
        """Of a tensor that was not made here, its own: it is read anew."""
        if tensor not in self._names:
            self._names[tensor] = self._global(tensor)
        return self._names[tensor]

    def _global(self, value):
        if id(value) not in self._by_id:
            name = f"c{len(self._globals)}"
            self._by_id[id(value)], self._globals[name] = name, value
        return self._by_id[id(value)]

    def _text(self, value):
        if isinstance(value, torch.Tensor):
            return self._name(value)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._text, value))}]"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        return self._global(value)


class _Line:
    """One operator's line: what it writes and reads, names, and its text.

    `kept`: whether it does more than to give a result.
    """

    def __init__(self, written, read, text, kept=False):
        self.written, self.read, self.text = written, read, text
        self.kept = bool(kept)


class _Reads(TorchFunctionMode):
    def __init__(self, recording):
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _READS:
            self.recording.read(args[0])
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, recording):
        super().__init__()
        self.recording = recording

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(func, torch._ops.OpOverload):
            self.recording.ran(func, args, kwargs, result)
        else:
            self.recording.refuse(f"{func} is no operator")
        return result


def _tensors(structure):
    """The tensors of nested lists, tuples and dicts."""
    if isinstance(structure, torch.Tensor):
        yield structure
    elif isinstance(structure, dict):
        for part in structure.values():
            yield from _tensors(part)
    elif isinstance(structure, (list, tuple)):
        for part in structure:
            yield from _tensors(part)


def _written(operator, args, kwargs):
    """The tensors that an operator writes to."""
    schema = operator._schema
    if not schema.is_mutable:
        return []
    found = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += _tensors(value)
    return found


def _pattern(result, names):
    """The left side of an assignment of an operator's result."""
    if isinstance(result, (list, tuple)):
        return "(" + "".join(f"{_pattern(r, names)}, " for r in result) + ")"
    return next(names) if isinstance(result, torch.Tensor) else "_"


def _has_any_shape(operator, args):
    """Whether the result's shape depends on values."""
    if operator is _aten.index.Tensor:
        masks = (torch.bool, torch.uint8)
        return any(i is not None and i.dtype in masks for i in args[1])
    return torch.Tag.dynamic_output_shape in operator.tags


def _makes_views(operator):
    return any(r.alias_info is not None for r in operator._schema.returns)
