"""The loop of a PyTorch user: eager, with `torch.optim.Adam`."""

import torch


def trainer(loss, weights, trained, seed=0, learning_rate=1e-3):
    """A function from a batch to the loss of a step of Adam.

    Args: as of `jax_training.trainer`.
    """
    weights = {
        k: torch.tensor(v, requires_grad=k in trained)
        for k, v in weights.items()
    }
    optimizer = torch.optim.Adam(
        [weights[k] for k in trained], lr=learning_rate, eps=1e-7
    )
    generator = torch.Generator().manual_seed(seed)

    def run(data, labels=None):
        data = torch.as_tensor(data)
        labels = None if labels is None else torch.as_tensor(labels)
        noise = torch.randn(data.shape, generator=generator)
        t = torch.sigmoid(torch.randn(len(data), generator=generator))
        value = loss(weights, data, labels, noise, t)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.detach()

    return run


def compiled(velocity, weights):
    """The velocity of (x, t, labels), without gradients."""
    weights = {k: torch.tensor(v) for k, v in weights.items()}

    @torch.inference_mode()
    def run(x, t, labels=None):
        labels = None if labels is None else torch.as_tensor(labels)
        return velocity(weights, torch.as_tensor(x), torch.as_tensor(t), labels)

    return run
