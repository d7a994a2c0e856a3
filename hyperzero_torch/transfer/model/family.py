"""What the sources are worth to each other: their own work, done once and kept.

Each source is fitted by itself; its kernel, its amplitude and what its rows do not explain (a
nugget, which is all of it where settings were shuffled) come from its own evidence. The sources'
lengthscales are averaged into the family's, each weighing by how well it predicts left-out rows.
Then every source is reduced to the family's inducing points, and the sources' shares and amplitudes
are learned from their agreement.

A domain's offset is unknown (``inducing.OFFSET_VAR``): controls differ, and the error that all of a
source's settings share through its control is an offset too, so it needs no model of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import FitError
from ...surrogate import Posterior, Surrogate, default_hyperparameters
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
    most_informative,
    reduce,
    spectrum,
)

#: Rows of a source that its kernel is fitted to, and that it is reduced from: the most informative.
FITTED_ROWS, KEPT_ROWS = 96, 384
#: Inducing points.
MOST_POINTS = 160
_LEAST_ROWS = 4
_LEAST_SPREAD = 0.03  # of a function with a parameter standing still, of its spread without
_NOISE_FLOOR = 1e-6
# Tried: the variance of a source's function against what its standardisation says, and of its
# nugget against the function's.
_AMPLITUDES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0)
_NUGGETS = (0.0, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0)
_NUGGET_SPREAD = 0.3  # believed of the nugget's part: half-normal, no more than a third of it all


class Family(NamedTuple):
    """Sources on common ground.

    ``names`` of the sources; ``inducing`` points; ``spectrum`` of each source's evidence, leading
    axes ``(metrics, sources)``; ``spread (metrics, sources)`` standard deviations of the sources'
    functions, in the metric's unit; ``nugget (metrics, sources)`` the part of a source's scatter
    that is no function of theta; ``share (metrics, sources)`` by the sources' own agreement;
    ``skill (metrics, sources)`` nats per row by which a source predicts its own left-out rows
    better than a constant does; ``known (metrics, sources)`` where there is evidence;
    ``points (settings, dims)`` are all that sources have tested, ``num_rows`` of each source;
    ``pinned (sources,)`` the correlation with the target that an expert pinned, NaN where none.
    """

    names: tuple[str, ...]
    inducing: Inducing
    spectrum: Spectrum
    spread: Tensor
    nugget: Tensor
    share: Tensor
    skill: Tensor
    known: Tensor
    points: Tensor
    num_rows: tuple[int, ...]
    pinned: Tensor

    def to(self, device: torch.device) -> Family:
        """The same on another device."""
        fields = ("spread", "nugget", "share", "skill", "known", "points", "pinned")
        return self._replace(
            inducing=Inducing(*(part.to(device) for part in self.inducing)),
            spectrum=Spectrum(*(part.to(device) for part in self.spectrum)),
            **{name: getattr(self, name).to(device) for name in fields},
        )


class SourceBeliefs(NamedTuple):
    """An expert's words, by source; what is not named is believed as it is.

    ``belief``: what is left of its precision, in [0, 1]. ``apart``: of what it says about single
    parameters, as pairs of the parameter's coordinates and the part that is believed; the rest is
    asked at ``base (dims,)`` only, the target's. ``pin``: its correlation with the target.
    """

    base: Tensor
    belief: Mapping[str, float]
    apart: Mapping[str, Sequence[tuple[slice, float]]]
    pin: Mapping[str, float]


class _Own(NamedTuple):
    """One metric of one source, by itself: standardised ``y`` and ``noise``, and its fit."""

    x: Tensor
    y: Tensor
    noise: Tensor
    scale: float
    lengthscale: Tensor
    skill: float


def gather_family(
    sources: Sequence[Aligned], filling: Tensor, said: SourceBeliefs | None = None
) -> Family:
    """Fit, reduce and compare the sources.

    Args:
        sources: aligned with the target, at least one.
        filling: ``(n, dims)`` points all over the space, among which inducing points may be chosen
            beside the sources' own.
        said: by an expert, over what the evidence says.
    """
    said = said or SourceBeliefs(filling.mean(0), {}, {}, {})
    metrics = sources[0].mean.shape[1]
    owns = [[_own(source, m) for source in sources] for m in range(metrics)]
    heard = [_heard(source.name, said) for source in sources]
    lengthscale = torch.stack([_common_lengthscale(row, heard, filling) for row in owns])
    points = torch.cat([source.x for source in sources])
    inducing = choose(torch.cat([points, filling]), lengthscale, MOST_POINTS)
    shape = (metrics, len(sources))
    spread, nugget, skill = (filling.new_zeros(shape) for _ in range(3))
    known = torch.zeros(shape, dtype=torch.bool)
    m = len(inducing.z)
    precision, information = filling.new_zeros(*shape, m, m), filling.new_zeros(*shape, m)
    for i, row in enumerate(owns):
        for j, own in enumerate(row):
            if own is None:
                continue
            at = lengthscale[i : i + 1]
            amplitude, nugget[i, j] = _amplitude(own, at)
            found = _reduced(own, inducing, i, amplitude, float(nugget[i, j]))
            left, size = said.belief.get(sources[j].name, 1.0), 1.0
            for columns, part in said.apart.get(sources[j].name, ()):
                # How far a function spreads where the parameter stands still: what it does along
                # it is no measure of anything then.
                size *= _spread_at(found, inducing, i, columns, said.base) ** (1 - part)
                found = without(found, inducing, i, columns, said.base, part)
            found = Reduced(found.precision * size**2, found.information * size, found.constant)
            amplitude *= size**2
            precision[i, j], information[i, j] = left * found.precision, left * found.information
            spread[i, j], skill[i, j] = amplitude**0.5 * own.scale, heard[j] * own.skill
            known[i, j] = left > 0
    spectra = spectrum(Reduced(precision, information, precision.new_zeros(shape)))
    alone = torch.where(known, coregionalization.MEDIAN, 0.0).to(spread)
    share = alone
    if len(sources) > 1:
        share = coregionalization.coherence(spectra, known)
        by = torch.where(known, coregionalization.scales(spectra, share), 1.0)
        spectra, spread = coregionalization.scaled(spectra, by), spread * by
        share = coregionalization.coherence(spectra, known)
    names = tuple(source.name for source in sources)
    pinned = spread.new_tensor([said.pin.get(name, torch.nan) for name in names])
    share = torch.where(
        known & pinned.isfinite(), pinned.sqrt().nan_to_num().clamp(max=0.99), share
    )
    rows = tuple(len(source.x) for source in sources)
    return Family(
        names, inducing, spectra, spread, nugget, share, skill, known, points, rows, pinned
    )


def own_posterior(source: Aligned) -> Posterior:
    """A source's posterior by itself, from its most informative settings.

    Raises:
        FitError: a metric that was never observed, or too few settings that differ by more than
            their noise.
    """
    rows = torch.arange(len(source.x))
    if len(rows) >= _LEAST_ROWS:
        usual = default_hyperparameters(1, source.x.shape[1], source.x)
        signal = source.mean.nan_to_num().var(0).clamp_min(1e-300)
        noise = (source.var / signal).mean(1)
        rows = most_informative(source.x, noise, usual.lengthscale, KEPT_ROWS)
    if len(rows) < _LEAST_ROWS:
        raise FitError(
            f"{len(rows)} settings of {source.name!r} differ by more than their noise; at least "
            f"{_LEAST_ROWS} are needed"
        )
    return Surrogate().fit(source.x[rows], source.mean[rows], source.var[rows])


def _own(source: Aligned, metric: int) -> _Own | None:
    """A source's own fit of one metric; None where it has too little evidence for any.

    Settings that differ by no more than their noise are none: they say that nothing was seen, not
    that there is nothing.
    """
    mean, var = source.mean[:, metric], source.var[:, metric]
    rows = (mean.isfinite() & var.isfinite()).nonzero().flatten()
    if len(rows) < _LEAST_ROWS:
        return None
    x, mean, var = source.x[rows], mean[rows], var[rows]
    usual = default_hyperparameters(1, x.shape[1], x)
    signal = mean.var().clamp_min(1e-300)
    order = most_informative(x, var.clamp_min(1e-6 * signal) / signal, usual.lengthscale, KEPT_ROWS)
    if len(order) < _LEAST_ROWS:
        return None
    x, mean, var = x[order], mean[order], var[order]
    few = slice(0, FITTED_ROWS)
    fitted = Surrogate().fit(x[few], mean[few].unsqueeze(1), var[few].unsqueeze(1))
    shift, scale = (float(value) for value in fitted.standardiser)
    y, noise = (mean - shift) / scale, (var / scale**2).clamp_min(_NOISE_FLOOR)
    plain = _predicted_by_constant(y[few], noise[few])
    skill = max(0.0, (float(fitted.leave_one_out()) - plain) / len(y[few]))
    return _Own(x, y, noise, scale, fitted.hyperparameters.lengthscale[0], skill)


def _predicted_by_constant(y: Tensor, noise: Tensor) -> float:
    """Log density of rows that differ by chance alone, each left out, with the best spread."""
    spreads = torch.logspace(-2, 1, 13, dtype=y.dtype, device=y.device)
    total = noise + spreads.unsqueeze(-1)
    weight = 1 / total
    rest = weight.sum(-1, keepdim=True) - weight
    centre = ((weight * y).sum(-1, keepdim=True) - weight * y) / rest
    spread = total + 1 / rest
    density = -0.5 * ((y - centre).square() / spread + (2 * torch.pi * spread).log())
    return float(density.sum(-1).max())


def _heard(name: str, said: SourceBeliefs) -> float:
    """How much a source has to say about what functions are like: their size and lengthscales.

    Its own fit does not tell what comes from a parameter that is not believed.
    """
    return said.belief.get(name, 1.0) * math.prod(part for _, part in said.apart.get(name, ()))


def _common_lengthscale(
    owns: Sequence[_Own | None], heard: Sequence[float], like: Tensor
) -> Tensor:
    """The average of the sources' logarithms, by skill, and the prior's median as one more."""
    usual = default_hyperparameters(1, like.shape[1], like).lengthscale[0].log()
    total, weight = 0.1 * usual, 0.1
    for own, left in zip(owns, heard):
        if own is not None:
            total = total + left * own.skill * own.lengthscale.log()
            weight = weight + left * own.skill
    return (total / weight).exp()


def _amplitude(own: _Own, lengthscale: Tensor) -> tuple[float, float]:
    """Variance of the function and the nugget's part of it, the most probable of a grid."""
    few = slice(0, FITTED_ROWS)
    x, y, noise = own.x[few], own.y[few], own.noise[few]
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
    found = -0.5 * half.square().sum((-2, -1)) - volume
    part = nuggets / (1 + nuggets)
    total = sizes[..., 0, 0].unsqueeze(-1) * (1 + nuggets)
    found = found - 0.5 * (part / _NUGGET_SPREAD).square() - 0.5 * total.log().square() / 1.0
    best = int(found.argmax())
    i, j = divmod(best, len(_NUGGETS))
    return _AMPLITUDES[i], _NUGGETS[j]


def _spread_at(
    found: Reduced, inducing: Inducing, metric: int, columns: slice, base: Tensor
) -> float:
    """Standard deviation of a function over points with these coordinates as in the base.

    In units of its spread over the whole space, by what the evidence says.
    """
    at = inducing.project(_at_base(inducing, columns, base))[metric]
    unit = torch.eye(len(found.precision), dtype=at.dtype, device=at.device)
    covariance = torch.linalg.inv(unit + found.precision)
    mean = at @ (covariance @ found.information)
    rest = (1.0 - at.square().sum(-1)).clamp_min(0.0)
    unknown = ((at @ covariance) * at).sum(-1) + rest
    return float((mean.var() + unknown.mean()).sqrt().clamp(_LEAST_SPREAD, 1.0))


def _at_base(inducing: Inducing, columns: slice, base: Tensor) -> Tensor:
    moved = inducing.z.clone()
    moved[:, columns] = base[columns]
    distinct: Tensor = torch.unique(moved, dim=0)
    return distinct


def without(
    found: Reduced, inducing: Inducing, metric: int, columns: slice, base: Tensor, part: float
) -> Reduced:
    """A part of what is said about these coordinates; the rest only where they are the base's.

    What a source says about the *other* parameters holds where this one stands as in the target's
    base: whatever it does to the metric elsewhere is left open.
    """
    less = at_points(found, inducing.project(_at_base(inducing, columns, base))[metric])
    return Reduced(
        part * found.precision + (1 - part) * less.precision,
        part * found.information + (1 - part) * less.information,
        found.constant,
    )


def _reduced(
    own: _Own, inducing: Inducing, metric: int, amplitude: float, nugget: float
) -> Reduced:
    at = Inducing(
        inducing.z, inducing.lengthscale[metric : metric + 1], inducing.root[metric : metric + 1]
    )
    noise = own.noise / amplitude + nugget
    projected = at.project(own.x)[0]
    return reduce(projected, own.y / amplitude**0.5, noise, None, OFFSET_VAR)
