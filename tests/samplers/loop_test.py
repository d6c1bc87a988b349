"""Compiled steps are found again, forgotten in time, and never stale."""

import keras
import numpy as np
import pytest

import keras_flows as kf


def mlp():
    return kf.networks.MLP(2, width=8, depth=1)


def sample(model, **kwargs):
    x = model.generate(4, seed=0, num_steps=4, **kwargs)
    return keras.ops.convert_to_numpy(x)


def test_grids_share_their_steps():
    """What is only in the times is no reason to compile again."""
    model = kf.SiTInterface(mlp(), ema=None)
    found = [
        sample(model, sampler=kf.samplers.Euler(shift=shift))
        for shift in np.linspace(0.5, 3.0, 21)
    ]
    assert len({x.tobytes() for x in found}) == 21
    assert len(model.loop) == 1
    sample(model, sampler=kf.samplers.Euler(grid="cosine"))
    assert len(model.loop) == 1
    # One for the last step, which is Euler's, and one for all others.
    sample(model, sampler="heun")
    assert len(model.loop) == 3


def test_the_oldest_steps_are_forgotten():
    model = kf.SiTInterface(mlp(), ema=None)
    model.loop.size = 6
    samplers = [kf.samplers.DDIM(clip=float(c)) for c in range(1, 9)]
    for sampler in samplers:
        sample(model, sampler=sampler)
        assert len(model.loop) <= 6
    # The newest is among them, and the oldest works all the same.
    kept = len(model.loop)
    sample(model, sampler=samplers[-1])
    assert len(model.loop) == kept
    assert np.isfinite(sample(model, sampler=samplers[0])).all()


@pytest.mark.parametrize("use_ema", [True, False])
def test_a_changed_network_is_sampled_as_it_is(use_ema):
    """LoRA after `generate`: the function that saw the old kernel is stale."""
    model = kf.SiTInterface(mlp(), ema=None)
    before = sample(model, use_ema=use_ema)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
            layer.lora_kernel_b.assign(layer.lora_kernel_b + 0.5)
    after = sample(model, use_ema=use_ema)
    assert np.abs(after - before).max() > 1e-2
    fresh = kf.SiTInterface(model.network, ema=None)
    np.testing.assert_array_equal(after, sample(fresh, use_ema=use_ema))


def test_evaluate_is_the_same_in_every_process(tmp_path):
    """Without a seed, too, after saving and loading."""
    model = kf.SiTInterface(mlp(), ema=None)
    model.compile("sgd")
    x = np.random.default_rng(0).standard_normal((32, 2)).astype("float32")
    loss = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    model.save_to_preset(tmp_path / "preset")
    again = kf.from_preset(tmp_path / "preset")
    again.compile("sgd")
    found = again.evaluate(x, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    # Training goes on with its own draws.
    state = np.array(model.seed_generator.state)
    model.evaluate(x, verbose=0)
    np.testing.assert_array_equal(np.array(model.seed_generator.state), state)


def traces(model):
    """How often the network was called by name in a trace, a list."""
    called = []
    call = model.network.call

    def counted(*args, **kwargs):
        called.append(1)
        return call(*args, **kwargs)

    model.network.call = counted
    return called


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="nothing is compiled there"
)
def test_fewer_samples_than_before_compile_nothing():
    """And are those that the larger batch holds, bit for bit."""
    network = kf.networks.MLP(2, width=8, depth=1, num_classes=3)
    model = kf.SiTInterface(network, ema=None)
    labels = np.arange(8) % 3
    options = {"num_steps": 3, "seed": 0, "guidance_scale": 2.0}
    called = traces(model)

    def generate(count, **more):
        x = model.generate(condition=labels[:count], **options, **more)
        return keras.ops.convert_to_numpy(x)

    for sampler in ("euler", "euler_maruyama"):
        whole = generate(8, sampler=sampler)
        before = len(called)
        for count in (7, 5, 4):
            fewer = generate(count, sampler=sampler)
            np.testing.assert_array_equal(fewer, whole[:count])
        assert len(called) == before
        generate(3, sampler=sampler)
        now = len(called)
        assert now > before
        # The last batch of this call has one row of three.
        parts = generate(7, sampler=sampler, batch_size=3)
        assert len(called) == now
        np.testing.assert_allclose(parts, whole[:7], rtol=1e-5, atol=1e-6)
        path = generate(6, sampler=sampler, return_trajectory=True)
        assert path.shape == (4, 6, 2)
        np.testing.assert_array_equal(path[-1], whole[:6])
