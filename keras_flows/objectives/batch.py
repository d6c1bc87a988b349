"""One batch on its way through an objective."""

import dataclasses
import typing

from keras import ops

from keras_flows.objectives import norms
from keras_flows.ops import mean_flat


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
        mask_uses: how many terms have looked at the mask.
    """

    x: object
    condition: object = None
    training: bool = False
    mask: object = None
    noise: object = None
    residual_norm: typing.Callable = None
    mask_uses: int = 0

    def terms(self, objective, model):
        """The objective's terms of this batch, its mask not forgotten."""
        if self.mask is None:
            return objective(model, self)
        if getattr(model, "stable_target", False):
            raise ValueError(
                "`stable_target=True` compares whole examples, and would mix "
                "what the batch's 'mask' leaves out into the targets. Leave "
                "one of them out."
            )
        if not objective.takes_mask:
            raise ValueError(
                f"Objective '{objective.name}' compares whole examples, and "
                "would train on what the batch's 'mask' leaves out. Leave the "
                "mask out, or cut the padding off."
            )
        terms = objective(model, self)
        named = [name for name in objective.terms if name in terms]
        if self.mask_uses < max(len(named), 1):
            where = "" if not self.mask_uses else f" in each of its {named}"
            raise ValueError(
                f"Objective '{objective.name}' does not use the batch's 'mask'"
                f"{where} and would train on the padding. Leave the mask out, "
                "or take `batch.norm` of the residual, or `batch.mean`, in "
                "each term."
            )
        return terms

    def norm(self, residual, part=None):
        """Norm of a residual over what the mask keeps, (B,): `norms.masked`.

        Args:
            residual: (B, ...), or of some rows of the batch.
            part: None, or the function that takes these rows of the batch.
        """
        return self._reduced(self.residual_norm, residual, part)

    def mean(self, elements):
        """Mean of (B, ...) over what the mask keeps, (B,), scaled as `norm`."""
        return self._reduced(mean_flat, elements)

    def kept(self, elements, part=None):
        """(B, ...) elements, 0 where the mask leaves them out."""
        if self.mask is None:
            return elements
        mask = self.mask if part is None else part(self.mask)
        ones = (1,) * (len(elements.shape) - len(mask.shape))
        mask = ops.reshape(mask, (*ops.shape(mask), *ones))
        # Not a product: what is left out may be infinite.
        return ops.where(mask > 0, mask * elements, ops.zeros_like(elements))

    def _reduced(self, reduce, elements, part=None):
        if self.mask is None:
            return reduce(elements)
        self.mask_uses += 1
        mask = self.mask if part is None else part(self.mask)
        return norms.masked(reduce, self.kept(elements, part), mask)
