"""The section on transfer: what was taken over from other domains, why, and what it was worth."""

from __future__ import annotations

from ...transfer.decision import weight
from ..data import transfer_rows
from ..data.decisions import cut, head
from ..data.facts import Facts
from ..data.tables import Table, as_cell, show
from ..domains import alike_by_features
from ..figures import marks, transfer_plots
from ..figures.candidate_plots import METRIC_LOOKS
from ..figures.canvas import MUTED, Key
from .blocks import Block, Plot, Section, Sheet, Tile

_TITLE = "Transfer from other domains"


def transfer(facts: Facts) -> list[Section]:
    """Nothing for a study without sources."""
    if facts.known.prior is None:
        return []
    looks = transfer_rows.by_features(facts)
    rows = transfer_rows.by_round(facts)
    told = transfer_rows.decisions(facts)
    blocks: list[Block] = [
        _tiles(facts, rows),
        "Sources are believed only as far as their word on this study's own evidence has come "
        "true; where they are not admitted, or predict left-out evidence worse in a metric, the "
        "plan is that of a cold start.",
        Sheet("Sources, and what they may be used for", transfer_rows.sources(facts), True),
        Sheet("How alike the domains are", transfer_rows.similarities(facts, looks), True),
    ]
    if looks is not None:
        blocks.append(alike_by_features(looks))
    carried = transfer_rows.parameters(facts)
    if carried.rows:
        blocks.append(
            "Which parameters carry over: nats by which this study's evidence is predicted worse "
            "without what the sources say about a parameter; below 0 their word on it misleads."
        )
        blocks.append(Sheet("What each parameter carries over", carried, True))
    if rows.rows:
        blocks += _by_round(facts, rows)
    else:
        blocks.append("No round has weighed the sources yet: this study has no evidence so far.")
    blocks.append(
        "Each change of mind, with its reason and what was not done; hyperzero explain tells of "
        f"any round.{cut(told)}"
    )
    blocks.append(Sheet("Decisions, and the alternative not taken", head(told), True))
    suggested = transfer_rows.suggestions(facts)
    if suggested.rows:
        title = "Candidates that other domains suggested"
        blocks.append(Sheet(title, head(suggested), True))
    said = transfer_rows.overrules(facts)
    if said.rows:
        blocks.append(Sheet("Overruled by people", head(said), True))
    else:
        blocks.append("Nobody has overruled what was computed.")
    blocks.append(Sheet("When to refresh a source", transfer_rows.criteria(facts), True))
    return [Section("transfer", _TITLE, blocks)]


def _tiles(facts: Facts, rows: Table) -> list[Tile]:
    given = transfer_rows.given(facts)
    judged = transfer_rows.judged(facts)
    tiles = [Tile("Sources", str(len(given)), "domains that the study may learn from")]
    if not judged:
        return [*tiles, Tile("Taken over", "nothing", "nothing was weighed yet")]
    _, told = judged[-1]
    metrics = ", ".join(told["metrics"])
    tiles.append(Tile("Taken over", metrics if told["used"] else "nothing", told["reason"]))
    weights = {g.source.name: weight(told, g.source.name) for g in given}
    if told["used"]:
        first = max(weights, key=lambda name: weights[name])
        tiles.append(Tile("Weighs most", first, f"weight {show(weights[first], 'prob')}"))
    held = [
        (float(one["transferred"]) - float(one["cold"]), name)
        for name, one in told.get("held_out", {}).items()
    ]
    if held:
        worst, name = min(held)
        note = (
            f"nats by which left-out evidence on {name}, the metric that gains least, is predicted "
            "better than from a cold start"
        )
        tiles.append(Tile("Least held-out gain", f"{worst:+.2f}", note))
    if "wealth" in told:
        note = f"log wealth of the bets on the sources; needed to count: {told['needed']:.2f}"
        tiles.append(Tile("Bets", show(as_cell(told["wealth"]), "number"), note))
    used = sum(f["used"] for _, f in judged)
    tiles.append(Tile("Rounds", f"{used} of {len(judged)}", "planned with the sources' help"))
    return tiles


def _by_round(facts: Facts, rows: Table) -> list[Block]:
    """Plots of what the decisions rest on; each holds all the numbers by round."""
    x = rows.column("round")
    more = marks.keys(facts)
    found: list[Block] = []
    lead = f"The empirical side, by round: {len(rows.rows)} rounds have weighed the sources."
    if len(transfer_rows.judged(facts)) > len(rows.rows):
        lead = f"The empirical side, by round: the latest {len(rows.rows)} are drawn."
    if len(transfer_rows.given(facts)) > transfer_plots.MOST_DRAWN:
        lead += f" Lines are drawn for {transfer_plots.MOST_DRAWN} sources; the tables hold all."
    found.append(lead)
    if any(w is not None for w in rows.column("wealth")):
        drawn = marks.put(facts, transfer_plots.bets_by_round(rows), x)
        bets = Key("log wealth of the bets", METRIC_LOOKS[0][0], "solid")
        needed = Key("needed to be admitted", MUTED, "dashed")
        found.append(Plot("Bets on the sources", drawn, rows, (bets, needed, *more), False))
    halves = len(found) - 1
    metrics = [(f"held:{m}", m) for m in facts.problem.metrics]
    metrics = [c for c in metrics if any(v is not None for v in rows.column(c[0]))]
    if metrics:
        y = {"title": "nats gained", "zeroline": True}
        drawn = marks.put(facts, transfer_plots.lines_by_round(rows, metrics, y), x)
        keys = (*transfer_plots.keys_of([n for _, n in metrics]), *more)
        title = "Left-out evidence: transferred against cold"
        found.append(Plot(title, drawn, rows, keys, is_wide=False))
        halves += 1
    names = _heaviest(facts, rows)
    columns = [(f"weight:{n}", n) for n in names]
    y = {"title": "weight", "tickformat": ".0%", "rangemode": "tozero"}
    drawn = marks.put(facts, transfer_plots.lines_by_round(rows, columns, y), x)
    keys = (*transfer_plots.keys_of(names), *more)
    found.append(Plot("Weight of each source", drawn, rows, keys, is_wide=halves % 2 == 0))
    return found


def _heaviest(facts: Facts, rows: Table) -> list[str]:
    """The sources that ever weighed most, as many as a plot tells apart."""
    names = [g.source.name for g in transfer_rows.given(facts)]
    peak = {n: max(float(w or 0.0) for w in rows.column(f"weight:{n}")) for n in names}
    return sorted(names, key=lambda n: -peak[n])[: transfer_plots.MOST_DRAWN]
