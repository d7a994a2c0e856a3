"""The second way: the sources' own posteriors, weighed by how well they rank the target's evidence.

    f(x) = sum_i w_i f_i(x) + w_target f_target(x)

For sources that hand over what they believe rather than what they measured: no common kernel and no
amplitudes are needed, only the order that each puts the target's candidates into. The weight of a
model is the probability that it misorders the fewest pairs of them; the target's own model takes
part with each candidate left out. It stands where the exact posterior stands: marginals,
covariances and joint paths, in the deltas of the target.

A source's function is moved so that its mean is 0 at the target's base, where all deltas are 0.

Source: Feurer, Letham, Hutter and Bakshy (2018), Practical transfer learning for Bayesian
    optimization (RGPE), with its guard against the dilution of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import ShapeError
from ...surrogate import Hyperparameters, Paths, Posterior, Standardiser

#: Draws of the ranking loss.
NUM_DRAWS = 256
# A source whose median loss is above this quantile of the target's own takes no part.
_DILUTION = 0.95


class Ensemble:
    """A weighted sum of posteriors over one unit cube; used like ``Posterior``.

    Args:
        models: the sources' posteriors, then the target's.
        weight: ``(metrics, models)``, from 0 to 1, the sum of a metric's is 1.
    """

    def __init__(self, models: Sequence[Posterior], weight: Tensor) -> None:
        self.models, self.weight = tuple(models), weight
        self._kept = [i for i in range(len(models)) if bool((weight[:, i] > 0).any())]

    @property
    def target(self) -> Posterior:
        """The target's own model."""
        return self.models[-1]

    @property
    def x(self) -> Tensor:
        """The target's candidates ``(n, dims)``."""
        return self.target.x

    @property
    def device(self) -> torch.device:
        """Where all of it lies."""
        return self.target.device

    @property
    def num_metrics(self) -> int:
        """Metrics, each with weights of its own."""
        return self.target.num_metrics

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The target's own."""
        return self.target.hyperparameters

    @property
    def fit_succeeded(self) -> bool:
        """The target's own."""
        return self.target.fit_succeeded

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at each point ``(..., dims)``, each ``(..., metrics)``."""
        mean, var = (torch.zeros(*x.shape[:-1], self.num_metrics).to(x) for _ in range(2))
        for i in self._kept:
            part_mean, part_var = self.models[i].marginal(x)
            weight = self.weight[:, i].to(x)
            mean, var = mean + weight * part_mean, var + weight.square() * part_var
        return mean, var

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance of N points ``(N, dims)``, ``(metrics, N, N)``: small N."""
        joint = torch.zeros(self.num_metrics, len(x), len(x)).to(self.x)
        for i in self._kept:
            joint = joint + self.weight[:, i, None, None].square() * self.models[i].covariance(x)
        return joint

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> EnsemblePaths:
        """Joint draws of all metrics as functions of x, those of the models added up."""
        drawn = [self.models[i].paths(num_paths, generator) for i in self._kept]
        return EnsemblePaths(self, drawn, self.weight[:, self._kept])


class EnsemblePaths:
    """Functions drawn from an ensemble; used like ``surrogate.Paths``."""

    def __init__(self, posterior: Ensemble, parts: Sequence[Paths], weight: Tensor) -> None:
        self.posterior = posterior
        self._parts, self._weight = tuple(parts), weight

    @property
    def num_paths(self) -> int:
        """How many functions."""
        return self._parts[0].num_paths

    @property
    def tile(self) -> int:
        """Points whose evaluation stays within about 64 MiB of temporaries."""
        return min(part.tile for part in self._parts)

    def __getitem__(self, some: slice) -> EnsemblePaths:
        """A few of the functions, by a slice."""
        parts = [part[some] for part in self._parts]
        return EnsemblePaths(self.posterior, parts, self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point ``(N, dims)``, ``(paths, N, metrics)``."""
        return self._sum([part(x) for part in self._parts])

    def each(self, x: Tensor) -> Tensor:
        """Every function at points of its own ``(paths, S, dims)``, ``(paths, S, metrics)``."""
        return self._sum([part.each(x) for part in self._parts])

    def _sum(self, values: list[Tensor]) -> Tensor:
        total = torch.zeros_like(values[0])
        for value, weight in zip(values, self._weight.T):
            total = total + weight.to(value) * value
        return total


def anchored(model: Posterior, base: Tensor) -> Posterior:
    """The same posterior, moved so that its mean at ``base (dims,)`` is 0."""
    at_base, _ = model.marginal(base.unsqueeze(0).to(model.x))
    shift, scale = model.standardiser
    y = model.outputs
    return Posterior(
        model.x,
        y.T,
        model.noise.T,
        model.hyperparameters,
        Standardiser(shift - at_base[0], scale),
        model.shared_noise,
        fit_succeeded=model.fit_succeeded,
    )


def ensemble(
    sources: Sequence[Posterior], target: Posterior, generator: torch.Generator
) -> Ensemble:
    """Sources and target, weighed by their ranking of the target's evidence.

    Args:
        sources: in the target's cube and metrics; see ``anchored``.
        target: its own posterior; at least three candidates, else its weight is 1.
        generator: on the posteriors' device.
    Raises:
        ShapeError: models over another cube or of other metrics.
    """
    for model in sources:
        if model.x.shape[1] != target.x.shape[1] or model.num_metrics != target.num_metrics:
            raise ShapeError(
                f"a source's posterior is over {model.x.shape[1]} dims and {model.num_metrics} "
                f"metrics, the target's over {target.x.shape[1]} and {target.num_metrics}"
            )
    losses = torch.stack(
        [*(_losses(model, target, generator) for model in sources), _own_losses(target, generator)]
    )  # (models, draws, metrics)
    return Ensemble([*sources, target], ranking_weights(losses))


def ranking_weights(losses: Tensor) -> Tensor:
    """Probability that each model misorders least, ``(metrics, models)``; the last is the target.

    Ties go to the target where it takes part in them, else they are shared.

    Args:
        losses: ``(models, draws, metrics)``.
    """
    limit = losses[-1].quantile(_DILUTION, dim=0)
    diluted = losses[:-1].median(dim=1).values > limit  # (sources, metrics)
    losses = losses.clone()
    losses[:-1] = torch.where(diluted.unsqueeze(1), torch.inf, losses[:-1])
    least = losses == losses.amin(0)
    others = least & ~least[-1]
    least = torch.cat([others[:-1], least[-1:]])
    won = least.to(losses) / least.sum(0).clamp_min(1)
    return won.mean(1).T


def _losses(model: Posterior, target: Posterior, generator: torch.Generator) -> Tensor:
    """Misordered pairs of the target's evidence by draws of a model, ``(draws, metrics)``."""
    return _misordered(model.paths(NUM_DRAWS, generator)(target.x), target)


def _own_losses(target: Posterior, generator: torch.Generator) -> Tensor:
    """The same by the target's own model, each candidate drawn with its evidence left out."""
    inverse = torch.cholesky_inverse(target.cholesky)
    precision = inverse.diagonal(dim1=-2, dim2=-1)  # (metrics, n)
    observed = target.residual
    mean = (observed - target.weights / precision).T
    spread = (1 / precision - target.noise.nan_to_num(posinf=0.0)).clamp_min(1e-12).sqrt().T
    normal = torch.randn(
        NUM_DRAWS, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator
    )
    return _misordered(mean + spread * normal, target)


def _misordered(drawn: Tensor, target: Posterior) -> Tensor:
    """Pairs whose order differs from the evidence's, ``(draws, n, metrics)`` to ``(draws, m)``."""
    seen = target.residual.T  # any increasing function of the evidence will do
    known = target.observed.T > 0
    found = []
    for m in range(drawn.shape[-1]):
        rows = known[:, m]
        value, truth = drawn[:, rows, m], seen[rows, m]
        wrong = (value.unsqueeze(-1) < value.unsqueeze(-2)) ^ (truth.unsqueeze(-1) < truth)
        found.append(wrong.sum((-2, -1)))
    return torch.stack(found, dim=-1).to(drawn)


def facts(names: Sequence[str], found: Ensemble) -> dict[str, Any]:
    """Plain values for the journal."""
    weights = found.weight.T.tolist()
    own = [round(value, 4) for value in weights[-1]]
    return {
        "target_weight": own,
        "sources": {
            name: {"weight": [round(v, 4) for v in row]} for name, row in zip(names, weights)
        },
    }
