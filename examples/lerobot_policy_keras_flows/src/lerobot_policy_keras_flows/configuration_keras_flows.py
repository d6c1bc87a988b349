"""--policy.type=keras_flows --policy.export=own_robot/onnx"""

from dataclasses import dataclass
from dataclasses import field

from lerobot.configs.policies import PreTrainedConfig

from .runner import Runner


@PreTrainedConfig.register_subclass("keras_flows")
@dataclass
class KerasFlowsConfig(PreTrainedConfig):
    """What lerobot has to know of an exported policy.

    Args:
        export: folder of `policy.export(folder, "onnx")`.
        inputs: {lerobot's key: the file's}, where they differ by more than
            "observation." before it.
        seed: of the noise.
    """

    export: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    def validate_features(self) -> None:
        """Each input of the file must be among lerobot's features."""
        if not self.export:
            raise ValueError(
                "`export` must be the folder of policy.export(folder, 'onnx')."
            )
        if not self.input_features:
            return
        given = {self.name_of(key) for key in self.input_features}
        missing = sorted(set(Runner(self.export).shapes) - given)
        if missing:
            raise ValueError(
                f"`inputs` must lead to {missing}, which the policy takes. "
                f"lerobot gives {sorted(self.input_features)}."
            )

    def name_of(self, key: str) -> str:
        """The file's name of a key of lerobot's."""
        return self.inputs.get(key, key.removeprefix("observation."))

    def get_optimizer_preset(self):
        raise NotImplementedError("It is trained by keras_flows.")

    def get_scheduler_preset(self):
        return None

    @property
    def observation_delta_indices(self):
        return None

    @property
    def action_delta_indices(self):
        return None

    @property
    def reward_delta_indices(self):
        return None
