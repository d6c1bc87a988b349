"""Batch axis and device; the normalisers are in the file."""

from lerobot.processor import AddBatchDimensionProcessorStep
from lerobot.processor import DeviceProcessorStep
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor import RenameObservationsProcessorStep
from lerobot.processor.converters import policy_action_to_transition
from lerobot.processor.converters import transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME
from lerobot.utils.constants import POLICY_PREPROCESSOR_DEFAULT_NAME


def make_keras_flows_pre_post_processors(config, dataset_stats=None):
    """(of observations, of actions), as lerobot finds them by their name."""
    before = PolicyProcessorPipeline(
        steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
        ],
        name=POLICY_PREPROCESSOR_DEFAULT_NAME,
    )
    after = PolicyProcessorPipeline(
        steps=[DeviceProcessorStep(device="cpu")],
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
