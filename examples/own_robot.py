"""A policy with a camera, from episodes in a folder to a loop without Keras.

    KERAS_BACKEND=jax python examples/own_robot.py --out=own_robot

The hand sees its own place and, in the picture, a red disc that it has to
touch. Put your robot in the place of `Env`, and your recordings into
<out>/episodes; docs/own_robot.md explains each step. Writes the preset and both
exports into --out.
"""

import argparse
import json
import pathlib

import keras
import numpy as np
from keras import layers

import keras_flows as kf
from keras_flows.datasets import robots

SIZE, OBS_STEPS, HORIZON, ACT_STEPS = 32, 2, 8, 4


class Env:
    """`reset(start)` to an observation, `step(action)` to what came of it."""

    def reset(self, start):
        """A start state is a number, and means the same every time."""
        rng = np.random.default_rng(start)
        self.hand, self.disc = rng.uniform(-0.9, 0.9, (2, 2))
        return self.observation()

    def observation(self):
        return {
            "camera": self.render(SIZE),
            "hand": self.hand.astype("float32"),
        }

    def step(self, action):
        """(observation, reward, success)."""
        self.hand = np.clip(self.hand + np.clip(action, -0.1, 0.1), -1, 1)
        success = bool(np.linalg.norm(self.hand - self.disc) < 0.1)
        return self.observation(), float(success), success

    def render(self, size):
        """The picture, (size, size, 3) bytes: a red disc, a blue hand."""
        x, y = np.meshgrid(*2 * [np.linspace(-1, 1, size)])
        picture = np.full((size, size, 3), 255, "uint8")
        for place, colour in (
            (self.disc, (220, 30, 30)),
            (self.hand, (0, 0, 255)),
        ):
            near = (x - place[0]) ** 2 + (y - place[1]) ** 2 < 0.15**2
            picture[near] = colour
        return picture

    def expert_action(self):
        return np.clip(self.disc - self.hand, -0.08, 0.08)


def record(folder, number):
    """One file for each episode: rows of camera, hand and action."""
    folder.mkdir(parents=True)
    env = Env()
    for start in range(number):
        observation, rows = env.reset(start), []
        for _ in range(40):
            action = env.expert_action()
            rows.append({**observation, "action": action})
            observation, _, success = env.step(action)
            if success:
                break
        columns = {key: np.stack([r[key] for r in rows]) for key in rows[0]}
        np.savez(folder / f"{start}.npz", **columns)


def encoder(width=64):
    """(camera, hand) of OBS_STEPS steps to the network's condition.

    `kf.networks.ImageEncoder` is a ResNet for real cameras; this one is small.
    """
    camera = keras.Input((OBS_STEPS, SIZE, SIZE, 3), name="camera")
    hand = keras.Input((OBS_STEPS, 2), name="hand")
    # The steps become channels.
    h = layers.Permute((2, 3, 1, 4))(camera)
    h = layers.Reshape((SIZE, SIZE, 3 * OBS_STEPS))(h)
    h = layers.Conv2D(16, 5, padding="same", activation="silu")(h)
    h = layers.Conv2D(8, 3, padding="same")(h)
    h = kf.networks.SpatialSoftmax()(h)
    h = layers.Concatenate()([h, layers.Flatten()(hand)])
    h = layers.Dense(width, activation="silu")(h)
    h = layers.Reshape((1, width))(layers.Dense(width)(h))
    return keras.Model({"camera": camera, "hand": hand}, h, name="encoder")


def train(episodes, steps, seed):
    windows = robots.Windows(
        episodes, HORIZON, OBS_STEPS, ACT_STEPS, batch_size=64,
        short="pad", repeat=True, seed=seed,
    )  # fmt: skip
    network = kf.networks.ChunkMLP(2, HORIZON, (1, 64), width=128, depth=2)
    policy = kf.policies.Policy(
        kf.FlowMapInterface(network, "mip", ema=0.99, seed=seed),
        encoder(),
        # Pixels are scaled already; the others by the demonstrations.
        observation_normalizer={"camera": "identity", "hand": "min_max"},
        act_steps=ACT_STEPS,
        action_low=-0.1,
        action_high=0.1,
    )
    policy.adapt(windows)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    policy.compile(keras.optimizers.AdamW(rate))
    policy.fit(windows, steps_per_epoch=steps, verbose=0)
    return policy


def onnx_policy(folder):
    """(inputs of `serve`) -> chunks, by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return lambda inputs: session.run(["actions"], inputs)[0]


def saved_model_policy(folder):
    """(inputs of `serve`) -> chunks, by TensorFlow."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serve"]
    return lambda inputs: serve(**inputs)["actions"].numpy()


def plain_loop(chunk_of, env, start, max_steps=40):
    """Whether an exported policy succeeds: NumPy and the file, no Keras."""
    rng = np.random.default_rng(start)
    observation = env.reset(start)
    history, queue = [observation] * OBS_STEPS, []
    for _ in range(max_steps):
        history = [*history[1:], observation]
        if not queue:
            inputs = {
                key: np.stack([seen[key] for seen in history])[None]
                for key in observation
            }
            # Bytes become -1 to 1, as in training.
            inputs["camera"] = inputs["camera"].astype("float32") / 127.5 - 1
            inputs["noise"] = rng.standard_normal((1, HORIZON, 2), "float32")
            first = OBS_STEPS - 1
            queue = list(chunk_of(inputs)[0, first : first + ACT_STEPS])
        observation, _, success = env.step(queue.pop(0))
        if success:
            return True
    return False


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default="own_robot", help="folder to write")
    parser.add_argument("--demonstrations", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    out = pathlib.Path(flags.out)
    if not (out / "episodes").exists():
        record(out / "episodes", flags.demonstrations)
    policy = train(robots.read_npz(out / "episodes"), flags.steps, flags.seed)

    starts = robots.EVALUATION_START + np.arange(flags.trials)
    envs = [Env() for _ in starts]
    rates = {
        "policy": kf.policies.evaluate(policy, envs, starts, max_steps=40).rate
    }
    policy.save_to_preset(out / "preset")
    with kf.export.tensorflow_process():
        policy.export(out / "onnx", "onnx", verbose=False)
        policy.export(out / "saved_model", verbose=False)
    for name, load in (
        ("onnx", onnx_policy),
        ("saved_model", saved_model_policy),
    ):
        chunk_of = load(out / name)
        won = [plain_loop(chunk_of, envs[0], start) for start in starts]
        rates[name] = float(np.mean(won))
    (out / "rates.json").write_text(json.dumps(rates, indent=2) + "\n")
    told = [f"{100 * rate:.0f} % by {name}" for name, rate in rates.items()]
    print(f"Success in {flags.trials} new starts: {', '.join(told)}")


if __name__ == "__main__":
    main()
