"""An exported policy as lerobot calls one."""

import pathlib
import shutil

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from .configuration_keras_flows import KerasFlowsConfig
from .runner import Runner

# Where a saved policy keeps the export.
EXPORT = "export"


class KerasFlowsPolicy(PreTrainedPolicy):
    """Acts by the file; `lerobot-eval`, `lerobot-record` and robots use it.

    The normalisers are in the file: observations come as lerobot has them
    (images 0 to 1, channels first), and actions are in the units of the
    demonstrations.
    """

    config_class = KerasFlowsConfig
    name = "keras_flows"

    def __init__(self, config: KerasFlowsConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        self.runner = Runner(config.export)
        # lerobot asks a parameter for the policy's device.
        self.place = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.reset()

    def reset(self):
        self.runner.reset(self.config.seed)

    def select_action(self, batch, **kwargs):
        """(B, action_dim) for the newest observations, called every step."""
        return self._tensor(self.runner.act(self._observation(batch)))

    def predict_action_chunk(self, batch, **kwargs):
        """(B, horizon - obs_steps + 1, action_dim) from now on."""
        return self._tensor(self.runner.chunk(self._observation(batch)))

    def _observation(self, batch):
        """The file's inputs out of lerobot's batch."""
        names = {self.config.name_of(key): key for key in batch}
        missing = [n for n in self.runner.shapes if n not in names]
        if missing:
            raise ValueError(
                f"The policy takes {missing}, which lerobot does not give: "
                f"set `inputs`. It gives {sorted(batch)}."
            )
        observation = {}
        for name, shape in self.runner.shapes.items():
            array = batch[names[name]].detach().cpu().float()
            if array.ndim == len(shape):
                # lerobot's processors give an axis to the names they know.
                array = array[None]
            if len(shape) == 3:
                # (B, C, H, W) of 0 to 1.
                array = array.permute(0, 2, 3, 1) * 2.0 - 1.0
            observation[name] = array.numpy()
        return observation

    def _tensor(self, actions):
        return torch.from_numpy(actions).to(self.place.device)

    def forward(self, batch):
        raise NotImplementedError("It is trained by keras_flows.")

    def get_optim_params(self):
        return {}

    def _save_pretrained(self, save_directory):
        """The configuration, and the export beside it."""
        folder = pathlib.Path(save_directory)
        shutil.copytree(self.config.export, folder / EXPORT, dirs_exist_ok=True)
        self.config._save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path, *, config=None, **kwargs):
        """A folder that `save_pretrained` wrote."""
        folder = pathlib.Path(pretrained_name_or_path)
        if config is None:
            config = PreTrainedConfig.from_pretrained(folder)
        config.export = str(folder / EXPORT)
        policy = cls(config)
        policy.to(config.device)
        return policy.eval()
