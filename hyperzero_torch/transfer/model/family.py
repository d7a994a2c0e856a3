"""The sources as a family: their own fits, reduced to common inducing points, and compared.

Each source is fitted by itself: its kernel, its amplitude, and a nugget for the scatter that is no
function of theta (all of it, where settings were shuffled) come from its own evidence. The family's
lengthscales are the geometric mean of the sources', weighted by how well each predicts its
left-out rows. Every source is then reduced to the family's inducing points, and the sources'
loadings and amplitudes are estimated from how well they agree. All of this is done once and kept.

Each domain has an unknown offset (``inducing.OFFSET_VAR``), because controls differ. It also covers
the error that all settings of a source share through their control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...surrogate import default_hyperparameters
from ...surrogate.kernels import matern52
from ..alignment import Aligned
from . import coregionalization
from .inducing import (
    OFFSET_VAR,
    Inducing,
    Reduced,
    Spectrum,
    at_points,
    choose,
    reduce,
    spectrum,
)
from .source_posterior import MetricFit, fit_metric

#: Largest number of inducing points.
MAX_POINTS = 160
_LEAST_SPREAD = 0.03  # of a function with a parameter held fixed, relative to its whole spread
# Grids: the variance of a source's function relative to its standardised rows, and of its nugget
# relative to the function's.
_AMPLITUDES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0)
_NUGGETS = (0.0, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0)
_NUGGET_SPREAD = 0.3  # half-normal prior of the nugget's part of the variance


class Family(NamedTuple):
    """Sources reduced to common inducing points.

    ``names`` of the sources; ``inducing`` points; ``spectrum`` of each source's evidence, leading
    axes ``(metrics, sources)``. All ``(metrics, sources)``: ``spread``, the standard deviation of
    the source's function in the metric's unit; ``nugget``, the variance of its scatter that is no
    function of theta, relative to the function's; ``loading`` by the sources' own agreement;
    ``skill``, the nats per row by which a source predicts its own left-out rows better than a
    constant does; ``has_evidence``. ``points (settings, dims)`` are all settings that sources have
    tested; ``pinned (sources,)`` is the correlation with the target that an expert set, else NaN.
    """

    names: tuple[str, ...]
    inducing: Inducing
    spectrum: Spectrum
    spread: Tensor
    nugget: Tensor
    loading: Tensor
    skill: Tensor
    has_evidence: Tensor
    points: Tensor
    pinned: Tensor

    def to(self, device: torch.device) -> Family:
        """The same on another device."""
        fields = ("spread", "nugget", "loading", "skill", "has_evidence", "points", "pinned")
        return self._replace(
            inducing=Inducing(*(part.to(device) for part in self.inducing)),
            spectrum=Spectrum(*(part.to(device) for part in self.spectrum)),
            **{name: getattr(self, name).to(device) for name in fields},
        )


class SourceBeliefs(NamedTuple):
    """What an expert allows sources to contribute; sources that are not named count in full.

    ``precision`` by source, in [0, 1]: the factor on its evidence's precision. ``by_parameter`` by
    source: the coordinates of a parameter and the part of what the source says about it that
    counts; the rest of its evidence is used only where the parameter is at ``base (dims,)``, the
    target's. ``pin`` by source: its correlation with the target.
    """

    base: Tensor
    precision: Mapping[str, float]
    by_parameter: Mapping[str, Sequence[tuple[slice, float]]]
    pin: Mapping[str, float]


def gather_family(
    sources: Sequence[Aligned], filling: Tensor, beliefs: SourceBeliefs | None = None
) -> Family:
    """Fit, reduce and compare the sources.

    Args:
        sources: aligned with the target, at least one.
        filling: ``(n, dims)`` points all over the space, among which inducing points may be chosen
            beside the sources' own.
    """
    beliefs = beliefs or SourceBeliefs(filling.mean(0), {}, {}, {})
    names = tuple(source.name for source in sources)
    metrics = sources[0].mean.shape[1]
    fits = [[fit_metric(source, m) for source in sources] for m in range(metrics)]
    weights = [_shape_weight(name, beliefs) for name in names]
    lengthscale = torch.stack([_common_lengthscale(row, weights, filling) for row in fits])
    points = torch.cat([source.x for source in sources])
    inducing = choose(torch.cat([points, filling]), lengthscale, MAX_POINTS)
    shape, m = (metrics, len(sources)), len(inducing.z)
    spread, nugget, skill = (filling.new_zeros(shape) for _ in range(3))
    has_evidence = torch.zeros(shape, dtype=torch.bool)
    precision, information = filling.new_zeros(*shape, m, m), filling.new_zeros(*shape, m)
    for i, row in enumerate(fits):
        for j, fit in enumerate(row):
            if fit is None:
                continue
            reduced, amplitude, nugget[i, j] = _reduce_source(fit, inducing, i, names[j], beliefs)
            kept = beliefs.precision.get(names[j], 1.0)
            precision[i, j], information[i, j] = (kept * field for field in reduced[:2])
            spread[i, j], skill[i, j] = amplitude**0.5 * fit.scale, weights[j] * fit.skill
            has_evidence[i, j] = kept > 0
    spectra = spectrum(Reduced(precision, information, precision.new_zeros(shape)))
    loading = torch.where(has_evidence, coregionalization.MEDIAN_LOADING, 0.0).to(spread)
    if len(sources) > 1:
        loading = coregionalization.source_loadings(spectra, has_evidence)
        factors = coregionalization.amplitude_factors(spectra, loading)
        factors = torch.where(has_evidence, factors, 1.0)
        spectra, spread = coregionalization.rescaled(spectra, factors), spread * factors
        loading = coregionalization.source_loadings(spectra, has_evidence)
    pinned = spread.new_tensor([beliefs.pin.get(name, torch.nan) for name in names])
    fixed = pinned.sqrt().nan_to_num().clamp(max=0.99)
    loading = torch.where(has_evidence & pinned.isfinite(), fixed, loading)
    return Family(
        names, inducing, spectra, spread, nugget, loading, skill, has_evidence, points, pinned
    )


def _reduce_source(
    fit: MetricFit, inducing: Inducing, metric: int, name: str, beliefs: SourceBeliefs
) -> tuple[Reduced, float, float]:
    """The likelihood of one metric of a source at the inducing points, its amplitude and nugget.

    The amplitude is the variance of its function, standardised, without what an expert excluded.
    """
    lengthscale, root = (field[metric : metric + 1] for field in inducing[1:])
    amplitude, nugget = _amplitude(fit, lengthscale)
    projected = Inducing(inducing.z, lengthscale, root).project(fit.x)[0]
    noise = fit.noise / amplitude + nugget
    reduced = reduce(projected, fit.y / amplitude**0.5, noise, None, OFFSET_VAR)
    size = 1.0
    for columns, part in beliefs.by_parameter.get(name, ()):
        # The function's spread with the parameter held fixed: its variation along a parameter that
        # is not believed says nothing about its amplitude.
        size *= _spread_at(reduced, inducing, metric, columns, beliefs.base) ** (1 - part)
        reduced = without(reduced, inducing, metric, columns, beliefs.base, part)
    precision, information, constant = reduced
    reduced = Reduced(precision * size**2, information * size, constant)
    return reduced, amplitude * size**2, nugget


def _shape_weight(name: str, beliefs: SourceBeliefs) -> float:
    """How much a source counts for the family's lengthscales and amplitudes.

    Its own fit does not separate the effect of a parameter that is not believed.
    """
    kept = (part for _, part in beliefs.by_parameter.get(name, ()))
    return beliefs.precision.get(name, 1.0) * math.prod(kept)


def _common_lengthscale(
    fits: Sequence[MetricFit | None], weights: Sequence[float], like: Tensor
) -> Tensor:
    """Geometric mean of the sources' lengthscales by skill, with the prior's median as one more."""
    total = 0.1 * default_hyperparameters(1, like.shape[1], like).lengthscale[0].log()
    weight = 0.1
    for fit, factor in zip(fits, weights):
        if fit is not None:
            total = total + factor * fit.skill * fit.lengthscale.log()
            weight = weight + factor * fit.skill
    return (total / weight).exp()


def _amplitude(fit: MetricFit, lengthscale: Tensor) -> tuple[float, float]:
    """Variance of the function and the nugget relative to it, the most probable of a grid."""
    x, y, noise = fit.fitted
    k = matern52(x, x, lengthscale)[0]
    sizes = y.new_tensor(_AMPLITUDES)[:, None, None]
    nuggets = y.new_tensor(_NUGGETS)
    unit = torch.eye(len(x), dtype=x.dtype, device=x.device)
    system = sizes.unsqueeze(1) * (k + nuggets[:, None, None] * unit + OFFSET_VAR)
    system = system + torch.diag_embed(noise)
    root = torch.linalg.cholesky(system)
    half = torch.linalg.solve_triangular(
        root, y.unsqueeze(-1).expand(*root.shape[:2], -1, 1), upper=False
    )
    volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    density = -0.5 * half.square().sum((-2, -1)) - volume
    part = nuggets / (1 + nuggets)
    total = sizes[..., 0, 0].unsqueeze(-1) * (1 + nuggets)
    density = density - 0.5 * (part / _NUGGET_SPREAD).square() - 0.5 * total.log().square()
    i, j = divmod(int(density.argmax()), len(_NUGGETS))
    return _AMPLITUDES[i], _NUGGETS[j]


def _spread_at(
    reduced: Reduced, inducing: Inducing, metric: int, columns: slice, base: Tensor
) -> float:
    """Standard deviation of a function over points with these coordinates at the base's values.

    In units of its spread over the whole space, given the evidence.
    """
    at = inducing.project(_at_base(inducing, columns, base))[metric]
    unit = torch.eye(len(reduced.precision), dtype=at.dtype, device=at.device)
    covariance = torch.linalg.inv(unit + reduced.precision)
    mean = at @ (covariance @ reduced.information)
    unexplained = (1.0 - at.square().sum(-1)).clamp_min(0.0)
    variance = ((at @ covariance) * at).sum(-1) + unexplained
    return float((mean.var() + variance.mean()).sqrt().clamp(_LEAST_SPREAD, 1.0))


def _at_base(inducing: Inducing, columns: slice, base: Tensor) -> Tensor:
    moved = inducing.z.clone()
    moved[:, columns] = base[columns]
    distinct: Tensor = torch.unique(moved, dim=0)
    return distinct


def without(
    reduced: Reduced, inducing: Inducing, metric: int, columns: slice, base: Tensor, part: float
) -> Reduced:
    """Evidence of which only a ``part`` counts away from the base's values of these coordinates.

    What a source says about the *other* parameters still holds where this one is at the target's
    base; its effect elsewhere is left open.
    """
    less = at_points(reduced, inducing.project(_at_base(inducing, columns, base))[metric])
    return Reduced(
        part * reduced.precision + (1 - part) * less.precision,
        part * reduced.information + (1 - part) * less.information,
        reduced.constant,
    )
