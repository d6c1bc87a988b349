"""The PyTorch train step: backward, gradients averaged over processes."""

import torch
from keras import ops
from keras import tree

from keras_flows.ops.replicas import summing
from keras_flows.training import fsdp
from keras_flows.training import ranks
from keras_flows.training.ema import running_step
from keras_flows.training.fixed import moving_variables
from keras_flows.training.guard import spoil_unless_finite
from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss


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
        ranks.synchronize(self)
        self.zero_grad()
        moving = moving_variables(self)
        statistics = [v.value.detach().clone() for v in moving]
        shards = fsdp.shards_of(self)
        summed = ranks.summed if ranks.several() else None
        with running_step(), summing(summed):
            loss, means = fsdp.compute_of(self)(data)
        scaled = optimizer.scale_loss(loss)
        if scales_loss(optimizer):
            scaled = spoil_unless_finite(scaled, loss)
        scaled.backward()
        if shards is not None:
            shards.follow()
        variables = self.trainable_variables
        gradients = [
            torch.zeros_like(v.value) if v.value.grad is None else v.value.grad
            for v in variables
        ]
        with torch.no_grad():
            loss_value = ranks.mean_loss(self, loss)
            if shards is None:
                ranks.average(gradients)
            scale = optimizer.scale_loss(torch.ones_like(loss))
            norm = fsdp.as_tensor(global_norm(gradients, scale))
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
            if applied:
                ranks.average_changes(moving, statistics)
            else:
                for variable, value in zip(moving, statistics, strict=True):
                    variable.assign(value)
            ranks.end_step(self)
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
        with torch.no_grad(), running_step(), fsdp.whole(self):
            return self.evaluate_batch(_beside_weights(data))

    # What Keras 3.16 does where `torch.distributed` is initialised, and 3.15
    # does not, is left to the step above.

    def _initialize_ddp(self):
        """No `DistributedDataParallel` around what takes a JVP."""

    def get_metrics_result(self):
        """Of this process; `fit` merges them at the end of an epoch."""
        return {metric.name: metric.result() for metric in self.metrics}

    def _get_metrics_result_or_logs(self, logs):
        return ranks.merged(self, super()._get_metrics_result_or_logs(logs))
