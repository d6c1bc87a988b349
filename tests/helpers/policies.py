"""Small policies and made-up episodes."""

import keras
import numpy as np

import keras_flows as kf
from keras_flows.datasets import robots

HORIZON, OBS_STEPS, ACT_STEPS = 8, 2, 4


def episodes(lengths=(20, 13), seed=0):
    """o_k = (k, noise), a_k = (k, -k) + a number per episode."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        k = np.arange(length, dtype="float32")
        made.append(
            {
                "observation": np.stack(
                    [k, rng.standard_normal(length).astype("float32")], 1
                ),
                "action": np.stack([k, -k], 1) + 100.0 * number,
            }
        )
    return made


def windows(data=None, **kwargs):
    return robots.Windows(
        episodes() if data is None else data,
        HORIZON,
        OBS_STEPS,
        ACT_STEPS,
        **{"batch_size": 8, **kwargs},
    )


def make_policy(
    objective="mip", dim=2, two_times=False, encoder=None, **kwargs
):
    network = kf.networks.MLP(
        (HORIZON, 2),
        width=16,
        depth=1,
        fourier_features=0,
        two_times=two_times,
        condition_dim=OBS_STEPS * dim if encoder is None else 6,
    )
    if encoder is None:
        inputs = keras.Input((OBS_STEPS, dim))
        encoder = keras.Model(inputs, keras.layers.Flatten()(inputs))
    return kf.policies.Policy(
        kf.FlowMapInterface(network, objective, ema=0.9, seed=0),
        encoder,
        act_steps=ACT_STEPS,
        **kwargs,
    )


def trained(*args, steps=4, data=None, **kwargs):
    policy = make_policy(*args, **kwargs)
    source = windows(data)
    policy.adapt(source)
    policy.compile(keras.optimizers.Adam(1e-2))
    for i in range(steps):
        policy.train_on_batch(*source[i % len(source)])
    return policy


def encoder_of_two():
    """A trained encoder of a dict of observations, with dropout."""
    inputs = {
        "arm": keras.Input((OBS_STEPS, 3)),
        "object": keras.Input((OBS_STEPS, 2)),
    }
    h = keras.layers.Concatenate()([inputs["arm"], inputs["object"]])
    h = keras.layers.Dense(6, "tanh")(keras.layers.Flatten()(h))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(h))


def dict_episodes():
    rng = np.random.default_rng(0)
    data = episodes()
    for episode in data:
        length = len(episode["action"])
        episode["observation"] = {
            "arm": rng.standard_normal((length, 3)).astype("float32"),
            "object": episode["observation"],
        }
    return data
