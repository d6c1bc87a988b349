"""A Gaussian mixture whose denoiser is known, for solvers of the flow."""

import dataclasses

import numpy as np

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Data sum_i w_i N(mu_i, std_i^2) in `dim` dimensions.

    `xp` is the array module: NumPy, or `keras.ops` with its own tensors.

    Args:
        dim: number of dimensions.
        std: of the first component; the others' are a little larger.
        seed: of the means, standard normal times `spread`.
        spread: the standard deviation of their coordinates.
    """

    dim: int = 2
    std: float = 0.3
    seed: int = 0
    spread: float = 0.7

    @property
    def weights(self):
        return np.array([0.5, 0.3, 0.2])

    @property
    def means(self):
        rng = np.random.default_rng(self.seed)
        return self.spread * rng.standard_normal((3, self.dim))

    @property
    def stds(self):
        return self.std * np.array([1.0, 1.2, 1.4])

    def _terms(self, xp, x, alpha, sigma):
        """Log densities and E[x | x_t, i], by component (a Python list)."""
        logs, data = [], []
        for w, mean, std in zip(self.weights, self.means, self.stds):
            mean = mean if xp is np else xp.cast(mean, x.dtype)
            var = (alpha * float(std)) ** 2 + sigma**2
            off = x - alpha * mean
            logs.append(
                float(np.log(w))
                - 0.5 * xp.sum(off * off, axis=-1, keepdims=True) / var
                - 0.5 * self.dim * xp.log(2.0 * np.pi * var)
            )
            data.append(mean + alpha * float(std) ** 2 / var * off)
        return logs, data

    def log_density(self, xp, x, alpha, sigma):
        """log p_t(x), (B,); alpha and sigma numbers or (B, 1)."""
        logs, _ = self._terms(xp, x, alpha, sigma)
        top = xp.maximum(xp.maximum(logs[0], logs[1]), logs[2])
        total = sum(xp.exp(log - top) for log in logs)
        return (top + xp.log(total))[:, 0]

    def denoise(self, xp, x, alpha, sigma):
        """E[x | x_t], (B, dim)."""
        logs, data = self._terms(xp, x, alpha, sigma)
        top = xp.maximum(xp.maximum(logs[0], logs[1]), logs[2])
        shares = [xp.exp(log - top) for log in logs]
        return sum(s * d for s, d in zip(shares, data)) / sum(shares)

    def sample(self, rng, rows):
        """Exact draws, (rows, dim)."""
        i = rng.choice(3, rows, p=self.weights)
        z = rng.standard_normal((rows, self.dim))
        return self.means[i] + self.stds[i][:, None] * z


def noises(steps, dim=2, seed=0):
    """The start and the noise of every step, (steps + 1, BATCH, dim)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((steps + 1, BATCH, dim))


# Walks of diffusers: name -> (its scheduler, the options of that, steps).
# Its own grids are kept beside the states.
VP = {"prediction_type": "sample", "beta_schedule": "linear"}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}  # B1 gives NaN at sigma = 0.
WALKS = {
    "2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}, 10),
    "3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 12),
    "sde_2m": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        10,
    ),
    "singlestep_2": (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 2, "algorithm_type": "dpmsolver",
         **SIGMA_MIN},
        9,
    ),
    "singlestep_3": (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 3, "algorithm_type": "dpmsolver",
         **SIGMA_MIN},
        10,
    ),
    "unipc_1_bh1": (
        "UniPCMultistepScheduler",
        {"solver_order": 1, "solver_type": "bh1", **SIGMA_MIN},
        8,
    ),
    "unipc_2_bh1": (
        "UniPCMultistepScheduler",
        {"solver_order": 2, "solver_type": "bh1", **SIGMA_MIN},
        8,
    ),
    "unipc_2_bh2": (
        "UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}, 8,
    ),
    "unipc_3_bh2": (
        "UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}, 8,
    ),
    "flow_unipc": (
        "UniPCMultistepScheduler",
        {"solver_order": 2, "use_flow_sigmas": True, "flow_shift": 3.0},
        8,
    ),
    "flow_2m": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "use_flow_sigmas": True, "flow_shift": 3.0},
        8,
    ),
    "sa": (
        "SASolverScheduler", {"predictor_order": 2, "corrector_order": 2}, 10,
    ),
    "sa_p3c4": (
        "SASolverScheduler", {"predictor_order": 3, "corrector_order": 4}, 10,
    ),
    "ddim": (
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "clip_sample": False},
        10,
    ),
    "edm_euler": ("EDMEulerScheduler", {}, 12),
    "edm_2m": ("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, 12),
    "edm_3m": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, 12),
    "edm_sde_2m": (
        "EDMDPMSolverMultistepScheduler",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        12,
    ),
}  # fmt: skip
CHURN = {"s_churn": 8.0, "s_tmin": 0.05, "s_tmax": 20.0, "s_noise": 1.003}
