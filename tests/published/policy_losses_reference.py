"""Write what the losses of "Much Ado About Noising" give for a toy network.

    python tests/published/policy_losses_reference.py FOLDER_OF_MUCH_ADO

The network is tanh(0.7 x + 0.3 t + o), the draws NumPy's; see SOURCES.md.
"""

import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
NAMES = ("flow", "regression", "straight_flow", "mip", "tsd")


def main():
    sys.path.insert(0, sys.argv[1])
    # Its package imports loggers and encoders that the losses do not use.
    for module, name in (
        ("loguru", "logger"),
        ("mip.encoders", "BaseEncoder"),
        ("mip.flow_map", "FlowMap"),
    ):
        stub = types.ModuleType(module)
        setattr(stub, name, object)
        sys.modules[module] = stub
    from mip.interpolant import Interpolant
    from mip.losses import get_loss_fn

    rng = np.random.default_rng(0)
    action, observation = rng.standard_normal((2, 6, 4, 3)).astype("float32")
    t = rng.random(6).astype("float32")
    noises = rng.standard_normal((2, 6, 4, 3)).astype("float32")

    class Toy:
        def get_velocity(self, t, x, observation):
            t = t.reshape(-1, 1, 1)
            return torch.tanh(0.7 * x + 0.3 * t + observation)

    found = {"action": action, "observation": observation, "t": t}
    for norm in ("l2", "l1", "smooth_l1"):
        config = types.SimpleNamespace(
            norm_type=norm, loss_scale=1.0, t_two_step=0.9
        )
        for name in NAMES:
            draws = iter(torch.from_numpy(noises))
            torch.Tensor.normal_ = lambda x, *a, d=draws: next(d).clone()
            torch.Tensor.uniform_ = lambda x, *a: torch.from_numpy(t)
            torch.randn_like = lambda x, d=draws, **k: next(d).clone()
            loss, _ = get_loss_fn(name)(
                config,
                Toy(),
                lambda o, mask: o,
                Interpolant("linear"),
                torch.from_numpy(action),
                torch.from_numpy(observation),
                torch.zeros(6),
            )
            found[f"{name}_{norm}"] = loss.numpy()
    np.savez_compressed(HERE / "policy_losses.npz", noises=noises, **found)


if __name__ == "__main__":
    main()
