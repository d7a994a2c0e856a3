"""The sections on what was believed hour by hour, and on how well it foretold what came."""

from __future__ import annotations

from ...study.history import CONTROL
from ..data import calibration as calibrated
from ..data import round_rows
from ..data.facts import Facts
from ..data.retrospect import FIRST, Past
from ..data.tables import Kind, name_of, slack_kind
from ..figures import candidate_plots, marks, round_plots
from ..figures.canvas import BLUE, GREEN, MUTED, SHAPES, SPOTS, VERMILLION, Key
from .blocks import Block, Plot, Section, nothing_known

_MOST_GUARDRAILS = 8  # that are drawn by hour
_EDGE = 1.96


def by_hour(facts: Facts, past: Past) -> Section:
    """Gain and guardrails by hour: as believed, and where a simulation knows it, in truth."""
    blocks: list[Block] = _truth(facts) if facts.records else []
    blocks += _believed(facts, past) if past.moments else [nothing_known(facts)]
    return Section("progress", "Gain and guardrails by hour", blocks)


def _truth(facts: Facts) -> list[Block]:
    rows = round_rows.progress(facts)
    oracle = None if facts.oracle is None else facts.oracle.gain
    recommended = Key("recommended", VERMILLION, "solid")
    gain_keys = (recommended,) if oracle is None else (recommended, Key("oracle", GREEN, "dashed"))
    violation_keys = (recommended, Key("average over all traffic", BLUE, "dotted"))
    x = rows.column("round")
    gain = marks.put(facts, round_plots.gain_by_round(rows, oracle), x)
    violation = marks.put(facts, round_plots.violation_by_round(rows), x)
    lead = "The truth about the candidate that was recommended in each round."
    lead += round_rows.in_words([r.round for r in facts.records], "the last of each is drawn")
    known = marks.keys(facts)
    return [
        lead,
        Plot("True gain", gain, rows, (*gain_keys, *known), is_wide=False),
        Plot("True violation", violation, rows, (*violation_keys, *known), is_wide=False),
    ]


def _believed(facts: Facts, past: Past) -> list[Block]:
    watched = facts.watched
    assert watched is not None  # else there are no moments
    name = name_of(watched)
    who = "which is recommended" if facts.best.candidate_id != CONTROL else "the one to watch"
    lead = (
        f"What was to be believed of {name}, {who}, before each round, with "
        f"{facts.config.confidence:.0%} bands; stars are the gains of what would have been "
        "recommended then. Computed today, from the readings of all earlier rounds whenever they "
        "came, with today's kernel."
    )
    if len(past.moments) - 1 < past.num_rounds:
        num = len(past.moments) - 1
        lead += (
            f" Drawn are {num} of the {past.num_rounds} rounds whose deltas are kept one by one."
        )
    rows = round_rows.believed(facts, past)
    x = rows.column("round")
    names, known = facts.problem.constraint_names, marks.keys(facts)
    if len(names) > _MOST_GUARDRAILS:
        lead += f" Drawn are the first {_MOST_GUARDRAILS} of {len(names)} guardrails."
    keys = (Key(name, BLUE, "solid"), Key("recommended then", VERMILLION, "star"), *known)
    drawn = round_plots.believed_by_round(rows, "", "signed", "gain over base")
    shown: list[tuple[str, str, Kind]] = [
        (f"Slack of {guardrail}", f"s{i}", slack_kind(facts, i))
        for i, guardrail in list(enumerate(names))[:_MOST_GUARDRAILS]
    ]
    blocks: list[Block] = [lead]
    title = f"Gain over base, {name}"
    blocks.append(Plot(title, marks.put(facts, drawn, x), rows, keys, is_wide=not shown))
    for title, key, kind in shown:
        drawn = round_plots.believed_by_round(rows, key, kind, "slack (broken below 0)")
        drawn = marks.put(facts, drawn, x)
        keys = (Key(name, BLUE, "solid"), *known)
        blocks.append(Plot(title, drawn, rows, keys, is_wide=False))
    return blocks


def calibration(facts: Facts, past: Past) -> Section:
    """Whether its uncertainty tells the truth."""
    title = "Does the uncertainty tell the truth?"
    rows = calibrated.coverage(facts, past)
    most = max((float(n or 0) for n in rows.column("num")), default=0.0)
    if not most:
        why = f"Nothing to compare yet: the first {FIRST} rounds are left out, since the noise is "
        return Section("calibration", title, [f"{why}not known well enough in them."])
    compared = sum(moment.z is not None for moment in past.moments)
    lead = (
        f"The new deltas of {compared} rounds against what the rounds before them foretold, in "
        "units of the predicted spread, each freed of what the other arms of its round explain "
        "(they share one control). Where belief and noise are as claimed, these residuals have "
        "mean 0 and spread 1, and 95 % of them lie within ±1.96. Kernel and noise are today's; "
        f"the first {FIRST} rounds are left out."
    )
    metrics = facts.problem.metrics
    if len(metrics) > len(candidate_plots.METRIC_LOOKS):
        lead += (
            f" Drawn are the first {len(candidate_plots.METRIC_LOOKS)} of {len(metrics)} metrics."
        )
    level = [float(v) for v in calibrated.CURVE]
    lucky = [calibrated.luck(v, int(most)) for v in level]
    curve = calibrated.curve(facts, past)
    drawn = candidate_plots.coverage_curve(
        curve, [low for low, _ in lucky], [high for _, high in lucky]
    )
    looks = list(zip(metrics, candidate_plots.METRIC_LOOKS))
    lines = [Key(m, color, SHAPES.get(dash, "dashed")) for m, (color, dash, _) in looks]
    lines += [Key("as claimed", MUTED, "dotted"), Key("by luck, 95 %", MUTED, "solid")]
    each = []
    stride = -(-int(most) // calibrated.MOST_POINTS)
    for m, (name, _) in enumerate(looks):
        rounds, z = calibrated.residuals(past, m)
        each.append((name, rounds[::stride], z[::stride].tolist()))
    if stride > 1:
        lead += f" Of the residuals one in {stride} is drawn; all are counted."
    by_round = calibrated.by_round(facts, past)
    spread = round_plots.residuals_by_round(each, _EDGE)
    spread = marks.put(facts, spread, by_round.column("round"))
    spots = [Key(m, color, SPOTS[symbol]) for m, (color, _, symbol) in looks]
    spots += [Key("95 % lie within", MUTED, "dashed"), *marks.keys(facts)]
    return Section(
        "calibration",
        title,
        [
            lead,
            Plot("Coverage", drawn, rows, tuple(lines), is_wide=False),
            Plot("Residuals by round", spread, by_round, tuple(spots), is_wide=False),
        ],
    )
