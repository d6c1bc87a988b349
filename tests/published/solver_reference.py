"""Write where diffusers' schedulers go with the denoiser of solver_toy.py.

    PYTHONPATH=FOLDER_OF_DIFFUSERS python tests/published/solver_reference.py

See SOURCES.md. Kept are the schedulers' own noise levels sigma / alpha (sigma
itself for flow matching) and all states.
"""

import pathlib
import sys

import diffusers
import numpy as np
import solver_toy as toy
import torch

HERE = pathlib.Path(__file__).parent
MIXTURE = toy.Mixture()


def coefficients(name, sigma):
    """(alpha, sigma) of a scheduler's noise level."""
    if name.startswith("flow"):
        return 1.0 - sigma, sigma
    if name.startswith("edm"):
        return 1.0, sigma
    alpha = 1.0 / np.sqrt(1.0 + sigma**2)
    return alpha, sigma * alpha


def denoise(name, x, sigma):
    alpha_sigma = coefficients(name, float(sigma))
    data = MIXTURE.denoise(np, x.double().numpy(), *alpha_sigma)
    return torch.from_numpy(data).float()


def scheduler_of(name, kind, options, steps):
    if not name.startswith("edm"):
        options = {**toy.VP, **options}
    scheduler = getattr(diffusers, kind)(**options)
    scheduler.set_timesteps(steps)
    if name.startswith("singlestep"):
        # Its intermediate times are the grid's own: halves and thirds in
        # lambda, as the paper has them.
        sigmas = np.exp(np.linspace(np.log(100.0), np.log(0.05), steps))
        scheduler.sigmas = torch.tensor([*sigmas, 0.02], dtype=torch.float32)
    if name.startswith("edm"):
        # The network at the churned state, where algorithm 2 has it.
        scheduler.precondition_outputs = lambda x, output, sigma: denoise(
            name, x, sigma
        )
    if name.startswith("flow_2m"):
        # What its UniPC keeps for flow matching, and this one rounds away.
        scheduler.timesteps = torch.arange(steps, 0, -1)
    return scheduler


def ddim_levels(scheduler):
    abar = scheduler.alphas_cumprod[scheduler.timesteps]
    return torch.cat([((1 - abar) / abar) ** 0.5, torch.zeros(1)])


def walk(name, kind, options, steps):
    scheduler = scheduler_of(name, kind, options, steps)
    start, *noises = toy.noises(steps)
    module = sys.modules[type(scheduler).__module__]
    ddim = name == "ddim"
    sigmas = ddim_levels(scheduler) if ddim else scheduler.sigmas
    scale = 80.0 if name.startswith("edm") else 1.0
    x = torch.from_numpy(scale * start).float()
    states = [x]
    for i, t in enumerate(scheduler.timesteps):
        noise = torch.from_numpy(noises[i]).float()
        module.randn_tensor = lambda *_, noise=noise, **__: noise
        if name == "singlestep_3":
            # Algorithm 5 of the paper takes one form inside, another at r.
            form = "heun" if scheduler.order_list[i] == 2 else "midpoint"
            scheduler.register_to_config(solver_type=form)
        output = denoise(name, x, sigmas[i])
        churn = toy.CHURN if kind == "EDMEulerScheduler" else {}
        if kind == "EDMEulerScheduler":
            scheduler.is_scale_input_called = True
        x = scheduler.step(output, t, x, **churn).prev_sample
        states.append(x)
    return sigmas.double().numpy(), np.stack([s.numpy() for s in states])


def main():
    expected = {}
    for name, arguments in toy.WALKS.items():
        sigmas, states = walk(name, *arguments)
        expected[f"sigmas_{name}"] = sigmas
        expected[f"states_{name}"] = states
        print(name, sigmas[[0, -2, -1]], float(np.abs(states[-1]).mean()))
    np.savez_compressed(HERE / "solver_walks.npz", **expected)


if __name__ == "__main__":
    main()
