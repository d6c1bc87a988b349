"""Other libraries' names: an error that says ours.

Nobody has to learn twice: `kf.DDIMScheduler`, `model.sample(...)` and
`generate(num_inference_steps=...)` say what to write instead.
"""

import inspect
from typing import TypeVar

Class = TypeVar("Class", bound=type)

# Attributes of the package.
NAMES = {
    "AutoencoderKL": "kf.networks.AutoencoderKL",
    "CFM": "kf.SiTInterface",
    "ConditionalFlowMatcher": "kf.SiTInterface",
    "ConsistencyModel": "kf.ConsistencyInterface",
    "DDIMScheduler": "kf.samplers.DDIM",
    "DDPM": "kf.DiscreteInterface",
    "DDPMScheduler": "kf.samplers.DDPM",
    "DDT": "kf.networks.DDT",
    "DPMSolverMultistepScheduler": "kf.samplers.DPMSolverPP",
    "DPMSolverSinglestepScheduler": "kf.samplers.DPMSolver",
    "DiT": "kf.networks.DiT",
    "DiTTransformer2DModel": "kf.networks.DiT",
    "DiffusionPipeline": "kf.from_preset",
    "DiffusionPolicy": "kf.policies.Policy",
    "DMD": "kf.DMDInterface",
    "EDM": "kf.EDMInterface",
    "EDMEulerScheduler": "kf.samplers.EDM",
    "EDMPrecond": "kf.EDMInterface",
    "EMAModel": "the argument `ema` of an interface",
    "EulerDiscreteScheduler": "kf.samplers.Euler",
    "ExponentialMovingAverage": "the argument `ema` of an interface",
    "FlowMatchEulerDiscreteScheduler": "kf.samplers.Euler",
    "FlowMatchHeunDiscreteScheduler": "kf.samplers.Heun",
    "FlowMatching": "kf.SiTInterface",
    "GaussianDiffusion": "kf.DiscreteInterface",
    "HeunDiscreteScheduler": "kf.samplers.Heun",
    "LCMScheduler": "kf.samplers.FlowMapJump",
    "LeRobotDataset": "kf.datasets.robots.read_lerobot",
    "MLP": "kf.networks.MLP",
    "MeanFlow": "kf.MeanFlowInterface",
    "Policy": "kf.policies.Policy",
    "REPA": "kf.REPAInterface",
    "SASolverScheduler": "kf.samplers.SASolver",
    "SiT": "kf.SiTInterface around kf.networks.DiT",
    "SongUNet": "kf.networks.SongUNet",
    "UNet": "kf.networks.SongUNet",
    "UNet2DModel": "kf.networks.SongUNet",
    "UniPCMultistepScheduler": "kf.samplers.UniPC",
    "finetune": "kf.from_preset(name, num_classes=...), then compile and fit",
    "from_pretrained": "kf.from_preset",
    "load_model": "keras.saving.load_model, or kf.from_preset",
    "pipeline": "kf.from_preset",
    "push_to_hub": "kf.presets.upload_preset",
    "save_pretrained": "model.save_to_preset",
}

# Methods of models and policies. What PyTorch's modules have is not here.
METHODS = {
    "compute_density": "kf.samplers.log_likelihood(model, x)",
    "compute_likelihood": "kf.samplers.log_likelihood(model, x)",
    "from_pretrained": "kf.from_preset(name)",
    "get_velocity": "pred(x_t, t)",
    "log_prob": "kf.samplers.log_likelihood(model, x)",
    "predict_action": "predict_chunk(observation)",
    "predict_action_chunk": "predict_chunk(observation)",
    "push_to_hub": "kf.presets.upload_preset(model, handle)",
    "sample": "generate(num_samples, num_steps=...)",
    "sample_actions": "predict_chunk(observation)",
    "sampling": "generate(num_samples, num_steps=...)",
    "save_pretrained": "save_to_preset(folder)",
    "select_action": "a kf.policies.Controller around the policy",
    "to_onnx": 'export(folder, "onnx")',
    "training_losses": "loss(x, condition)",
}

# Arguments of `generate`.
ARGUMENTS = {
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "class_labels": "condition",
    "classes": "condition",
    "cond": "condition",
    "conditioning": "condition",
    "eta": "sampler=kf.samplers.DDIM(eta)",
    "generator": "seed",
    "labels": "condition",
    "latents": "noise",
    "n_samples": "num_samples",
    "negative_prompt": "negative_condition",
    "nfe": "num_steps",
    "num_images": "num_samples",
    "num_images_per_prompt": "num_samples",
    "num_inference_steps": "num_steps",
    "num_sampling_steps": "num_steps",
    "prompt": "condition",
    "rng": "seed",
    "scheduler": "sampler",
    "solver": "sampler",
    "steps": "num_steps",
    "timesteps": "num_steps",
    "uncond": "negative_condition",
    "w": "guidance_scale",
    "y": "condition",
}


def unknown(name):
    """What an `AttributeError` says of a name that the package lacks."""
    said = f"module 'keras_flows' has no attribute {name!r}"
    return f"{said}: write {NAMES[name]}" if name in NAMES else said


def refuse(function, others):
    """Refuse the keywords that a function does not know.

    Args:
        function: its name.
        others: dict of these keywords.

    Raises:
        TypeError: naming the first, and ours for it where there is one.
    """
    for name in others:
        said = f"`{function}` has no argument `{name}`"
        if name in ARGUMENTS:
            said += f": write {ARGUMENTS[name]}"
        raise TypeError(f"{said}.")


def _hide_others(function):
    """Leave `**others`, which are refused, out of what `help` shows."""
    found = inspect.signature(function)
    kept = [p for p in found.parameters.values() if p.kind != p.VAR_KEYWORD]
    function.__signature__ = found.replace(parameters=kept)


def answers_familiar_names(cls: Class) -> Class:
    """Decorator of what generates: unknown attributes say what to write."""
    inherited = getattr(cls, "__getattr__", None)

    def __getattr__(self, name):
        if inherited is not None:
            try:
                return inherited(self, name)
            except AttributeError:
                if name not in METHODS:
                    raise
        said = f"{type(self).__name__!r} object has no attribute {name!r}"
        if name in METHODS:
            said += f": write {METHODS[name]}"
        raise AttributeError(said)

    cls.__getattr__ = __getattr__
    _hide_others(cls.generate)
    return cls
