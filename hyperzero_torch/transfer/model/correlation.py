"""How similar domains act: the correlation of their functions, as far as their evidence shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...errors import ConfigError
from .. import checks
from ..similarity import ByFeatures
from .source_posterior import SourcePosterior

Cell: TypeAlias = str | float | int | None


class ByEvidence(NamedTuple):
    """Correlation of two domains' functions, each field ``(domains, domains, metrics)``.

    ``mean`` and ``std`` of its posterior, ``low`` and ``high`` its central interval; ``of_means``
    is the correlation of the two posterior means, without their uncertainty. NaN for a domain
    without evidence on a metric.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    of_means: Tensor


def by_evidence(
    domains: Mapping[str, SourcePosterior],
    metrics: Sequence[str],
    points: Tensor,
    generator: torch.Generator,
    num_draws: int = 256,
    confidence: float = 0.9,
) -> ByEvidence:
    """Posterior of the correlation of each pair of domains, over points of the space.

    Joint draws of every domain's function are taken at common points. Each pair of draws has a
    correlation over the points; these are draws of the true correlation. A domain with little
    evidence has a wide interval around 0. The offset and the scale of a domain do not matter, so
    deltas against different controls can be compared.

    Args:
        domains: the posterior of each (``source_posterior.fit_source``). A metric that a domain
            does not have is NaN with all others.
        points: ``(N, dims)`` in the target's unit cube, at least 3, e.g. ``space.sobol(256, 0)``.
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
    # Independent draws on the two sides of every pair, also where a domain is compared with itself.
    draws, means = [], []
    for posterior, own_metrics in domains.values():
        paths = posterior.paths(2 * num_draws, generator=generator)(points)
        columns = [own_metrics.index(m) if m in own_metrics else -1 for m in metrics]
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
            of_means = (means[i] * means[j]).sum(-1)
            moments = torch.stack([pairs.mean(0), pairs.std(0), low, high, of_means])
            fields[:, i, j] = fields[:, j, i] = moments.cpu().double()
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
    """A row for each pair of domains, with both similarities.

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
