"""PyTorch's kernels whose derivatives go wrong, by their formulas.

`torch.func.jvp` takes every operation's own forward derivative, and the
gradient through a JVP differentiates that once more. Where the derivative was
written with numbers that the kernel saved (mean and 1 / std, an LU factor),
these count as constants, and the gradient is wrong without a word. PyTorch
2.13.0, every operation of its test suite and of `torch.nn`, float64, the
gradient through `torch.func.jvp` against central differences of the JVP:

| operation | JVP | gradient through it | here |
|---|---|---|---|
| layer_norm | right | 29 to 91 % off | formula |
| batch_norm, instance_norm, batch's own | right | 53 to 83 % off | formula |
| batch_norm by running ones; group_norm | right | right | |
| rms_norm | right | right; fused on GPUs | formula |
| attention, fused | raises | | the math kernel |
| _weight_norm | raises | | formula |
| glu, hardsigmoid | right | raises | formula |
| det, slogdet, logdet, linalg.solve, tensorsolve | right | 12 to 120 % off | |
| linalg.householder_product | right | 170 % off | raises, as these |
| scatter_reduce "prod" | 0 | 0 | raises |
| operators of `torch.library.custom_op` | 0 | 0 | raises |
| cdist, grid_sample, embedding_bag, ctc_loss, ... | raises | | |
| linear, convolution, recurrent, pooling, activations, | | | |
| softmax, other norms, linalg.inv, lu_solve, fft, ... | right | right | |

Within `formulas` the operations marked here are replaced where functorch
takes them over, below `torch.nn`, scripts and C++ functions alike; all others
run as they do, at no cost. See pytorch#196700, #196699, #128971.
"""

import contextlib
import re
import threading

import torch
from keras import tree
from torch._library.custom_ops import OPDEFS
from torch.nn.attention import SDPBackend
from torch.nn.attention import sdpa_kernel

# The first dispatch key, set within functorch's transforms alone.
KEY = "FuncTorchDynamicLayerFrontMode"
aten = torch.ops.aten


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    """(x - mean) / sqrt(var + eps) over the last axes, times w, plus b."""
    return native_layer_norm(x, shape, weight, bias, eps)[0]


def native_layer_norm(x, shape, weight, bias, eps):
    y, mean, scale = _normalized(x, range(x.ndim - len(shape), x.ndim), eps)
    return _affine(y, weight, bias).to(x.dtype), mean, scale


def rms_norm(x, shape, weight=None, eps=None):
    y = _wide(x)
    eps = torch.finfo(y.dtype).eps if eps is None else eps
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    y = y * _inverse_root(torch.mean(y * y, axes, keepdim=True), eps)
    return _affine(y, weight, None).to(x.dtype)


def batch_norm(x, weight, bias, mean, variance, training, momentum, eps, _):
    return native_batch_norm(
        x, weight, bias, mean, variance, training, momentum, eps
    )[0]


def native_batch_norm(x, weight, bias, mean, variance, training, momentum, eps):
    """Over all axes but the second, which has the channels.

    In training the running statistics move, too.
    """
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    if training:
        axes = (0, *range(2, x.ndim))
        y, batch_mean, scale = _normalized(x, axes, eps)
        if mean is not None:
            aten.batch_norm_update_stats(x.detach(), mean, variance, momentum)
    else:
        batch_mean = _wide(mean).reshape(shape)
        scale = torch.rsqrt(_wide(variance) + eps).reshape(shape)
        y = (_wide(x) - batch_mean) * scale
    weight, bias = (
        p if p is None else p.reshape(shape) for p in (weight, bias)
    )
    y = _affine(y, weight, bias).to(x.dtype)
    return y, batch_mean.flatten(), scale.flatten()


def instance_norm(
    x, weight, bias, mean, variance, use_input_stats, momentum, eps, _
):
    """Over all axes but the first two."""
    if not use_input_stats:
        return batch_norm(
            x, weight, bias, mean, variance, False, momentum, eps, _
        )
    if mean is not None:
        raise NotImplementedError(
            "Instance normalisation inside `kf.ops.jvp` keeps no running "
            "statistics: build it with `track_running_stats=False`."
        )
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    weight, bias = (
        p if p is None else p.reshape(shape) for p in (weight, bias)
    )
    y, _, _ = _normalized(x, range(2, x.ndim), eps)
    return _affine(y, weight, bias).to(x.dtype)


def attention(q, k, v, mask=None, dropout=0.0, causal=False, **options):
    """By the kernel that is made of other operations, whichever was asked."""
    with sdpa_kernel([SDPBackend.MATH]):
        return aten.scaled_dot_product_attention.default.decompose(
            q, k, v, mask, dropout, causal, **options
        )


def weight_norm(v, g, dim=0):
    return v * (g / torch.norm_except_dim(v, 2, dim))


def glu(x, dim=-1):
    a, b = torch.chunk(x, 2, dim)
    return a * torch.sigmoid(b)


def hardsigmoid(x):
    return torch.clamp(x / 6.0 + 0.5, 0.0, 1.0)


def _wide(x):
    """`x` in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _normalized(x, axes, eps):
    """((x - mean) scale, mean, scale = 1 / sqrt(var + eps)) over the axes."""
    x, axes = _wide(x), tuple(axes)
    mean = torch.mean(x, axes, keepdim=True)
    x = x - mean
    scale = _inverse_root(torch.mean(x * x, axes, keepdim=True), eps)
    return x * scale, mean, scale


def _inverse_root(square, eps):
    """1 / sqrt(square + eps), see `ops.normalize` on how eps is added."""
    return torch.rsqrt(aten.add.Scalar(square, eps))


def _affine(y, weight, bias):
    if weight is not None:
        y = y * weight.to(y.dtype)
    return y if bias is None else y + bias.to(y.dtype)


FORMULAS = {
    "layer_norm": layer_norm,
    "native_layer_norm": native_layer_norm,
    "rms_norm": rms_norm,
    "batch_norm": batch_norm,
    "native_batch_norm": native_batch_norm,
    "instance_norm": instance_norm,
    "scaled_dot_product_attention": attention,
    "_weight_norm": weight_norm,
    "glu": glu,
    "hardsigmoid": hardsigmoid,
}

_LU = "torch.linalg.lu_factor"
# What PyTorch differentiates wrongly, and what to write instead.
REFUSED = {
    "det": f"the diagonal of {_LU}(a)[0]",
    "linalg_det": f"the diagonal of {_LU}(a)[0]",
    "slogdet": f"the diagonal of {_LU}(a)[0]",
    "linalg_slogdet": f"the diagonal of {_LU}(a)[0]",
    "logdet": f"the diagonal of {_LU}(a)[0]",
    "linalg_solve": f"torch.linalg.lu_solve(*{_LU}(a), b)",
    "linalg_solve_ex": f"torch.linalg.lu_solve(*{_LU}(a), b)",
    "linalg_tensorsolve": f"torch.linalg.lu_solve(*{_LU}(a), b)",
    "linalg_householder_product": "torch.linalg.qr",
    "orgqr": "torch.linalg.qr",
}


def scatter_reduce(x, dim, index, source, reduce, *, include_self=True):
    """PyTorch's, which is right but for products."""
    if reduce == "prod":
        raise _error("aten::scatter_reduce", "another reduction than 'prod'")
    return x.clone().scatter_reduce_(
        dim, index, source, reduce, include_self=include_self
    )


def _error(name, instead):
    return NotImplementedError(
        f"PyTorch's {name} has no right derivative inside `kf.ops.jvp`, by "
        f"which objectives differentiate the network. Write {instead} "
        "instead, or give the objective `derivative='finite_difference'`."
    )


def _refused(operator, instead):
    """A kernel that raises where the operator's inputs have a tangent."""
    functorch = torch._C._functorch
    keys = torch._C.DispatchKey
    functorch_keys = torch._C.DispatchKeySet(
        keys.FuncTorchDynamicLayerFrontMode
    ) | torch._C.DispatchKeySet(keys.FuncTorchDynamicLayerBackMode)

    def unwrapped(x):
        if not isinstance(x, torch.Tensor):
            return x
        if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
            raise _error(operator.name(), instead)
        if functorch.is_gradtrackingtensor(x):
            x = functorch.get_unwrapped(x)
        if functorch.is_functorch_wrapped_tensor(x):
            raise _error(operator.name(), instead)
        return x

    def kernel(*args, **kwargs):
        args, kwargs = tree.map_structure(unwrapped, (args, kwargs))
        with torch._C._ExcludeDispatchKeyGuard(functorch_keys):
            return operator(*args, **kwargs)

    return kernel


def _custom():
    """Names of the custom operators that PyTorch itself does not bring.

    `torch.library.custom_op` knows their reverse mode at most, and takes
    their forward derivative for 0.
    """
    return [
        name
        for name, made in OPDEFS.items()
        if not made._init_fn.__module__.startswith("torch.")
    ]


def _registered():
    """Libraries of operators, in which the kernels are registered."""
    kernels = {f"aten::{name}": f for name, f in FORMULAS.items()}
    kernels["aten::scatter_reduce.two"] = scatter_reduce
    refused = {f"aten::{name}": instead for name, instead in REFUSED.items()}
    for name in _custom():
        refused[name] = "a torch.autograd.Function with a `jvp`"
    for name, instead in refused.items():
        kernels[name] = _refused(_operator(name), instead)
    libraries = {}  # A registration ends with its library.
    for name, kernel in kernels.items():
        namespace, _, name = name.partition("::")
        if namespace not in libraries:
            libraries[namespace] = torch.library.Library(namespace, "IMPL")
        libraries[namespace].impl(name, kernel, KEY)
    return libraries


def _operator(name):
    namespace, _, name = name.partition("::")
    name, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops, namespace), name)
    return getattr(operator, overload or "default")


_lock = threading.Lock()
_users = 0
_libraries = {}


@contextlib.contextmanager
def formulas():
    """Within it functorch's transforms see the formulas of this module."""
    global _users
    with _lock:
        if not _users:
            _libraries.update(_registered())
        _users += 1
    try:
        yield
    except NotImplementedError as error:
        found = re.search(r"forward AD with (\S+) that", str(error))
        if found is None:
            raise
        raise _error(found[1], "it by other operations") from error
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _libraries.clear()
