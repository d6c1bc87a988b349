"""One batch on its way through an objective."""

import dataclasses
import typing

from keras_flows.objectives import norms


@dataclasses.dataclass
class Batch:
    """What an objective is given beside the model.

    Attributes:
        x: clean data, (B, ...), float32; a pair of them where data sets are
            joined.
        condition: tensor or structure, or None.
        training: whether labels are dropped and dropout is on.
        mask: None, or (B, T), 1 where x (B, T, ...) counts.
        noise: None, or (B, ...), what x is a teacher's sample of.
        residual_norm: (B, ...) -> (B,), the model's.
        mask_used: whether `norm` has looked at the mask.
    """

    x: object
    condition: object = None
    training: bool = False
    mask: object = None
    noise: object = None
    residual_norm: typing.Callable = None
    mask_used: bool = False

    def terms(self, objective, model):
        """The objective's terms of this batch, its mask not forgotten."""
        if self.mask is not None and model.stable_target:
            raise ValueError(
                "`stable_target=True` compares whole examples, and would mix "
                "what the batch's 'mask' leaves out into the targets. Leave "
                "one of them out."
            )
        terms = objective(model, self)
        if self.mask is not None and not self.mask_used:
            raise ValueError(
                f"Objective '{objective.name}' does not use the batch's "
                "'mask' and would train on the padding. Leave the mask out, "
                "or take the residual's `batch.norm` in the objective."
            )
        return terms

    def norm(self, residual, part=None):
        """Norm of a residual over what the mask keeps, (B,): `norms.masked`.

        Args:
            residual: (B, ...), or of some rows of the batch.
            part: None, or the function that takes these rows of the batch.
        """
        if self.mask is None:
            return self.residual_norm(residual)
        self.mask_used = True
        mask = self.mask if part is None else part(self.mask)
        return norms.masked(self.residual_norm, residual, mask)
