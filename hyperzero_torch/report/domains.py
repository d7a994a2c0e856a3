"""How alike domains are, as a page of its own: heat maps with their numbers."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from ..runtime.files import write_atomically
from ..transfer.similarity import ByEvidence, ByFeatures
from .data.tables import Kind, Table, table
from .figures import transfer_plots
from .html.page import check_place, load_plotly, render
from .sections.blocks import Block, Plot, Section, Sheet


def write_comparison(
    path: str | os.PathLike[str], features: ByFeatures, evidence: ByEvidence
) -> Path:
    """Write heat maps of both similarities as one self-contained HTML file.

    Args:
        path: of the file, in a folder that exists; a page that was there is replaced, nothing else.
        features: how alike the domains look.
        evidence: how alike they behave.
    Raises:
        ConfigError: the file cannot be written there.
        MissingExtraError: plotly is not installed.
    """
    path = Path(path)
    check_place(path, "page")
    plotly = load_plotly()
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"{len(features.names)} domains · {written}"
    write_atomically(
        path, render("Domains compared", subtitle, _sections(features, evidence), plotly)
    )
    return path


def _sections(features: ByFeatures, evidence: ByEvidence) -> list[Section]:
    lead = (
        "The correlation over the space of two domains' true deltas, as far as their evidence can "
        "say, with a 90 % interval: wide where either knows little. A domain meets itself through "
        "independent draws, so even there it is 1 only as far as its evidence is sure."
    )
    maps: list[Block] = [lead]
    maps += [_alike_by_evidence(evidence, m) for m in range(len(evidence.metrics))]
    scale = table(
        [("name", "feature", "text"), ("scale", "difference that counts as one", "number")],
        list(features.scale.items()),
    )
    looks: list[Block] = [
        "1 where two domains look the same, exp(-1) where they are apart by what counts as one on "
        "average over their features.",
        alike_by_features(features),
        Sheet("What the features are measured by", scale),
    ]
    if features.left_out:
        titles: list[tuple[str, str, Kind]] = [("name", "feature", "text"), ("why", "why", "text")]
        looks.append(Sheet("Features left out", table(titles, list(features.left_out.items()))))
    return [
        Section("evidence", "By what their evidence says", maps),
        Section("features", "By what they are like", looks),
    ]


def alike_by_features(found: ByFeatures) -> Plot:
    """A heat map of the similarities by features."""
    text = [[_shown(v) for v in row] for row in found.value.tolist()]
    drawn = transfer_plots.alike(found.names, found.value, text, signed=False)
    rows = _pairs(found.names, {"value": found.value, "common": found.num_common.double()},
                  {"value": "alike", "common": "features in common"})  # fmt: skip
    title = "Alike by what the domains are like"
    return Plot(title, drawn, rows, is_wide=True, min_width=_width(found.names))


def _alike_by_evidence(found: ByEvidence, metric: int) -> Plot:
    mean, low, high = (f[..., metric] for f in (found.mean, found.low, found.high))
    text = [
        [f"{_shown(v)}<br>{_shown(a)} to {_shown(b)}" for v, a, b in zip(*rows)]
        for rows in zip(mean.tolist(), low.tolist(), high.tolist())
    ]
    drawn = transfer_plots.alike(found.names, mean, text, signed=True)
    rows = _pairs(
        found.names,
        {"mean": mean, "low": low, "high": high, "std": found.std[..., metric]},
        {"mean": "correlation", "low": "low", "high": "high", "std": "standard deviation"},
    )
    title = f"{found.metrics[metric]}: correlation by evidence"
    return Plot(title, drawn, rows, is_wide=True, min_width=_width(found.names))


def _pairs(names: tuple[str, ...], values: dict[str, Tensor], labels: dict[str, str]) -> Table:
    """A row for each pair."""
    columns: list[tuple[str, str, Kind]] = [("one", "domain", "text"), ("other", "other", "text")]
    columns += [(key, label, "number") for key, label in labels.items()]
    rows = [
        (names[i], names[j], *(float(v[i, j]) for v in values.values()))
        for j in range(len(names))
        for i in range(j)
    ]
    return table(columns, rows)


def _width(names: tuple[str, ...]) -> int:
    """Below this the numbers in the cells would run into each other."""
    return 160 + 84 * len(names)


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
