"""`keras-flows sample`."""

import numpy as np

import keras_flows as kf
from keras_flows.cli import pictures
from keras_flows.cli.metadata import metadata_of


def run(flags):
    """Draw samples, or a policy's chunks, and write them."""
    model = kf.Interface.from_preset(flags.model)
    if isinstance(model, kf.policies.Policy):
        samples = _chunks(model, flags)
    else:
        samples = _samples(model, flags)
    pictures.write(flags.out, samples)
    shape = " x ".join(map(str, samples.shape[1:]))
    print(f"{flags.out}: {len(samples)} samples of {shape}")


def _samples(model, flags):
    if flags.observation is not None:
        raise ValueError("--observation is of policies; this is none.")
    condition, num = flags.condition, flags.num_samples
    if condition is not None and len(condition) == 1:
        condition, num = condition[0], num or 16
    elif condition is None:
        num = num or 16
    return pictures.samples_of(
        model,
        metadata_of(flags.model).get("scale"),
        num,
        condition=condition,
        num_steps=flags.num_steps,
        sampler=flags.sampler,
        guidance_scale=flags.guidance_scale,
        guidance_interval=flags.guidance_interval,
        guidance_channels=flags.guidance_channels,
        use_ema=flags.use_ema,
        seed=flags.seed,
        batch_size=flags.batch_size,
    )


def _chunks(policy, flags):
    if flags.observation is None:
        raise ValueError(
            "A policy acts on what it sees: --observation=FILE, .npy or .npz "
            f"of histories {policy.observation_spec}."
        )
    found = np.load(flags.observation, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        with found:
            found = {name: found[name] for name in found.files}
        if set(found) == {"observation"}:
            found = found["observation"]
    chunks = policy.predict_chunk(
        found,
        num_steps=flags.num_steps,
        sampler=flags.sampler,
        use_ema=flags.use_ema,
        seed=flags.seed,
    )
    return chunks if chunks.ndim == 3 else chunks[None]
