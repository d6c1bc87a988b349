"""Train a policy on Push-T's demonstrations.

    KERAS_BACKEND=jax python recipes/pusht.py --out=out/pusht \\
        --path=pusht/pusht_cchi_v7_replay.zarr --objective=flow --network=unet

Data: https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip, 206
demonstrations (arXiv 2303.04137); --synthetic makes a small file of the same
layout instead. Observations by --observation: the state (agent, block, angle;
5 numbers) or 9 keypoints and the agent (20), as both papers have them. Images
are not in here. `imitation.py` says which hyper-parameters are published.

Hardware: a GPU for the published 300,000 steps of 1024; with --synthetic two
CPU cores and a minute. None of the published figures has been reproduced by
us: no simulator runs here, errors are in the window's 512 pixels.

Writes to --out: config.json, results.json and the preset.
"""

import imitation
import numpy as np
from absl import app
from absl import flags

from keras_flows.datasets import robots

FLAGS = flags.FLAGS
# `--help` tells them too.
flags.adopt_module_key_flags(imitation)
flags.DEFINE_enum(
    "observation", "keypoint", ["keypoint", "state"], "What the policy sees."
)
flags.DEFINE_string("out", "out/pusht", "Folder for what it makes.")

HORIZON = 16


def synthetic(path, rng, num=40):
    """A replay buffer of an agent that goes around and behind a block."""
    episodes = []
    for _ in range(num):
        steps = int(rng.integers(60, 90))
        block = np.append(rng.uniform(150, 360, 2), rng.uniform(-3, 3))
        agent = rng.uniform(50, 460, 2)
        rows = {"state": [], "keypoint": [], "action": []}
        corners = rng.normal(scale=30.0, size=(9, 2))
        for i in range(steps):
            angle = block[2] + 2 * np.pi * i / steps
            target = block[:2] + 60 * np.array([np.cos(angle), np.sin(angle)])
            cosine, sine = np.cos(block[2]), np.sin(block[2])
            turn = np.array([[cosine, -sine], [sine, cosine]])
            rows["state"].append(np.concatenate([agent, block]))
            rows["keypoint"].append(block[:2] + corners @ turn.T)
            rows["action"].append(target)
            agent = agent + 0.3 * (target - agent)
            block = block + np.append(0.005 * (agent - block[:2]), 0.01)
        rows = {k: np.asarray(v, dtype="float32") for k, v in rows.items()}
        action = rows.pop("action")
        episodes.append({"observation": rows, "action": action})
    robots.write_replay_buffer(path, episodes)


synthetic.file = "pusht_synthetic.zarr"


def read(path):
    """Episodes whose observations are vectors."""
    if FLAGS.observation == "state":
        return robots.read_replay_buffer(path, "state")
    episodes = robots.read_replay_buffer(path, ["keypoint", "state"])
    for episode in episodes:
        observation = episode["observation"]
        # Only the agent's position: where the block is the keypoints tell.
        observation["agent"] = observation.pop("state")[:, :2]
    return robots.concatenate(episodes)


def errors(predicted, recorded):
    """Distance of the positions that the agent is sent to, in pixels."""
    distance = np.linalg.norm(predicted - recorded, axis=-1)
    return {
        "distance": float(distance.mean()),
        "root_mean_square": float(np.sqrt(np.mean(distance**2))),
    }


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    path = imitation.demonstrations(synthetic)
    config = {"path": str(path), "observation": FLAGS.observation}
    imitation.run(config, read(path), HORIZON, errors)


if __name__ == "__main__":
    app.run(main)
