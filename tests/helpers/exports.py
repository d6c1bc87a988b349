"""Models to export, and what an export of them must give."""

import keras
import numpy as np
from keras import ops

import keras_flows as kf

MLP = kf.networks.MLP


def numpy(x):
    return ops.convert_to_numpy(x)


def randomised(model, network=None):
    """Weights of a size at which every part of the network matters."""
    rng = np.random.default_rng(1)
    for v in (network or model.network).trainable_variables:
        v.assign(rng.standard_normal(v.shape) * 0.3)
    return model


def guided_sit():
    """SiT in 8 guided steps, of averaged weights that are not the live ones."""
    model = randomised(kf.SiTInterface(MLP(2, 8, 1, num_classes=4), ema=0.9))
    model.start_averages()
    # From its first update on an average is no longer the live weights.
    model.emas[0].updates.assign(1)
    for v in model.network.trainable_variables:
        v.assign(-v)
    settings = {
        "num_steps": 8,
        "guidance_scale": 2.0,
        "guidance_interval": (0.3, 0.8),
        "guidance_channels": 1,
    }
    return model, settings


def mean_flow():
    """MeanFlow in one step, with a decoder of one dense layer."""
    network = MLP(2, 8, 1, two_times=True)
    model = randomised(kf.MeanFlowInterface(network, ema=None))
    latent = keras.Input((2,), name="latent")
    decoder = keras.Model(latent, keras.layers.Dense(5)(latent))
    decoder.set_weights([np.linspace(-2, 1, 10).reshape(2, 5), np.arange(5)])
    return model, {"decoder": decoder}


def lsd():
    network = MLP((3, 2), 8, 1, two_times=True)
    model = kf.FlowMapInterface(network, "lsd", ema=None)
    return randomised(model), {"num_steps": 4}


def mip_policy():
    """MIP, which starts from zero, of a dict of observations."""
    spec = {k: keras.Input((2, 3), name=k) for k in ("arm", "object")}
    encoder = keras.Model(
        spec, keras.layers.Concatenate()([spec["arm"], spec["object"]])
    )
    network = kf.networks.ChunkMLP(2, 4, (2, 6), True, 8, 1, time_features=4)
    interface = kf.FlowMapInterface(network, "mip", ema=0.9)
    policy = kf.policies.Policy(
        interface, encoder, act_steps=2, action_high=[4.0, 9.0]
    )
    rng = np.random.default_rng(2)
    policy.adapt(
        [
            {
                "action": rng.uniform(-3, 5, (20, 2)),
                "observation": {
                    "arm": rng.uniform(0, 2, (20, 3)),
                    "object": rng.uniform(-9, 2, (20, 3)),
                },
            }
        ]
    )
    return randomised(policy), {"num_steps": 2}


def digits():
    """A small DiT of images, as pixels of 0 to 255."""
    network = kf.networks.DiT((8, 8, 1), 4, 8, 1, 1, 1.0, num_classes=10)
    model = randomised(kf.SiTInterface(network, ema=None))
    return model, {"num_steps": 1, "output_range": (0, 255)}


def bridge():
    """A stochastic interpolant, whose velocity takes a second network."""
    model = kf.StochasticInterpolantInterface(
        MLP(2, 8, 1), MLP(2, 8, 1, name="noise"), ema=0.9
    )
    randomised(model, model.noise_network)
    return randomised(model), {"num_steps": 2}


def dmd():
    """A generator beside its teacher; one step, of a sampler that renoises."""
    teacher = kf.FlowMapInterface(MLP(2, 8, 1), "flow", ema=0.9)
    teacher.trainable = False
    return randomised(kf.DMDInterface(teacher)), {"num_steps": 1}


CASES = (guided_sit, mean_flow, lsd, mip_policy, digits)


def given(model, size, seed=0):
    """Inputs of `serve`."""
    rng = np.random.default_rng(seed)
    shape = (size, *model.sample_shape)
    inputs = {"noise": rng.standard_normal(shape, dtype="float32")}
    if isinstance(model, kf.policies.Policy):
        for key, part in model.observation_spec.items():
            inputs[key] = rng.uniform(0, 2, (size, *part)).astype("float32")
    elif "condition" in model.network.input:
        inputs["condition"] = rng.integers(0, 4, size, dtype="int32")
    return inputs


def expected(model, settings, inputs):
    """What `generate` or `predict_chunk` gives, scaled by hand."""
    settings = dict(settings)
    low, high = settings.pop("output_range", None) or (None, None)
    decoder = settings.pop("decoder", None)
    if isinstance(model, kf.policies.Policy):
        history = {k: v for k, v in inputs.items() if k != "noise"}
        return model.predict_chunk(history, **settings)
    x = numpy(model.generate(**inputs, **settings))
    if decoder is not None:
        kernel, bias = decoder.get_weights()
        x = x @ kernel + bias
    if low is None:
        return x
    return low + (np.clip(x, -1, 1) + 1) / 2 * (high - low)


def latent_model():
    """A model of 4 x 4 latents, and the decoder of their 8 x 8 images."""
    vae = kf.networks.AutoencoderKL(
        (8, 8, 3), 2, (4, 4), 1, norm_groups=2, scaling_factor=0.5
    )
    randomised(None, vae.decoder)
    network = MLP(vae.latent_shape, 8, 1)
    return randomised(kf.SiTInterface(network, ema=None)), vae
