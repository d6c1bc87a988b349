"""The PyTorch train step: backward, gradients averaged over processes."""

import torch
from keras import ops
from keras import tree

from keras_flows.training.ema import running_step
from keras_flows.training.fixed import moving_variables
from keras_flows.training.guard import spoil_unless_finite
from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss


def _average_over_processes(tensors):
    """All-reduce in place; a no-op without `torch.distributed`.

    `DistributedDataParallel` cannot wrap a JVP: it skips the
    synchronisation, and says nothing.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    world = distributed.get_world_size()
    for tensor in tensors:
        distributed.all_reduce(tensor)
        tensor.div_(world)


def _beside_weights(data):
    """A batch on the weights' device: a DataLoader's is on the host."""
    return tree.map_structure(
        lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), data
    )


class TrainStep:
    """`train_step` for the PyTorch trainer."""

    def train_step(self, data):
        data = _beside_weights(data)
        optimizer = self.optimizer
        self.zero_grad()
        moving = moving_variables(self)
        statistics = [v.value.detach().clone() for v in moving]
        with running_step():
            loss, means = self.compute(data, training=True)
        scaled = optimizer.scale_loss(loss)
        if scales_loss(optimizer):
            scaled = spoil_unless_finite(scaled, loss)
        scaled.backward()
        variables = self.trainable_variables
        gradients = [
            torch.zeros_like(v.value) if v.value.grad is None else v.value.grad
            for v in variables
        ]
        with torch.no_grad():
            _average_over_processes(gradients)
            scale = optimizer.scale_loss(torch.ones_like(loss))
            norm = global_norm(gradients, scale)
            loss_value = loss.detach().clone()
            _average_over_processes([loss_value])
            finite = torch.isfinite(loss_value)
            before = int(inner_optimizer(optimizer).iterations)
            if scales_loss(optimizer):
                optimizer.apply(gradients, variables)
                after = int(inner_optimizer(optimizer).iterations)
                applied = after > before
            else:
                finite = torch.logical_and(finite, torch.isfinite(norm))
                applied = bool(finite)
                if applied:
                    optimizer.apply(gradients, variables)
                after = int(inner_optimizer(optimizer).iterations)
            if not applied:
                for variable, value in zip(moving, statistics, strict=True):
                    variable.assign(value)
            means = {name: mean.detach() for name, mean in means.items()}
            return self.finish_step(
                means,
                self.batch_size(data),
                norm,
                finite,
                ops.convert_to_tensor(after > before),
            )

    def test_step(self, data):
        # Flow maps may take a JVP in their loss, which no_grad allows.
        with torch.no_grad(), running_step():
            return self.evaluate_batch(_beside_weights(data))
