"""An exported policy in a loop: NumPy and ONNX Runtime, nothing else.

runner = Runner("own_robot/onnx")
runner.reset(seed=0)
action = runner.act({"camera": image, "hand": place})
"""

import json
import pathlib

import numpy as np
import onnxruntime


class Runner:
    """One action for each observation, from the folder of `Policy.export`.

    Keeps the last `obs_steps` observations (at the start of an episode the
    first one repeated), runs the file when its queue is empty, and gives out
    `act_steps` actions of the chunk, in the units of the demonstrations.

    Args:
        folder: what `policy.export(folder, "onnx")` wrote.

    Attributes:
        shapes: {name: shape} of an observation.
        horizon, action_dim: of a chunk.
        obs_steps, act_steps: of a history, and of the actions that are
            executed before the next chunk.
    """

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        record = json.loads((folder / "signature.json").read_text())
        inputs = record["endpoints"]["serve"]["inputs"]
        if record["model"] != "Policy" or record["format"] != "onnx":
            raise ValueError(
                f"`folder` must hold a policy exported as ONNX. {folder} "
                f"holds {record['model']} as {record['format']}."
            )
        self.horizon, self.action_dim = record["sample_shape"]
        self.obs_steps = record["settings"]["obs_steps"]
        self.act_steps = record["settings"]["act_steps"]
        self.shapes = {
            name: tuple(spec["shape"][2:])
            for name, spec in inputs.items()
            if name != "noise"
        }
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        self.reset()

    def reset(self, seed=0):
        """Begin an episode; the seed is that of its noise."""
        self._rng = np.random.default_rng(seed)
        self._history, self._queue = [], []

    def act(self, observation):
        """The action for the newest observation.

        Args:
            observation: dict of arrays by the names of `shapes`, of one robot
                or with a first axis for several. Bytes of images are scaled
                to -1 to 1; floats must be so already.

        Returns:
            (action_dim,) float32, or (B, action_dim).
        """
        rows = self._observe(observation)
        if not self._queue:
            chunk = self.chunk()
            self._queue = [chunk[:, i] for i in range(self.act_steps)]
        action = self._queue.pop(0)
        return action if rows else action[0]

    def chunk(self, observation=None):
        """Actions from now on, (B, horizon - obs_steps + 1, action_dim).

        Args:
            observation: the newest, where `act` has not been given it.
        """
        if observation is not None:
            self._observe(observation)
        history = {
            name: np.stack([seen[name] for seen in self._history], axis=1)
            for name in self.shapes
        }
        rows = len(next(iter(history.values())))
        noise = self._rng.standard_normal(
            (rows, self.horizon, self.action_dim), "float32"
        )
        (chunk,) = self._session.run(["actions"], {**history, "noise": noise})
        # Number obs_steps - 1 is the one for the newest observation.
        return chunk[:, self.obs_steps - 1 :]

    def _observe(self, observation):
        """Put an observation into the history; whether it has rows."""
        if set(observation) != set(self.shapes):
            raise ValueError(
                f"`observation` must have the keys {sorted(self.shapes)}. "
                f"Received: {sorted(observation)}."
            )
        seen, ranks = {}, set()
        for name, shape in self.shapes.items():
            array = np.asarray(observation[name])
            if array.shape[-len(shape) :] != shape:
                raise ValueError(
                    f"`observation[{name!r}]` must have shape {shape}, with "
                    f"or without a first axis. Received: {array.shape}."
                )
            if array.dtype == np.uint8:
                array = array.astype("float32") / 127.5 - 1.0
            ranks.add(array.ndim - len(shape))
            seen[name] = array.astype("float32").reshape(-1, *shape)
        if ranks not in ({0}, {1}):
            raise ValueError(
                "`observation` must be of one robot, or have a first axis "
                f"for several. Received axes before the shapes: {ranks}."
            )
        history = self._history or [seen] * self.obs_steps
        self._history = [*history[1:], seen]
        return ranks == {1}
