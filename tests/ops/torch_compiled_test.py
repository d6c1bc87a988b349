"""Graphs of PyTorch's operators against the functions they stand for."""

import threading
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's graphs"
)


def numbers(x):
    return ops.convert_to_numpy(x)


def rows(count=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 4))
    return ops.convert_to_tensor(x.astype("float32"))


def dense():
    layer = keras.layers.Dense(5, activation="silu")
    layer.build((None, 4))
    return layer


def graph_of(fn, variables, *args):
    """The compiled function after the three calls that make its graph."""
    run = kf.ops.compiled(fn, variables)
    for _ in range(3):
        run(*args)
    return run


class Counted:
    """`fn`, counting its calls: a graph makes none."""

    def __init__(self, fn):
        self.fn, self.calls = fn, 0

    def __call__(self, *args):
        self.calls += 1
        return self.fn(*args)


def test_a_graph_gives_what_the_function_gives():
    layer = dense()
    fn = Counted(lambda d: {"y": layer(d["x"]) * d["k"], "n": (None, d["k"])})
    given = {"x": rows(), "k": np.float32(2.0)}
    run = graph_of(fn, layer.variables, given)
    assert fn.calls == 3
    found = run({"x": rows(seed=1), "k": np.float32(3.0)})
    assert fn.calls == 3
    np.testing.assert_allclose(
        numbers(found["y"]), 3.0 * numbers(layer(rows(seed=1))), rtol=1e-6
    )
    assert found["n"][0] is None and float(found["n"][1]) == 3.0


def test_weights_are_not_part_of_a_graph():
    layer = dense()
    run = graph_of(layer, layer.variables, rows())
    layer.set_weights([w + 1.0 for w in layer.get_weights()])
    np.testing.assert_array_equal(numbers(run(rows())), numbers(layer(rows())))
    # Nor is the tensor that holds them.
    import torch

    value = torch.nn.Parameter(layer.kernel.value.detach() * 2.0)
    layer.kernel._value = value
    np.testing.assert_array_equal(numbers(run(rows())), numbers(layer(rows())))


def test_parameters_of_a_module_are_read_anew():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    module.eval()
    run = graph_of(module, [], rows())
    with torch.no_grad():
        module[0].weight.mul_(3.0)
        module[1].running_mean.add_(1.0)
    np.testing.assert_array_equal(numbers(run(rows())), numbers(module(rows())))


def test_other_shapes_have_graphs_of_their_own():
    layer = dense()
    fn = Counted(lambda x: layer(x) + ops.cast(ops.shape(x)[0], "float32"))
    run = graph_of(fn, layer.variables, rows())
    for count in range(1, 25):
        for _ in range(3):
            np.testing.assert_allclose(
                numbers(run(rows(count))),
                numbers(layer(rows(count))) + count,
                rtol=1e-6,
            )
    assert len(run._graphs) == 16


def test_strides_are_part_of_a_shape():
    run = graph_of(lambda x: ops.reshape(x, (-1,)), [], rows(4))
    turned = ops.transpose(rows(4))
    for _ in range(3):
        np.testing.assert_array_equal(
            numbers(run(turned)), numbers(turned).reshape(-1)
        )


def doubled_if_positive(x):
    return x * 2.0 if float(ops.sum(x)) > 0 else x


def through_numpy(x):
    return x + float(numbers(x).sum())


def with_noise(x):
    import torch

    return x + torch.rand_like(x)


def with_seeded_noise(x):
    return x + keras.random.normal(ops.shape(x), seed=7)


def by_a_closed_seed():
    generator = keras.random.SeedGenerator(3)
    return lambda x: x + keras.random.normal((4,), seed=generator)


def test_a_generator_goes_on():
    run = kf.ops.compiled(by_a_closed_seed(), [])
    fn = by_a_closed_seed()
    with pytest.warns(UserWarning, match="cannot be traced"):
        for _ in range(5):
            np.testing.assert_array_equal(
                numbers(run(rows())), numbers(fn(rows()))
            )


@pytest.mark.parametrize(
    "fn", [doubled_if_positive, through_numpy, with_seeded_noise]
)
def test_what_a_graph_cannot_hold_runs_as_it_is(fn):
    run = kf.ops.compiled(fn, [])
    x = ops.abs(rows())
    with pytest.warns(UserWarning, match="cannot be traced") as seen:
        for given in (x, x, -x, x, -x):
            np.testing.assert_allclose(
                numbers(run(given)), numbers(fn(given)), rtol=1e-6
            )
    assert sum("cannot be traced" in str(w.message) for w in seen) == 1


def test_noise_is_drawn_anew():
    run = kf.ops.compiled(with_noise, [])
    with pytest.warns(UserWarning, match="give another result"):
        found = [numbers(run(rows())) for _ in range(5)]
    assert len({x.tobytes() for x in found}) == 5


def test_a_function_that_counts_counts_once():
    count = keras.Variable(0.0)

    def fn(x):
        count.assign_add(1.0)
        return x * count

    run = kf.ops.compiled(fn, [count])
    with pytest.warns(UserWarning, match="writes to its inputs"):
        for _ in range(5):
            run(rows())
    assert float(numbers(count.value)) == 5.0


def test_an_output_may_be_written_to():
    run = graph_of(lambda x: (ops.ones((3,)) * 2.0, x + 1.0), [], rows())
    run(rows())[0].add_(5.0)
    np.testing.assert_array_equal(numbers(run(rows())[0]), [2.0] * 3)


def test_what_is_filled_in_place_is_made_anew():
    import torch

    def fn(x):
        y = torch.zeros(3, 6)
        y[:, :4] = x
        y[:, 4:].add_(1.0)
        return y

    run = graph_of(fn, [], rows())
    run(rows())
    for seed in (1, 2, 3):
        x = rows(seed=seed)
        found = run(x)
        np.testing.assert_array_equal(numbers(found), numbers(fn(x)))
        found.zero_()
    assert not run._refused


def test_a_tensor_that_is_given_twice_may_be_two():
    run = kf.ops.compiled(lambda a, b: a - 2.0 * b, [])
    x, y = rows(), rows(seed=1)
    for _ in range(3):
        run(x, x)
    np.testing.assert_allclose(numbers(run(x, y)), numbers(x - 2.0 * y))


def with_a_mask(x):
    return ops.sum(x[x > 0] * 2.0)


def test_shapes_that_depend_on_values():
    run = kf.ops.compiled(with_a_mask, [])
    with pytest.warns(UserWarning, match="shapes depend"):
        for seed in range(5):
            x = rows(seed=seed)
            np.testing.assert_allclose(
                numbers(run(x)), numbers(with_a_mask(x)), rtol=1e-6
            )


def test_autocast_has_graphs_of_its_own():
    import torch

    layer = dense()
    run = graph_of(layer, layer.variables, rows())
    exact = run(rows())
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = run(rows()), layer(rows())
        np.testing.assert_array_equal(
            numbers(found.float()), numbers(expected.float())
        )
    assert float(ops.max(ops.abs(found - exact))) > 1e-5


def test_a_derivative_of_a_graph_is_taken_of_the_function():
    layer = dense()
    run = graph_of(layer, layer.variables, rows())
    found = kf.ops.jvp(run, (rows(),), (rows(seed=1),))
    expected = kf.ops.jvp(layer, (rows(),), (rows(seed=1),))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(numbers(a), numbers(b), rtol=1e-6)


def test_threads_share_a_function():
    layer = dense()
    run, wrong = kf.ops.compiled(layer, layer.variables), []

    def work(seed):
        for i in range(20):
            x = rows(1 + (seed + i) % 5, seed)
            if not np.array_equal(numbers(run(x)), numbers(layer(x))):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Models.


def made(cls=kf.SiTInterface, dropout=False, **options):
    keras.utils.set_random_seed(0)
    network = kf.networks.MLP(2, 16, 2, two_times=cls is kf.FlowMapInterface)
    model = cls(network, ema=0.5, seed=0, **options)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def as_is(model, **options):
    """Samples without a graph: of a loop that was never run."""
    model.loop = kf.samplers.Loop()
    return numbers(model.generate(6, num_steps=1, **options))


@pytest.mark.parametrize("sampler", ["heun", "euler_maruyama"])
def test_samples_follow_seeds_and_training(sampler):
    model = made()
    points = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    for seed in (1, 2):
        found = numbers(
            model.generate(6, num_steps=8, sampler=sampler, seed=seed)
        )
        again = numbers(
            model.generate(6, num_steps=8, sampler=sampler, seed=seed)
        )
        np.testing.assert_array_equal(found, again)
        slow = model.loop
        model.loop = kf.samplers.Loop()
        for graph in (slow, model.loop):
            assert all(not run._refused for run, _ in graph._kept.values())
        walked = walk_as_is(model, sampler, seed)
        np.testing.assert_allclose(found, walked, rtol=1e-5, atol=1e-6)
        model.loop = slow
        model.fit(points, batch_size=32, epochs=2, verbose=0)


def walk_as_is(model, sampler, seed):
    """`generate` of 8 steps by functions that are never traced."""
    import keras_flows.ops.torch_compiled as module

    before = module._can_trace
    module._can_trace = lambda leaves: False
    try:
        return numbers(
            model.generate(6, num_steps=8, sampler=sampler, seed=seed)
        )
    finally:
        module._can_trace = before


def test_nothing_is_said_of_networks_that_can_be_traced():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = made(kf.FlowMapInterface, objective="lsd")
        for _ in range(3):
            model.generate(4, num_steps=3, seed=0)
