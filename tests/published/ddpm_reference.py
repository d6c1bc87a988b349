"""Write what DiT's `diffusion` package gives for the network of ddpm_toy.py.

    python tests/published/ddpm_reference.py FOLDER_OF_FACEBOOKRESEARCH_DIT

That package is guided-diffusion's; see SOURCES.md.
"""

import pathlib
import sys
import types

import ddpm_toy as toy
import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


def first(x):
    """(B, H, W, C) -> (B, C, H, W), a tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def last(x):
    return np.moveaxis(x.numpy(), 1, -1)


def network(prediction, learn_sigma):
    def forward(x, t, y):
        y = toy.output(
            np, last(x), t.numpy().astype("float32"), y, prediction, learn_sigma
        )
        return first(y)

    return forward


def diffusion(gd, respace, prediction, learn_sigma, schedule, steps, variance):
    kinds = {
        "small": gd.ModelVarType.FIXED_SMALL,
        "large": gd.ModelVarType.FIXED_LARGE,
    }
    named = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
    return respace.SpacedDiffusion(
        use_timesteps=respace.space_timesteps(1000, [steps]),
        betas=gd.get_named_beta_schedule(named[schedule], 1000),
        model_mean_type=gd.ModelMeanType.EPSILON
        if prediction == "eps"
        else gd.ModelMeanType.START_X,
        model_var_type=gd.ModelVarType.LEARNED_RANGE
        if learn_sigma
        else kinds[variance],
        loss_type=gd.LossType.MSE,
    )


def guided(forward, models):
    """DiT's own `forward_with_cfg`, around another network."""
    null = np.full_like(toy.labels(), toy.CLASSES)
    y = np.concatenate([toy.labels(), null])
    dit = types.SimpleNamespace(forward=forward)
    return lambda x, t: models.DiT.forward_with_cfg(dit, x, t, y, toy.SCALE)


def walk(gd, respace, models, prediction, learn_sigma, schedule, sampler,
         steps, options):  # fmt: skip
    process = diffusion(
        gd, respace, prediction, learn_sigma, schedule, steps,
        options.get("variance", "small"),
    )  # fmt: skip
    model = network(prediction, learn_sigma)
    z, *noises = toy.noises(steps)
    if learn_sigma:
        model = guided(model, models)
        z = np.concatenate([z, z])
    else:
        model = lambda x, t, f=model: f(x, t, toy.labels())  # noqa: E731
    drawn = iter(noises)

    def randn_like(x):
        noise = next(drawn)
        return first(np.concatenate([noise] * (len(x) // len(noise))))

    gd.th = types.SimpleNamespace(**{**vars(torch), "randn_like": randn_like})
    loop = getattr(
        process,
        "p_sample_loop_progressive"
        if sampler == "ddpm"
        else "ddim_sample_loop_progressive",
    )
    options = {"eta": options["eta"]} if "eta" in options else {
        "clip_denoised": "clip" in options
    }  # fmt: skip
    options.setdefault("clip_denoised", False)
    states = loop(model, z.shape, first(z), device="cpu", **options)
    states = [last(s["sample"])[: toy.BATCH] for s in states]
    gd.th = torch
    return np.stack([states[i] for i in (0, steps // 2, steps - 1)])


def losses(gd, respace, prediction, learn_sigma):
    process = diffusion(
        gd, respace, prediction, learn_sigma, "linear", 1000, "small"
    )
    x, n, k, y = toy.batch()
    model = network(prediction, learn_sigma)
    terms = process.training_losses(
        lambda x, t: model(x, t, y), first(x), torch.from_numpy(k), {}, first(n)
    )
    return np.stack([terms[key].numpy() for key in sorted(terms)])


def main(folder):
    sys.path.insert(0, folder)
    from dit_reference import stub_torchvision

    stub_torchvision()
    import models
    from diffusion import gaussian_diffusion as gd
    from diffusion import respace

    expected = {}
    for schedule in ("linear", "cosine"):
        process = diffusion(gd, respace, "eps", False, schedule, 1000, "small")
        expected[f"tables_{schedule}"] = np.stack([
            process.betas,
            process.alphas_cumprod,
            process.posterior_variance,
            process.posterior_log_variance_clipped,
            process.posterior_mean_coef1,
        ])[:, ::111]  # fmt: skip
    for steps in toy.STEPS:
        kept = sorted(respace.space_timesteps(1000, [steps]))
        expected[f"timesteps_{steps}"] = np.array(kept, dtype="int16")
    for prediction in ("eps", "x0"):
        for learn in (False, True):
            expected[f"losses_{prediction}_{learn}"] = losses(
                gd, respace, prediction, learn
            )
    for name, arguments in toy.WALKS.items():
        expected[f"walk_{name}"] = walk(gd, respace, models, *arguments)
        print(name, np.abs(expected[f"walk_{name}"]).max(axis=(1, 2, 3, 4)))
    np.savez_compressed(HERE / "ddpm.npz", **expected)


if __name__ == "__main__":
    main(*sys.argv[1:])
