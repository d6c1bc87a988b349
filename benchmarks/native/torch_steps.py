"""Flow matching and LSD on an MLP as one writes them in PyTorch alone.

`make(config)` gives the step that `keras_flows` is compared with: the network
of `kf.networks.MLP`, Adam, an average of the weights, and nothing else. A
config is a dict of "objective" ("flow" or "lsd"), "width", "depth",
"batch_size" and "seed".
"""

import copy
import itertools

import numpy as np
import torch
from torch.nn import functional

DIM, FOURIER, TIMES, SHARE = 2, 16, 4, 4


class Net(torch.nn.Module):
    """[x, Fourier features, sines of the times] through dense layers."""

    def __init__(self, width, depth, times):
        super().__init__()
        self.register_buffer("directions", torch.randn(DIM, FOURIER) * 2.0)
        frequencies = torch.tensor(np.geomspace(1.0, 8.0, TIMES))
        self.register_buffer("frequencies", frequencies.float())
        size = DIM + 2 * FOURIER + times * (1 + 2 * TIMES)
        sizes = [size, *[width] * depth, DIM]
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)
        )

    def forward(self, x, *times):
        angles = x @ self.directions
        features = [x, torch.sin(angles), torch.cos(angles)]
        for t in times:
            angles = t[:, None] * self.frequencies
            features += [t[:, None], torch.sin(angles), torch.cos(angles)]
        h = torch.cat(features, -1)
        for layer in self.layers[:-1]:
            h = functional.silu(layer(h))
        return self.layers[-1](h)


def flow_loss(net, x, n, t):
    """|net(x_t, t) - (n - x)|^2 on x_t = (1 - t) x + t n."""
    x_t = (1.0 - t[:, None]) * x + t[:, None] * n
    return torch.mean((net(x_t, t) - (n - x)) ** 2)


def lsd_loss(net, x, n, t, r):
    """Flow matching on three rows of four, the Lagrangian residual on one.

    On x_t = t x + (1 - t) n; every fourth row is one with r != t.
    """
    x_t = t[:, None] * x + (1.0 - t[:, None]) * n
    v = x - n
    off = torch.arange(len(x)) % SHARE == 0
    x_d, t_d = x_t[~off], t[~off]
    velocity = torch.mean((net(x_d, t_d, t_d) - v[~off]) ** 2)
    x_o, t_o, r_o = x_t[off], t[off], r[off]

    def jump(r):
        return x_o + (r - t_o)[:, None] * net(x_o, t_o, r)

    x_r, dx_dr = torch.func.jvp(jump, (r_o,), (torch.ones_like(r_o),))
    with torch.no_grad():
        target = net(x_r, r_o, r_o)
    return velocity + torch.mean((dx_dr - target) ** 2)


def make(config):
    """The training step of a config, a function without arguments."""
    torch.manual_seed(config["seed"])
    flow = config["objective"] == "flow"
    net = Net(config["width"], config["depth"], 1 if flow else 2)
    average = copy.deepcopy(net).requires_grad_(False)
    pairs = [list(m.parameters()) for m in (average, net)]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    size = config["batch_size"]
    data = torch.randn(8 * size, DIM).split(size)
    steps = iter(range(2**62))

    def step():
        x = data[next(steps) % 8]
        n, t = torch.randn_like(x), torch.rand(size)
        if flow:
            loss = flow_loss(net, x, n, t)
        else:
            t, r = torch.sort(torch.rand(2, size), 0).values
            loss = lsd_loss(net, x, n, t, r)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*pairs, 1e-3)
        return loss

    return step
