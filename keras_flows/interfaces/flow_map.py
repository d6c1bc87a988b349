"""Flow maps and the policies' objectives, noise at t = 0."""

from keras import ops

from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.teacher import Taught
from keras_flows.interfaces.teacher import serialize_teacher
from keras_flows.interpolants import Linear
from keras_flows.ops import RowSplit
from keras_flows.ops import register
from keras_flows.samplers import TwoStep


class TimePairs:
    """Pairs (t, r) from noise to data; a share of the batch has r = t.

    A mixin over `Interface`: rows on the diagonal train the velocity, the
    others (`RowSplit` says which) the map.
    """

    def rows(self, x):
        """The `RowSplit` of the batch x."""
        return RowSplit(ops.shape(x)[0], 1.0 - self.diagonal_portion)

    def sample_t_r(self, shape):
        """(t, r) of the given shape, r on the data side of t.

        Two draws of the training law, ordered; for the uniform law they are
        uniform on the triangle. On the diagonal rows r = t is the first draw,
        so that it keeps the law itself.
        """
        first, second = self.sample_t(shape), self.sample_t(shape)
        onward = self.interpolant.toward_data(first, second)
        t = ops.where(onward, first, second)
        r = ops.where(onward, second, first)
        rows = RowSplit(shape[0], 1.0 - self.diagonal_portion)
        (t, _), (r, _) = rows.split(t), rows.split(r)
        _, diagonal = rows.split(first)
        return rows.merge(t, diagonal), rows.merge(r, diagonal)

    def draw_t_r(self, x):
        """Shifted time pairs for the batch x, each (B,)."""
        t, r = self.sample_t_r(ops.shape(x)[:1])
        return self._shifted(t, x), self._shifted(r, x)


@register
class FlowMapInterface(TimePairs, Taught, Interface):
    """Learns a flow map X_{t->r}, or an action, by any named objective.

    `objective` is one of flow, regression, straight_flow, tsd, mip, ctm,
    psd, lsd, esd, mf, lmd, emd, or an `objectives.Objective` or function of
    your own. x_t = t x + (1 - t) n: noise at t = 0, data at t = 1. The
    flow-map objectives need a network with a second time `r`.

    Args:
        network: see `Interface`.
        objective: name, `Objective` or function.
        objective_args: dict of the objective's own options, e.g.
            `{"stop_gradient": "none", "derivative": "finite_difference"}`.
        teacher: a frozen interface on the same interpolant, which lmd, emd
            and ayf need and ctm may use.
        teacher_guidance_scale: of the teacher's velocity, 1.0 for none.
        diagonal_portion: share of the batch on the diagonal r = t.
        weighting: "rows" (each term is a mean over its own rows) or "batch"
            (over the whole batch).
        train_time_dist_type: default "uniform".
        interpolant: default `Linear(noise_at=0.0)`.
        t_mu, t_sigma, n_mu, n_sigma, x_sigma, t_shift_base: see `Interface`.
        norm, cond_drop_ratio, ema, max_skipped_steps, seed, name: see
            `Interface`.
    """

    def __init__(
        self,
        network,
        objective="lsd",
        *,
        objective_args=None,
        teacher=None,
        teacher_guidance_scale=1.0,
        diagonal_portion=0.75,
        weighting="rows",
        train_time_dist_type="uniform",
        interpolant=None,
        t_mu=0.0,
        t_sigma=1.0,
        n_mu=0.0,
        n_sigma=1.0,
        x_sigma=0.5,
        t_shift_base=4096,
        **kwargs,
    ):
        super().__init__(
            network,
            Linear(noise_at=0.0) if interpolant is None else interpolant,
            train_time_dist_type,
            t_mu,
            t_sigma,
            n_mu,
            n_sigma,
            x_sigma,
            t_shift_base,
            objective=objective,
            objective_args=objective_args,
            **kwargs,
        )
        if not 0.0 <= diagonal_portion <= 1.0:
            raise ValueError(
                "`diagonal_portion` must lie between 0 and 1. "
                f"Received: {diagonal_portion!r}."
            )
        if weighting not in ("rows", "batch"):
            raise ValueError(
                "`weighting` must be 'rows' or 'batch'. "
                f"Received: {weighting!r}."
            )
        self.diagonal_portion = diagonal_portion
        self.weighting = weighting
        self._check_use(teacher)
        self._set_teacher(teacher, teacher_guidance_scale)

    def _check_use(self, teacher):
        """A teacher exactly where the objective asks for one."""
        use = self.objective.teacher
        if use == "required" and teacher is None:
            raise ValueError(
                f"Objective '{self.objective.name}' needs a `teacher`: a "
                "trained interface whose velocity it follows."
            )
        if use == "none" and teacher is not None:
            raise ValueError(
                f"Objective '{self.objective.name}' uses no `teacher`; "
                "'lmd', 'emd', 'ayf' and 'ctm' do."
            )

    @property
    def default_sampler(self):
        if self.objective.sampler != "two_step":
            return super().default_sampler
        return TwoStep(**self.objective_args)

    def get_config(self):
        return {
            **super().get_config(),
            "teacher": serialize_teacher(self.teacher),
            "teacher_guidance_scale": self.teacher_guidance_scale,
            "diagonal_portion": self.diagonal_portion,
            "weighting": self.weighting,
        }
