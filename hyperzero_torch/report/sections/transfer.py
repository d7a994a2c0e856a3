"""The section on transfer: what was used from other domains, why, and its effect.

Also the page that compares domains: heat maps of their similarity, with the numbers.
"""

from __future__ import annotations

import math

from torch import Tensor

from ...transfer.decision import weight
from ...transfer.model.correlation import ByEvidence
from ...transfer.similarity import ByFeatures
from ..data import transfer_rows
from ..data.decisions import omitted
from ..data.facts import Facts
from ..data.tables import Table, Values, show, table
from ..figures import maps, round_plots
from ..figures.canvas import METRIC_LOOKS, MUTED, Key
from .blocks import Block, Plot, Section, Sheet, Tile, latest_first, limited, plot_by_round

_TITLE = "Transfer from other domains"


def transfer(facts: Facts) -> list[Section]:
    """No section for a study without sources."""
    if facts.model.prior is None:
        return []
    by_features = transfer_rows.by_features(facts)
    rows = transfer_rows.by_round(facts)
    blocks: list[Block] = [
        _tiles(facts, rows),
        "Sources count as far as they have predicted this study's own evidence. Where they are not "
        "admitted, or predict held-out evidence of a metric worse, plans use the study's own "
        "evidence only.",
        Sheet("Sources and their terms", transfer_rows.sources(facts), True),
        Sheet("Similarity of the sources", transfer_rows.similarities(facts, by_features), True),
    ]
    if by_features is not None:
        blocks.append(feature_map(by_features))
    parameters = transfer_rows.parameters(facts)
    if parameters.rows:
        blocks.append(
            "How much the sources help through each parameter: the log density of this study's "
            "evidence that is lost without what they say about it. Below 0 they mislead."
        )
        blocks.append(Sheet("Transfer by parameter", parameters, True))
    if rows.rows:
        blocks += _by_round(facts, rows)
    else:
        blocks.append("No round has weighed the sources yet: this study has no evidence so far.")
    decisions = transfer_rows.decisions(facts)
    blocks.append(
        "Each change of use with its reason. For any round: hyperzero explain." + omitted(decisions)
    )
    blocks.append(latest_first("Decisions and alternatives not taken", decisions))
    proposals = transfer_rows.proposals(facts)
    if proposals.rows:
        blocks.append(latest_first("Candidates proposed by sources", proposals))
    overrides = transfer_rows.overrides(facts)
    if overrides.rows:
        blocks.append(latest_first("Expert overrides", overrides))
    else:
        blocks.append("There are no expert overrides.")
    blocks.append(Sheet("When to refresh a source", transfer_rows.criteria(facts), True))
    return [Section("transfer", _TITLE, blocks)]


def _tiles(facts: Facts, rows: Table) -> list[Tile]:
    used = transfer_rows.used_sources(facts)
    traces = [trace for _, trace in transfer_rows.weighed_rounds(facts)]
    tiles = [Tile("Sources", str(len(used)), "domains whose evidence the study may use")]
    if not traces:
        return [*tiles, Tile("In use", "none", "sources have not been weighed yet")]
    latest = traces[-1]
    metrics = ", ".join(latest.metrics or ())
    tiles.append(Tile("In use for", metrics if latest.used else "no metric", latest.reason))
    if latest.used:
        weights = {u.source.name: weight(latest, u.source.name) for u in used}
        first = max(weights, key=lambda name: weights[name])
        tiles.append(Tile("Largest weight", first, f"weight {show(weights[first], 'prob')}"))
    held = [(h.transferred - h.cold, name) for name, h in latest.held_out.items()]
    if held:
        least, name = min(held)
        note = (
            f"nats gained over a cold start in predicting held-out evidence of {name}, the metric "
            "that gains least"
        )
        tiles.append(Tile("Least held-out gain", f"{least:+.2f}", note))
    if latest.log_e_value is not None:
        note = f"of the sources; they count from {show(latest.needed, 'number')} on"
        tiles.append(Tile("Log e-value", show(latest.log_e_value, "number"), note))
    num = sum(trace.used for trace in traces)
    return [*tiles, Tile("Rounds", f"{num} of {len(traces)}", "planned with sources")]


def _by_round(facts: Facts, rows: Table) -> list[Block]:
    """Plots of the evidence for the sources; each has the whole table by round."""
    num_sources = len(transfer_rows.used_sources(facts))
    total = len(transfer_rows.weighed_rounds(facts))
    lead = f"{total} rounds have weighed the sources."
    lead += limited(len(rows.rows), total, "rounds", ", the latest")
    lead += limited(round_plots.MOST_DRAWN, num_sources, "sources")
    blocks: list[Block] = [lead]
    if any(value is not None for value in rows.column("log_e_value")):
        drawn = round_plots.e_value_by_round(rows)
        keys = (
            Key("log e-value", METRIC_LOOKS[0][0], "solid"),
            Key("threshold for use", MUTED, "dashed"),
        )
        blocks.append(plot_by_round(facts, "Evidence for the sources", drawn, rows, keys, False))
    metrics = [(f"held:{m}", m) for m in facts.problem.metrics]
    metrics = [c for c in metrics if any(v is not None for v in rows.column(c[0]))]
    if metrics:
        y = {"title": "nats gained", "zeroline": True}
        drawn = round_plots.lines_by_round(rows, metrics, y)
        of_metrics = round_plots.keys_of([name for _, name in metrics])
        title = "Held-out evidence: with sources against without"
        blocks.append(plot_by_round(facts, title, drawn, rows, of_metrics, False))
    names = _heaviest(facts, rows)
    y = {"title": "weight", "tickformat": ".0%", "rangemode": "tozero"}
    drawn = round_plots.lines_by_round(rows, [(f"weight:{n}", n) for n in names], y)
    is_wide = len(blocks) % 2 == 1  # the plots before it fill their rows
    of_sources = round_plots.keys_of(names)
    title = "Weight of each source"
    return [*blocks, plot_by_round(facts, title, drawn, rows, of_sources, is_wide)]


def _heaviest(facts: Facts, rows: Table) -> list[str]:
    """The sources with the largest weights in any round, as many as are drawn."""
    names = [used.source.name for used in transfer_rows.used_sources(facts)]
    peak = {n: max(float(w or 0.0) for w in rows.column(f"weight:{n}")) for n in names}
    return sorted(names, key=lambda n: -peak[n])[: round_plots.MOST_DRAWN]


def comparison(features: ByFeatures, evidence: ByEvidence) -> list[Section]:
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
    drawn = maps.heat_map(names, value, text, signed)
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
