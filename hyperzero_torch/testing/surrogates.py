"""The laws of a surrogate, for models of your own.

    class TestMyModel(SurrogateContract):
        def make_surrogate(self):
            return MyModel()                 # or a GPyTorch kernel, a factory, a name

``pytest`` collects the laws as tests; this module itself does not import it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ShapeError, TunerWarning
from ..problem.problem import Problem
from ..problem.space import Float, SearchSpace
from ..study.config import TunerConfig
from ..study.plan import Plan
from ..study.readings import Readings
from ..surrogate import Surrogate
from ..surrogate.foreign import choose
from ..surrogate.protocol import FittedPosterior
from ..tuner.tuner import Tuner
from .values import assert_raises

_DIMS, _METRICS, _NUM = 2, 2, 24
_NUM_PATHS = 4000
# Standard errors by which an average of draws may be off: one in 10^7 such averages is.
_SIGMAS = 5.3
_CONFIG = TunerConfig(
    num_draws=40, num_samples=32, num_proposals=1, initial_candidates=8, drift_alpha=None
)


class SurrogateContract:
    """The laws of a surrogate: override ``make_surrogate``.

    ``path_variance`` is the relative error that the variance of paths may have beside that of the
    number of draws: paths of random features are approximate.
    """

    path_variance: float = 0.35
    _example: ClassVar[FittedPosterior]

    def make_surrogate(self) -> Any:
        """What ``hz.Tuner(problem, surrogate=...)`` takes, for two dimensions; new in each call."""
        raise NotImplementedError

    def test_shapes_are_those_of_the_protocol(self) -> None:
        """For one point, many, and any leading axes; in the precision of the points."""
        posterior = self._fitted()
        assert posterior.num_metrics == _METRICS
        assert posterior.lengthscale.shape == (_METRICS, _DIMS)
        assert bool((posterior.lengthscale > 0).all())
        for lead in ((), (1,), (5,), (2, 3)):
            x = torch.full((*lead, _DIMS), 0.3, dtype=torch.float64)
            mean, var = posterior.marginal(x)
            assert mean.shape == var.shape == (*lead, _METRICS)
            assert mean.dtype == torch.float64
            assert bool((var > 0).all())
        half = posterior.marginal(_points(3).float())
        assert half[0].dtype == half[1].dtype == torch.float32
        assert posterior.covariance(_points(7)).shape == (_METRICS, 7, 7)
        paths = posterior.paths(3, _generator())
        assert paths.num_paths == 3
        assert paths.tile >= 1
        assert paths(_points(5)).shape == (3, 5, _METRICS)
        assert paths[1:3](_points(5)).shape == (2, 5, _METRICS)
        assert paths.each(_points(12).reshape(3, 4, _DIMS)).shape == (3, 4, _METRICS)

    def test_points_of_other_dimensions_are_refused(self) -> None:
        """With the package's own error."""
        posterior = self._fitted()
        wrong = torch.zeros(3, _DIMS + 1, dtype=torch.float64)
        paths = posterior.paths(2, _generator())
        for call in (posterior.marginal, posterior.covariance, paths):
            assert_raises(ShapeError, lambda call=call: call(wrong))  # type: ignore[misc]
        assert_raises(ShapeError, lambda: posterior.paths(0, _generator()))

    def test_variances_are_the_diagonal_of_a_covariance(self) -> None:
        """Which is symmetric and positive semi-definite."""
        posterior = self._fitted()
        joint, (_, var) = posterior.covariance(_points(9)), posterior.marginal(_points(9))
        size = float(joint.abs().max())
        assert torch.allclose(joint, joint.mT, rtol=1e-6, atol=1e-8 * size)
        assert torch.allclose(joint.diagonal(dim1=-2, dim2=-1), var.T, rtol=1e-3, atol=1e-6 * size)
        assert float(torch.linalg.eigvalsh(joint).min()) >= -1e-5 * size

    def test_paths_have_the_posterior_s_moments(self) -> None:
        """Means and covariances of draws, within what their number allows."""
        posterior, x = self._fitted(), _points(6)
        draws = posterior.paths(_NUM_PATHS, _generator())(x)
        mean, var = posterior.marginal(x)
        joint = posterior.covariance(x)
        drawn_var = draws.var(0)
        error = (draws.mean(0) - mean).abs() / (drawn_var / _NUM_PATHS).sqrt()
        assert float(error.max()) < _SIGMAS, f"means are off by {float(error.max()):.1f} errors"
        # A variance of normal draws has the relative error sqrt(2 / n).
        bound = self.path_variance + _SIGMAS * math.sqrt(2 / _NUM_PATHS)
        gap = (drawn_var / var - 1).abs()
        assert float(gap.max()) < bound, f"variances are off by a factor of 1 +- {gap.max():.2f}"
        centred = draws - draws.mean(0)
        drawn = torch.einsum("pam,pbm->mab", centred, centred) / (_NUM_PATHS - 1)
        size = (var.T.unsqueeze(-1) * var.T.unsqueeze(-2)).sqrt()
        assert float(((drawn - joint) / size).abs().max()) < bound

    def test_a_path_is_a_function(self) -> None:
        """The same value in every call, alone and among others, in slices and through ``each``."""
        paths, x = self._fitted().paths(4, _generator()), _points(6)
        values = paths(x)
        assert torch.equal(paths(x), values)
        size = float(values.abs().max())
        assert torch.allclose(paths(x[2:4]), values[:, 2:4], rtol=1e-6, atol=1e-9 * size)
        assert torch.allclose(paths[1:3](x), values[1:3], rtol=1e-6, atol=1e-9 * size)
        each = paths.each(x.expand(4, 6, _DIMS))
        assert torch.allclose(each, values, rtol=1e-6, atol=1e-9 * size)
        assert torch.allclose(
            paths[2:4].each(x.expand(2, 6, _DIMS)), values[2:4], rtol=1e-6, atol=1e-9 * size
        )

    def test_paths_are_differentiable(self) -> None:
        """Gradients in x are those of finite differences."""
        paths = self._fitted().paths(2, _generator())
        x = _points(3).expand(2, 3, _DIMS).clone().requires_grad_()
        (slope,) = torch.autograd.grad(paths.each(x).sum(), x)
        step = 1e-5
        for dim in range(_DIMS):
            shift = step * torch.eye(_DIMS, dtype=torch.float64)[dim]
            with torch.no_grad():
                change = (paths.each(x + shift) - paths.each(x - shift)).sum(-1) / (2 * step)
            size = float(slope.abs().max())
            assert torch.allclose(slope[..., dim], change, rtol=1e-3, atol=1e-4 * size)

    def test_the_generator_is_all_the_randomness(self) -> None:
        """The same seed draws the same functions, another seed others."""
        posterior, x = self._fitted(), _points(4)
        first = posterior.paths(2, _generator(1))(x)
        torch.rand(7)  # what else draws does not matter
        assert torch.equal(posterior.paths(2, _generator(1))(x), first)
        assert not torch.equal(posterior.paths(2, _generator(2))(x), first)

    def test_fitting_again_gives_the_same_posterior(self) -> None:
        """Also by another object made in the same way: a study resumes exactly."""
        first, again = (self._fit(*example_evidence()) for _ in range(2))
        torch.rand(3)
        for a, b in zip(first.marginal(_points(8)), again.marginal(_points(8))):
            assert torch.equal(a, b)

    def test_the_unit_of_a_metric_changes_nothing(self) -> None:
        """A metric in other units has the same posterior in these units."""
        x, mean, var, shared = example_evidence()
        unit = torch.tensor([1.0, 1000.0], dtype=torch.float64)
        scaled = shared * unit.square()[:, None, None]
        other = self._fit(x, mean * unit, var * unit.square(), scaled)
        first = self._fit(x, mean, var, shared)
        at = _points(8)
        mean_before, var_before = first.marginal(at)
        mean_after, var_after = other.marginal(at)
        tolerance = 1e-2 * var_before.sqrt()
        assert bool(((mean_after / unit - mean_before).abs() <= tolerance).all())
        assert torch.allclose(var_after / unit.square(), var_before, rtol=2e-2)

    def test_precise_evidence_is_believed(self) -> None:
        """With little noise the posterior goes through the data, and is certain of it."""
        x, mean, var, _ = example_evidence(noise=1e-4)
        fitted, after = self._fit(x, mean, var, None).marginal(x)
        error = (fitted - mean).abs() / (mean.max(0).values - mean.min(0).values)
        assert float(error.mean()) < 0.15
        # What was measured is at most as uncertain as the measurement.
        assert float((after / var).mean()) < 2

    def test_missing_metrics_and_exact_rows_are_taken(self) -> None:
        """NaN where a metric was not observed, and variance 0 for the base."""
        x, mean, var, shared = example_evidence()
        mean[3:9, 1] = torch.nan
        mean[0], var[0] = 0.0, 0.0
        shared[:, 0], shared[:, :, 0] = 0.0, 0.0
        posterior = self._fit(x, mean, var, shared)
        at_base = posterior.marginal(x[:1])[0].abs()
        spread = mean.nan_to_num().std(0)
        assert bool((at_base < 0.5 * spread).all())

    def test_shared_errors_are_taken(self) -> None:
        """Evidence whose errors are common to all rows says less of the level than it seems to.

        The level is the average over all rows. A single row can be better known: the others tell
        of the error that it shares with them.
        """
        x, mean, var, shared = example_evidence()
        fitted = self._fit(x, mean, var, None)
        alone, together = (
            fitted.condition(x, mean, var, common).covariance(x).mean((-2, -1))
            for common in (None, shared)
        )
        assert bool((together > alone).all())

    def test_conditioning_on_nothing_new_changes_nothing(self) -> None:
        """The same evidence, given again, has the same posterior."""
        x, mean, var, shared = example_evidence()
        posterior = self._fit(x, mean, var, shared)
        again = posterior.condition(x, mean, var, shared)
        for a, b in zip(posterior.marginal(_points(5)), again.marginal(_points(5))):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-12)

    def test_a_study_runs_and_resumes_exactly(self) -> None:
        """Plans of a study that is loaded after each round are those of one that runs through.

        A fit of few candidates may well not be used; each plan then warns of it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TunerWarning)
            self._check_resume()

    def _check_resume(self) -> None:
        straight = Tuner(_problem(), _CONFIG, surrogate=self.make_surrogate())
        broken_off = Tuner(_problem(), _CONFIG, surrogate=self.make_surrogate())
        for _ in range(3):
            plan = straight.ask()
            state = broken_off.state_dict()
            broken_off = Tuner(_problem(), _CONFIG, surrogate=self.make_surrogate())
            broken_off.load_state_dict(state)
            other = broken_off.ask()
            assert other.candidate_ids == plan.candidate_ids
            assert other.shares == plan.shares
            assert torch.equal(other.theta, plan.theta)
            for tuner in (straight, broken_off):
                tuner.tell(_reading(plan))
        assert not [d for d in straight.decisions if d.kind == "fallback"]

    def _fitted(self) -> FittedPosterior:
        """The posterior of the example; fitted once for all laws that only look at it."""
        if "_example" not in vars(type(self)):
            type(self)._example = self._fit(*example_evidence())
        return type(self)._example

    def _fit(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None) -> FittedPosterior:
        chosen = choose(self.make_surrogate(), x.shape[1])
        return (chosen or Surrogate()).fit(x, mean, var, shared)


def example_evidence(noise: float = 1e-3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x``, ``mean``, ``var`` and ``shared`` of two smooth metrics with a common control.

    The deltas span about 0.02. ``noise`` is the standard error of an arm, and of the control.
    """
    x = torch.quasirandom.SobolEngine(_DIMS, scramble=True, seed=1).draw(  # type: ignore[no-untyped-call]
        _NUM, dtype=torch.float64
    )
    surface = torch.stack([(3 * x[:, 0]).sin() + x[:, 1], x[:, 0] * x[:, 1] - x[:, 1]], dim=1)
    normal = torch.randn(_NUM + 1, _METRICS, generator=_generator(5), dtype=torch.float64)
    mean = 0.01 * surface + noise * (normal[1:] + normal[:1])
    var = torch.full((_NUM, _METRICS), 2 * noise**2, dtype=torch.float64)
    return x, mean, var, torch.full((_METRICS, _NUM, _NUM), noise**2, dtype=torch.float64)


def _points(num: int) -> Tensor:
    points: Tensor = 0.05 + 0.9 * torch.rand(
        num, _DIMS, generator=_generator(9), dtype=torch.float64
    )
    return points


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem() -> Problem:
    space = SearchSpace([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    return Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -5%"])


def _reading(plan: Plan) -> Readings:
    """An hour of a platform whose gain rises with a."""
    theta = plan.theta
    mean = 10 * torch.stack([1 + 0.1 * theta[:, 0], 1 - 0.02 * theta[:, 1]], dim=-1)
    count = 4000 * torch.tensor(plan.shares, dtype=torch.float64).unsqueeze(-1).expand_as(mean)
    normal = torch.randn(mean.shape, generator=_generator(plan.round), dtype=torch.float64)
    mean = mean + normal / count.sqrt()
    return Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean))
