"""The similarity of domains: heat maps with their numbers, and the page that compares domains."""

from __future__ import annotations

import math

from torch import Tensor

from ...transfer.model.correlation import ByEvidence
from ...transfer.similarity import ByFeatures
from ..data.tables import Table, Values, table
from ..figures import transfer_plots
from .blocks import Block, Plot, Section, Sheet


def sections(features: ByFeatures, evidence: ByEvidence) -> list[Section]:
    """Similarity by evidence, then by features."""
    by_evidence: list[Block] = [
        "Correlation of two domains' true deltas over the space, as estimated from their evidence, "
        "with a 90 % interval. The interval is wide where a domain has little evidence. A domain "
        "is compared with itself through independent draws, so that cell too shows how much is "
        "known.",
        *(_evidence_map(evidence, m) for m in range(len(evidence.metrics))),
    ]
    scale = table(
        ("name", "feature", "text", features.scale),
        ("scale", "unit difference", "number", features.scale.values()),
    )
    by_features: list[Block] = [
        "1 where all features of two domains are equal; exp(-1) where they differ by one unit "
        "difference on average.",
        feature_map(features),
        Sheet("Scales of the features", scale),
    ]
    if features.left_out:
        names, reasons = features.left_out, features.left_out.values()
        rows = table(("name", "feature", "text", names), ("why", "reason", "text", reasons))
        by_features.append(Sheet("Features left out", rows))
    return [
        Section("evidence", "Similarity by evidence", by_evidence),
        Section("features", "Similarity by features", by_features),
    ]


def feature_map(by: ByFeatures) -> Plot:
    """A heat map of the similarities by features."""
    text = [[_shown(v) for v in row] for row in by.value.tolist()]
    pairs = _pairs(
        by.names, ("value", "similarity", by.value), ("common", "common features", by.num_common)
    )
    return _map("Similarity by features", by.names, by.value, text, pairs, signed=False)


def _evidence_map(by: ByEvidence, metric: int) -> Plot:
    mean, low, high, std = (f[..., metric] for f in (by.mean, by.low, by.high, by.std))
    text = [
        [f"{_shown(v)}<br>{_shown(a)} to {_shown(b)}" for v, a, b in zip(*rows)]
        for rows in zip(mean.tolist(), low.tolist(), high.tolist())
    ]
    pairs = _pairs(
        by.names,
        ("mean", "correlation", mean),
        ("low", "low", low),
        ("high", "high", high),
        ("std", "standard deviation", std),
    )
    title = f"{by.metrics[metric]}: correlation by evidence"
    return _map(title, by.names, mean, text, pairs, signed=True)


def _map(
    title: str,
    names: tuple[str, ...],
    value: Tensor,
    text: list[list[str]],
    pairs: Table,
    signed: bool,
) -> Plot:
    drawn = transfer_plots.heat_map(names, value, text, signed)
    # Narrower, the numbers in the cells would overlap.
    return Plot(title, drawn, pairs, min_width=160 + 84 * len(names))


def _pairs(names: tuple[str, ...], *values: tuple[str, str, Tensor]) -> Table:
    """A row for each pair of domains."""
    pairs = [(i, j) for j in range(len(names)) for i in range(j)]
    columns: list[Values] = [
        ("one", "domain", "text", [names[i] for i, _ in pairs]),
        ("other", "other domain", "text", [names[j] for _, j in pairs]),
    ]
    columns += [(key, name, "number", [value[p] for p in pairs]) for key, name, value in values]
    return table(*columns)


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
