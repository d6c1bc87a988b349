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
from keras_flows.training.torch_step_graph import Step
from keras_flows.training.torch_step_graph import StepGraphs
from keras_flows.training.torch_updates import fused
from keras_flows.training.torch_updates import gradient_norm


def _beside_weights(data):
    """A batch on the weights' device: a DataLoader's is on the host."""
    return tree.map_structure(
        lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), data
    )


# The attribute of a model, by which Keras does not track them.
GRAPHS = "step_graphs"


class TrainStep:
    """`train_step` for the PyTorch trainer."""

    def train_step(self, data):
        data = _beside_weights(data)
        optimizer = self.optimizer
        ranks.synchronize(self)
        moving = moving_variables(self)
        statistics = [v.value.detach().clone() for v in moving]
        shards = fsdp.shards_of(self)
        variables = self.trainable_variables
        summed = ranks.summed if ranks.several() else None
        step = self._step_of(data)
        if step.known:
            tensors, names = step.results()
        else:
            self.zero_grad()
            with running_step(), summing(summed), step:
                loss, means = fsdp.compute_of(self)(step.data)
                scaled = optimizer.scale_loss(loss)
                if scales_loss(optimizer):
                    scaled = spoil_unless_finite(scaled, loss)
                gradients = self._gradients(scaled, variables, shards)
                found = [x.detach() for x in (loss, *means.values())]
                tensors, names = found + gradients, list(means)
            step.learn(tensors, names)
        loss, gradients = tensors[0], tensors[1 + len(names) :]
        means = dict(zip(names, tensors[1:], strict=False))
        with torch.no_grad():
            loss_value = ranks.mean_loss(self, loss)
            scale = None
            if scales_loss(optimizer) or optimizer.loss_scale_factor:
                scale = optimizer.scale_loss(torch.ones_like(loss))
            if shards is None:
                ranks.average(gradients)
                norm = gradient_norm(gradients, scale)
            else:
                norm = fsdp.as_tensor(
                    global_norm(gradients, 1.0 if scale is None else scale)
                )
            finite = torch.isfinite(loss_value)
            if not scales_loss(optimizer):
                finite = torch.logical_and(finite, torch.isfinite(norm))
            applied, moved = self._move_weights(gradients, variables, finite)
            if applied:
                ranks.average_changes(moving, statistics)
            else:
                for variable, value in zip(moving, statistics, strict=True):
                    variable.assign(value)
            ranks.end_step(self)
            return self.finish_step(
                means,
                self.batch_size(data),
                norm,
                finite,
                torch.tensor(moved, device=loss.device),
            )

    def _step_of(self, data):
        """The `Step` of a batch: with a graph where there may be one."""
        # Exchanges between processes, and a turn that is looked at, are not
        # for graphs.
        if self.run_eagerly or ranks.several() or (
            hasattr(self.optimizer, "second") or fsdp.shards_of(self)
        ):  # fmt: skip
            return Step(data)
        if GRAPHS not in self.__dict__:
            self.__dict__[GRAPHS] = StepGraphs(self)
        return self.__dict__[GRAPHS].step(data)

    def _gradients(self, scaled, variables, shards):
        """Gradients of a loss, 0 by what it does not reach."""
        values = [v.value for v in variables]
        if shards is None:
            found = torch.autograd.grad(scaled, values, allow_unused=True)
        else:
            scaled.backward()
            shards.follow()
            values = [v.value for v in variables]
            found = [value.grad for value in values]
        return [
            torch.zeros_like(value) if gradient is None else gradient
            for gradient, value in zip(found, values, strict=True)
        ]

    def reset_metrics(self):
        super().reset_metrics()
        if GRAPHS in self.__dict__:
            # Callbacks may have changed what is no tensor.
            self.__dict__[GRAPHS].recheck()

    def _move_weights(self, gradients, variables, finite):
        """(whether anything may have moved, whether the weights did)."""
        optimizer = self.optimizer
        inner = inner_optimizer(optimizer)
        counted = inner is not optimizer or inner.gradient_accumulation_steps
        before = int(inner.iterations) if counted else 0
        applied = scales_loss(optimizer) or bool(finite)
        if applied:
            with fused(optimizer):
                optimizer.apply(gradients, variables)
        moved = applied
        if counted:
            moved = int(inner.iterations) > before
        if scales_loss(optimizer):
            applied = moved
        return applied, moved

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
