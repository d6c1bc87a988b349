"""Kernels inside `kf.ops.jvp`: right in value, derivative and side effects."""

import keras
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.ops import in_jvp

BACKEND = keras.backend.backend()


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has none")
@pytest.mark.parametrize("ours", [True, False])
def test_only_plain_passes_ask_for_fused_attention(ours, monkeypatch):
    """On GPUs in bfloat16 it has no forward derivative, on no backend."""
    from keras.src.backend import nn

    asked = []
    monkeypatch.setattr(
        nn, "_can_use_flash_attention", lambda *args: asked.append(in_jvp())
    )
    if ours:
        layer = kf.networks.SelfAttention(2)
        layer.build((None, 3, 8))
        attend = layer
    else:
        layer = keras.layers.MultiHeadAttention(2, 4)
        layer.build((None, 3, 8), (None, 3, 8))

        def attend(x):
            return layer(x, x)

    x = ops.ones((2, 3, 8))
    kf.ops.jvp(attend, (x,), (x,))
    assert asked == []
    attend(x)
    # PyTorch itself chooses a kernel for our own layer.
    direct = ours and BACKEND == "torch"
    assert asked == ([] if direct else [False])


if BACKEND == "torch":
    import torch
    from torch.nn import functional
    from torch.nn.attention import SDPBackend
    from torch.nn.attention import sdpa_kernel

    def flash(q, k, v):
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return functional.scaled_dot_product_attention(
                q, k, v, is_causal=True
            )

    X, W, Q = (3, 4, 5), (4,), (2, 2, 6, 4)
    # A function and the shapes of its tensors.
    RIGHT = {
        "layer over two axes": (lambda x: functional.layer_norm(x, (4, 5)), X),
        "layer weights": (
            lambda x, w, b: functional.layer_norm(x, (5,), w, b), X, (5,), (5,),
        ),
        "native layer": (
            lambda x: torch.native_layer_norm(x, (5,), None, None, 1e-5)[0], X,
        ),
        "rms": (lambda x, w: functional.rms_norm(x, (5,), w), X, (5,)),
        "rms over two axes": (lambda x: functional.rms_norm(x, (4, 5)), X),
        "group": (lambda x, w, b: functional.group_norm(x, 2, w, b), X, W, W),
        "batch": (
            lambda x, w, b: functional.batch_norm(
                x, None, None, w, b, training=True
            ), X, W, W,
        ),
        "batch fixed": (
            lambda x, w: functional.batch_norm(
                x, torch.ones_like(w), torch.ones_like(w), w
            ), X, W,
        ),
        "native batch": (
            lambda x: torch.native_batch_norm(
                x, None, None, None, None, True, 0.1, 1e-5
            )[0], X,
        ),
        "instance": (
            lambda x, w: functional.instance_norm(x, weight=w), X, W,
        ),
        "weight": (lambda v, g: torch._weight_norm(v, g, 0), X, (3, 1, 1)),
        "glu": (lambda x: functional.glu(x, 1), X),
        "hardsigmoid": (functional.hardsigmoid, X),
        "flash": (flash, Q, Q, Q),
        "attention": (functional.scaled_dot_product_attention, Q, Q, Q),
        "scatter": (
            lambda x, y: torch.scatter_reduce(
                x, 0, torch.tensor([0, 1, 1]), y, "mean"
            ), (3,), (3,),
        ),
    }  # fmt: skip
    A = torch.eye(3, dtype=torch.float64) + 0.1

    @torch.library.custom_op("keras_flows_test::cube", mutates_args=())
    def cube(x: torch.Tensor) -> torch.Tensor:
        return x**3

    WRONG = {
        "linalg_det": torch.linalg.det,
        "logdet": torch.logdet,
        "linalg_slogdet": lambda a: torch.linalg.slogdet(a)[1],
        "linalg_solve": lambda a: torch.linalg.solve(a, A),
        "scatter_reduce": lambda a: torch.scatter_reduce(
            a, 0, torch.zeros(3, 3, dtype=torch.int64), a, "prod"
        ),
        "keras_flows_test::cube": cube,
        "_cdist_forward": lambda a: torch.cdist(a, A),
    }
else:
    RIGHT, WRONG = [], []


@pytest.mark.parametrize("name", RIGHT)
def test_torch_functions_inside_jvps(name, rng):
    """Value, JVP and gradient through it, against float64 differences."""
    kernel, *shapes = RIGHT[name]

    def fun(*xs):
        return kernel(*xs).square()

    def draw(shape):
        return torch.tensor(rng.standard_normal(shape))

    xs, vs, us = ([draw(shape) for shape in shapes] for _ in range(3))
    y, tangent = kf.ops.jvp(fun, xs, vs)
    weigh, h = draw(y.shape), 1e-5

    def moved(steps, k):
        return [x + k * h * u for x, u in zip(xs, steps, strict=True)]

    def total(xs):
        return (weigh * kf.ops.jvp(fun, xs, vs)[1]).sum()

    plain = fun(*xs)
    slope = (fun(*moved(vs, 1)) - fun(*moved(vs, -1))) / (2 * h)
    for a, b in ((y, plain), (tangent, slope)):
        assert (a - b).norm() < 1e-8 * b.norm()
    leaves = [x.clone().requires_grad_() for x in xs]
    found = torch.autograd.grad(total(leaves), leaves)
    expected = (total(moved(us, 1)) - total(moved(us, -1))) / (2 * h)
    found = sum((g * u).sum() for g, u in zip(found, us, strict=True))
    assert abs(found - expected) < 1e-6 * max(1.0, abs(expected))


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's")
def test_running_statistics_move_inside_jvps(rng):
    x, mean, variance = (
        torch.tensor(rng.standard_normal(shape)) for shape in ((6, 3), 3, 3)
    )
    moved = []
    for inside in (True, False):
        statistics = mean.clone(), variance.clone().square()

        def norm(x, statistics=statistics):
            return functional.batch_norm(x, *statistics, training=True)

        if inside:
            kf.ops.jvp(norm, (x,), (x,))
        else:
            norm(x)
        moved.append(torch.stack(statistics))
    assert not torch.equal(moved[0][0], mean)
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_differentiates_wrongly_raises(name):
    """With the operator's name, and only where a derivative goes through."""
    with pytest.raises(
        NotImplementedError, match=f"{name} has no right.*Write"
    ):
        kf.ops.jvp(WRONG[name], (A,), (A,))
    if name not in ("scatter_reduce", "_cdist_forward"):
        y, tangent = kf.ops.jvp(
            lambda x: x * WRONG[name](torch.zeros_like(x) + A), (A,), (A,)
        )
        torch.testing.assert_close(y, A * WRONG[name](A))
        torch.testing.assert_close(tangent, y)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's")
def test_kernels_are_back_after_a_jvp():
    """Also after one that raised."""
    x = torch.ones(2, 3)

    def wrong(x):
        raise KeyError("of the function")

    kf.ops.jvp(lambda x: functional.layer_norm(x, (3,)), (x,), (x,))
    with pytest.raises(KeyError):
        kf.ops.jvp(wrong, (x,), (x,))
    for name in ("aten::layer_norm", "keras_flows_test::cube"):
        assert not torch._C._dispatch_has_kernel_for_dispatch_key(
            name, "FuncTorchDynamicLayerFrontMode"
        )
    assert not in_jvp()
