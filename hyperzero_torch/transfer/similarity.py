"""How alike domains are: by what they are like, and by what their evidence says.

    by features   exp(-d),  d^2 = mean over common features of ((a - b) / scale)^2
    by evidence   correlation over the space of the two domains' true functions, as far as known

Both can be looked at (``table``, ``plot``) and overruled (``overrule.ExpertOverride``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from . import checks, features
from .model.source_posterior import Alone

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Domains that a kind's own spread counts for against the spread among the domains at hand.
_PRIOR_DOMAINS = 5.0
# Fewest domains from which the spread of a feature is taken where nothing is known beforehand.
_FEWEST = 4
# Beyond it squares of differences, and sums of them, are no finite numbers.
_WILD = 1e100
# Of a Gaussian: standard deviation over median absolute deviation.
_GAUSSIAN = 1.4826

Cell: TypeAlias = str | float | int | None


class ByFeatures(NamedTuple):
    """``value (domains, domains)`` in (0, 1], NaN where two have no feature in common.

    ``num_common (domains, domains)`` counts the features that a value rests on, ``scale`` is the
    difference of each that counts as one, ``left_out`` says why a feature was not used.
    """

    names: tuple[str, ...]
    value: Tensor
    num_common: Tensor
    scale: Mapping[str, float]
    left_out: Mapping[str, str]


class ByEvidence(NamedTuple):
    """Correlation of two domains' functions, each field ``(domains, domains, metrics)``.

    ``mean`` and ``std`` of its posterior, ``low`` and ``high`` its central interval; ``of_means``
    is the correlation of the two posterior means alone, which knows nothing of their errors. NaN
    for a domain without evidence on a metric.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    of_means: Tensor


def by_features(
    domains: Mapping[str, Mapping[str, float]], scales: Mapping[str, float] | None = None
) -> ByFeatures:
    """Similarity by meta-features, scaled robustly across the domains.

    The scale of a feature is 1.4826 times its median absolute deviation across the domains,
    pooled with the spread that is usual for its kind, which counts for five domains: two or three
    domains cannot say by themselves what is far. A feature of your own has no usual spread unless
    ``scales`` gives one; without, it needs four domains that do not mostly agree, or is left out.

    Args:
        domains: meta-features by domain; what one does not have is compared among the others.
        scales: a noticeable difference by feature, over the usual one.
    Raises:
        ConfigError: no domain, a feature that is not finite or beyond 1e100, a scale that is not
            above 0.
    Source: Hampel (1974), the median absolute deviation; Laplace kernel.
    """
    flaws = checks.Flaws("these meta-features")
    if not isinstance(domains, Mapping):
        flaws.add(f"expected meta-features by domain, a mapping, got {checks.brief(domains)}")
        flaws.throw()
    if not domains:
        flaws.add("there is no domain")
    known = {d: checks.floats(flaws, f"features of {d!r}", f) for d, f in domains.items()}
    wanted = checks.floats(flaws, "scales", {} if scales is None else scales)
    if low := [name for name, value in wanted.items() if not 1 / _WILD <= value <= _WILD]:
        flaws.add(f"scales must lie between {1 / _WILD:g} and {_WILD:g}: {checks.shown(low)}")
    for domain, own in known.items():
        if wild := [name for name, value in own.items() if abs(value) > _WILD]:
            flaws.add(
                f"features of {domain!r} must lie within +-{_WILD:g}, or nothing can be said of "
                f"their distance: {checks.shown(wild)}; take logarithms"
            )
    flaws.throw()
    names = tuple(known)
    all_features = sorted({name for f in known.values() for name in f})
    scale: dict[str, float] = {}
    left_out: dict[str, str] = {}
    total, common = torch.zeros(2, len(names), len(names), dtype=torch.float64).unbind(0)
    for feature in all_features:
        column = torch.tensor([known[d].get(feature, math.nan) for d in names], dtype=torch.float64)
        found = _scale(column, wanted.get(feature, features.spread_of(feature)))
        if isinstance(found, str):
            left_out[feature] = found
            continue
        scale[feature] = found
        apart = ((column.unsqueeze(1) - column) / found).square()
        common += (~apart.isnan()).double()
        total += apart.nan_to_num(0.0)
    value = torch.where(common > 0, (-(total / common.clamp_min(1)).sqrt()).exp(), torch.nan)
    return ByFeatures(names, value, common.long(), scale, left_out)


def _scale(column: Tensor, usual: float | None) -> float | str:
    """The difference that counts as one, or why there is none."""
    seen = column[~column.isnan()]
    if len(seen) < 2:
        return "only one domain has it"
    robust = _GAUSSIAN * float((seen - _median(seen)).abs().quantile(0.5))
    if usual is not None:
        pooled = _PRIOR_DOMAINS * usual**2 + len(seen) * robust**2
        return math.sqrt(pooled / (_PRIOR_DOMAINS + len(seen)))
    if len(seen) < _FEWEST:
        return f"{len(seen)} domains do not say what is far; give its scale"
    return robust if robust > 0 else "most domains agree on it; give its scale"


def _median(values: Tensor) -> Tensor:
    return values.quantile(0.5)


def by_evidence(
    domains: Mapping[str, Alone],
    metrics: Sequence[str],
    points: Tensor,
    generator: torch.Generator,
    num_draws: int = 256,
    confidence: float = 0.9,
) -> ByEvidence:
    """How alike domains behave, as far as their evidence can say.

    Of every domain, joint draws of its function are taken at common points; each pair of draws has
    a correlation over the points, and these are the posterior of the true correlation. A domain of
    which little is known correlates with nothing, and surely with nothing: its interval is wide.
    Offsets and scales of a domain do not matter, so deltas against different controls compare.

    Args:
        domains: what each has learned; see ``alone.learn_alone``. A metric that it does not know
            is NaN with all others.
        metrics: to compare.
        points: ``(N, dims)`` in the target's unit cube, at least 3, e.g. ``space.sobol(256, 0)``.
        generator: of the draws.
        num_draws: pairs of draws.
        confidence: of the interval from ``low`` to ``high``.
    Raises:
        ConfigError: no domain, no metric, too few points or draws.
    """
    flaws = checks.Flaws("this comparison")
    if not domains or not metrics:
        flaws.add("there is no domain, or no metric")
    if points.ndim != 2 or len(points) < 3:
        flaws.add(f"points must be (N, dims) with at least 3 of them, got {tuple(points.shape)}")
    if num_draws < 2 or not 0 < confidence < 1:
        flaws.add(f"num_draws >= 2 and 0 < confidence < 1, got {num_draws} and {confidence}")
    flaws.throw()
    # An independent draw for each side of every pair: one domain's second half meets another's
    # first, so that a domain is also compared with itself as with a stranger of its kind.
    draws, means = [], []
    for posterior, known in domains.values():
        paths = posterior.paths(2 * num_draws, generator=generator)(points)
        columns = [known.index(m) if m in known else -1 for m in metrics]
        draws.append(_columns(_standard(paths.transpose(1, 2)), columns))  # (2 draws, metrics, N)
        means.append(_columns(_standard(posterior.marginal(points)[0].T), columns))
    num = len(draws)
    shape = (num, num, len(metrics))
    fields = torch.full((5, *shape), torch.nan, dtype=torch.float64)
    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    for i in range(num):
        for j in range(i + 1):
            pairs = (draws[i][:num_draws] * draws[j][num_draws:]).sum(-1)  # (draws, metrics)
            low, high = torch.quantile(pairs, tail.to(pairs), dim=0)
            found = (pairs.mean(0), pairs.std(0), low, high, (means[i] * means[j]).sum(-1))
            fields[:, i, j] = fields[:, j, i] = torch.stack(found).cpu().double()
    return ByEvidence(tuple(domains), tuple(metrics), *fields.unbind(0))


def _columns(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Rows of the axis before the last, NaN for -1."""
    unknown = torch.full_like(values[..., :1, :], torch.nan)
    return torch.cat([values, unknown], -2)[..., list(columns), :]


def _standard(values: Tensor) -> Tensor:
    """Rows of mean 0 and length 1 along the last axis; NaN where a row is constant."""
    centred = values - values.mean(-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, centred / length, torch.nan)


def table(
    features: ByFeatures | None = None, evidence: ByEvidence | None = None
) -> list[dict[str, Cell]]:
    """A row for each pair of domains: both similarities, and what they rest on.

    Raises:
        ConfigError: the two are about different domains.
    """
    rows: list[dict[str, Cell]] = []
    names = _names(features, evidence)
    for j, second in enumerate(names):
        for i, first in enumerate(names[:j]):
            row: dict[str, Cell] = {"domain": first, "other": second}
            if features is not None:
                row["features"] = _number(features.value[i, j])
                row["num_common"] = int(features.num_common[i, j])
            if evidence is not None:
                for m, metric in enumerate(evidence.metrics):
                    for field in ("mean", "std", "low", "high"):
                        row[f"{field}:{metric}"] = _number(getattr(evidence, field)[i, j, m])
            rows.append(row)
    return rows


def _names(features: ByFeatures | None, evidence: ByEvidence | None) -> tuple[str, ...]:
    given = [s.names for s in (features, evidence) if s is not None]
    if not given or any(names != given[0] for names in given):
        raise ConfigError(f"expected similarities of the same domains, got {given}")
    return given[0]


def _number(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


def heat_map(similarity: ByFeatures | ByEvidence, metric: str | None = None) -> dict[str, Any]:
    """A figure as plotly.js takes it, ``{"data": [...], "layout": {...}}``; needs no plotly.

    Args:
        similarity: by features, or by evidence: then of ``metric`` (the first by default), with
            its interval in every cell.
        metric: which.
    Raises:
        ConfigError: an unknown metric, or any of a similarity by features, which is of whole
            domains; or what is no similarity.
    """
    if not isinstance(similarity, ByFeatures | ByEvidence):
        raise ConfigError(
            f"expected what by_features or by_evidence returned, got {type(similarity).__name__}"
        )
    if isinstance(similarity, ByFeatures):
        if metric is not None:
            raise ConfigError(
                f"a similarity by features is of whole domains, not of a metric, got {metric!r}; "
                "leave it out, or give a similarity by evidence"
            )
        value, low, title = similarity.value, 0.0, "similarity by meta-features"
        text = [[_shown(v) for v in row] for row in value.tolist()]
    else:
        metric = similarity.metrics[0] if metric is None else metric
        if metric not in similarity.metrics:
            raise ConfigError(f"no metric {metric!r}, only {list(similarity.metrics)}")
        at = similarity.metrics.index(metric)
        value, low = similarity.mean[..., at], -1.0
        title = f"correlation of {metric} by evidence"
        ends = zip(similarity.low[..., at].tolist(), similarity.high[..., at].tolist())
        text = [
            [f"{_shown(v)}<br>{_shown(a)} to {_shown(b)}" for v, a, b in zip(row, lows, highs)]
            for row, (lows, highs) in zip(value.tolist(), ends)
        ]
    labels = [_inert(name) for name in similarity.names]
    trace = {
        "type": "heatmap", "x": labels, "y": labels, "text": text, "texttemplate": "%{text}",
        "z": [[None if math.isnan(v) else v for v in row] for row in value.tolist()],
        "zmin": low, "zmax": 1.0, "colorscale": "RdBu" if low < 0 else "Blues",
        "hoverongaps": False,
    }  # fmt: skip
    axis = {"type": "category", "autorange": "reversed", "automargin": True}
    layout = {"title": {"text": _inert(title)}, "yaxis": axis, "xaxis": {"type": "category"}}
    return {"data": [trace], "layout": layout}


def plot(similarity: ByFeatures | ByEvidence, metric: str | None = None) -> go.Figure:
    """``heat_map`` as a plotly figure, to show in a notebook or save.

    Raises:
        MissingExtraError: plotly is not installed.
        ConfigError: an unknown metric.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise MissingExtraError("a plot of similarities", "plotly", "report") from None
    return go.Figure(heat_map(similarity, metric))


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"


def _inert(text: str) -> str:
    """A user's name without tags, entities or templates, which plotly would render."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%", "&#37;")):
        text = text.replace(raw, safe)
    return text
