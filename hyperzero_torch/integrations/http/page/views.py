"""The parts of the page: what holds, why, health, traffic, P(best), rounds, journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..snapshot import DecisionRow, Line, Snapshot
from .markup import escape, percent, table, when

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
_GROUPS = {
    "control": "#7a808c",
    "recommended": "#009E73",
    "proven": "#0072B2",
    "exploring": "#E69F00",
}
_WIDTH, _HEIGHT = 720, 180


def glances(rows: Sequence[Mapping[str, Any]]) -> str:
    """All studies: PASS, WATCH or ACT, and the verdict."""
    order = {"ACT": 0, "WATCH": 1, "PASS": 2}
    items = "".join(
        f'<li class="{row["state"]}"><a href="/studies/{escape(row["id"])}">'
        f"<h2><i>{row['state']}</i> {escape(row['name'])}</h2></a>"
        f'<p>{escape(row["sentence"])}</p><p class="hint">{_progress(row)}</p></li>'
        for row in sorted(rows, key=lambda row: (order[row["state"]], str(row["name"])))
    )
    return f'<ul class="health studies">{items}</ul>'


def _progress(row: Mapping[str, Any]) -> str:
    if row["last_round"] is None:
        return "no round yet"
    return f"round {row['last_round']}, {escape(row['mode'])}"


def parts(snapshot: Snapshot) -> dict[str, str]:
    """The parts that change while somebody watches, by the ids of their elements."""
    return {
        "verdict": verdict(snapshot),
        "health": health(snapshot),
        "traffic": traffic(snapshot),
        "best": best(snapshot),
        "rounds": rounds(snapshot),
        "recent": decisions(snapshot.recent),
    }


def verdict(snapshot: Snapshot) -> str:
    """What holds, why, and where the study is."""
    shown = snapshot.verdict
    look = "launch" if shown.action == "launch" else shown.state
    lines = [f'<p class="sentence">{escape(shown.sentence)}</p>']
    lines += [f"<p>{escape(shown.why)}</p>"] if shown.why else []
    if shown.next_step and shown.action not in ("launch", "decide"):  # these are buttons
        lines.append(f"<p>Next: {escape(shown.next_step)}</p>")
    lines += [f"<p>{escape(line)}</p>" for line in snapshot.launch if line not in shown.sentence]
    planned = f", planned {when(snapshot.planned)}" if snapshot.planned else ""
    where = "no round yet" if snapshot.last_round is None else f"Round {snapshot.last_round}"
    part = snapshot.experiment_share
    users = f" {percent(part, 0)} of all users take part." if part < 1 else ""
    lines.append(
        f'<p class="hint">{where}{planned}. Mode: {escape(snapshot.mode)}. Served now: '
        f"{escape(snapshot.served)}.{users}</p>"
    )
    return (
        f'<div class="verdict {look}"><p class="badge"><i>{snapshot.verdict.state}</i></p>'
        f"{''.join(lines)}</div>"
    )


def health(snapshot: Snapshot) -> str:
    """A card for each part of the study's health."""
    items = "".join(
        f'<li class="{card.state}"><h3><i>{card.state}</i> {escape(card.name)}</h3>'
        f"<p>{escape(card.sentence)}{': ' + escape(card.advice) if card.advice else ''}</p></li>"
        for card in snapshot.health
    )
    return f'<ul class="health">{items}</ul>'


def traffic(snapshot: Snapshot) -> str:
    """The last plan by groups, as a bar, a list and a table of arms."""
    if not snapshot.traffic:
        return "<p>No round is planned yet.</p>"
    bars, at = [], 0.0
    for part in snapshot.traffic:
        width = 1000 * part.share
        bars.append(
            f'<rect x="{at:.2f}" y="0" width="{width:.2f}" height="26" '
            f'fill="{_GROUPS[part.name]}"/>'
        )
        at += width
    legend = "".join(
        f'<li><svg width="12" height="12" aria-hidden="true"><rect width="12" height="12" '
        f'fill="{_GROUPS[part.name]}"/></svg> {part.name} <b>{percent(part.share)}</b> '
        f"({part.arms} arm{'s' * (part.arms != 1)})</li>"
        for part in snapshot.traffic
    )
    words = ", ".join(f"{part.name} {percent(part.share)}" for part in snapshot.traffic)
    return (
        f'<svg class="bar" role="img" aria-label="Traffic: {words}" viewBox="0 0 1000 26" '
        f'preserveAspectRatio="none">{"".join(bars)}</svg><ul class="legend">{legend}</ul>'
        f"<details><summary>Arms of the last plan</summary>{_arms(snapshot)}</details>"
    )


def _arms(snapshot: Snapshot) -> str:
    rows = [
        (
            str(arm.candidate),
            arm.group,
            percent(arm.share, 2),
            "" if arm.gain is None else f"{100 * arm.gain:+.2f} %",
            "" if arm.prob_feasible is None else f"{arm.prob_feasible:.2f}",
            escape(", ".join(f"{name} {_value(v)}" for name, v in arm.parameters.items())),
        )
        for arm in snapshot.arms
    ]
    columns = ("Candidate", "Group", "Share", "Gain", "P(feasible)", "Parameters")
    num, shown = sum(part.arms for part in snapshot.traffic), len(rows)
    left = num - shown
    key = escape(snapshot.key)
    note = (
        f'<p class="hint">{left} more arms, with less traffic, are not shown; '
        f'<a href="/v1/studies/{key}/plan">the whole plan as JSON</a>.</p>'
        if left
        else ""
    )
    return table("Arms of the last plan", columns, rows, (2, 3, 4)) + note


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:60]


def best(snapshot: Snapshot) -> str:
    """P(best) of the leading candidates by round."""
    if not snapshot.lines:
        return "<p>There are not two rounds with draws yet.</p>"
    top = max(max(line.values) for line in snapshot.lines) or 1.0
    drawn = "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="2" '
        f'vector-effect="non-scaling-stroke" points="{_points(line, top)}"/>'
        for line, color in zip(snapshot.lines, _COLORS)
    )
    legend = "".join(
        f'<li><svg width="16" height="4" aria-hidden="true"><rect width="16" height="4" '
        f'fill="{color}"/></svg> candidate {line.candidate} <b>{percent(line.values[-1])}</b></li>'
        for line, color in zip(snapshot.lines, _COLORS)
    )
    first, last = snapshot.chart_rounds[0], snapshot.chart_rounds[-1]
    return (
        f'<svg class="chart" role="img" aria-label="P(best) by round, from round {first} to '
        f'{last}; the latest values follow" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none">{drawn}</svg>'
        f'<p class="hint">Rounds {first} to {last}; the top is {percent(top, 0)}. The share of the '
        f"draws of the model in which a candidate was the best feasible one.</p>"
        f'<ul class="legend">{legend}</ul>'
    )


def _points(line: Line, top: float) -> str:
    step = (_WIDTH - 4) / max(1, len(line.values) - 1)
    height = _HEIGHT - 8
    return " ".join(
        f"{2 + i * step:.1f},{_HEIGHT - 4 - height * value / top:.1f}"
        for i, value in enumerate(line.values)
    )


def rounds(snapshot: Snapshot) -> str:
    """The latest rounds with their dates."""
    rows = [
        (
            str(row.number),
            when(row.planned),
            str(row.arms),
            percent(row.control_share),
            str(row.waiting),
            escape(row.excluded),
        )
        for row in snapshot.rounds
    ]
    columns = ("Round", "Planned", "Arms", "Control", "Arms without readings", "Excluded because")
    return table("Rounds, the latest first", columns, rows, (2, 3, 4))


def decisions(rows: Sequence[DecisionRow]) -> str:
    """Decisions and remarks of the journal, newest first."""
    if not rows:
        return "<p>Nothing.</p>"
    cells = [
        (
            str(row.number),
            when(row.at),
            str(row.round),
            escape(row.kind),
            escape(row.by),
            escape(row.reason),
        )
        for row in rows
    ]
    columns = ("No.", "Time", "Round", "What", "By", "Reason")
    return table("Decisions and remarks, newest first", columns, cells, (2,))
