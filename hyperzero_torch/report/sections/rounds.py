"""The sections by round: gain and guardrails, traffic, calibration."""

from __future__ import annotations

from ...tuner.drift import NUM_WARM_UP
from ..data import calibration as residual_rows
from ..data import round_rows
from ..data.candidate_rows import slack_kind, slack_label, slacks_in_words
from ..data.facts import Facts
from ..data.retrospect import Retrospect
from ..data.tables import SIGMAS, in_words, name_of
from ..figures import candidate_plots, round_plots
from ..figures.canvas import BLUE, GREEN, METRIC_LOOKS, MUTED, SHAPES, SPOTS, VERMILLION, Key
from .blocks import Block, Plot, Section, limited, no_estimates, plot_by_round

_MOST_GUARDRAILS = 8  # that are drawn one by one


def progress(facts: Facts, past: Retrospect | None) -> Section:
    """Gain and guardrails by round: true values in a simulation, then estimates."""
    blocks: list[Block] = _truth(facts) if facts.records else []
    blocks += [no_estimates(facts)] if past is None else _estimates(facts, past)
    return Section("progress", "Gain and guardrails by round", blocks)


def _truth(facts: Facts) -> list[Block]:
    rows = round_rows.truth(facts)
    oracle = None if facts.oracle is None else facts.oracle.gain
    best = Key("recommended", VERMILLION, "solid")
    gain_keys = (best,) if oracle is None else (best, Key("oracle", GREEN, "dashed"))
    violation_keys = (best, Key("average over all traffic", BLUE, "dotted"))
    gain, violation = round_plots.gain_by_round(rows, oracle), round_plots.violation_by_round(rows)
    lead = "True values, known in a simulation, for the candidate recommended in each round."
    lead += in_words([r.round for r in facts.records], "the last round of each")
    return [
        lead,
        plot_by_round(facts, "True gain", gain, rows, gain_keys, is_wide=False),
        plot_by_round(facts, "True violation", violation, rows, violation_keys, is_wide=False),
    ]


def _estimates(facts: Facts, past: Retrospect) -> list[Block]:
    name, names = name_of(past.candidate), facts.problem.constraint_names
    rows = round_rows.estimates(facts, past)
    shown = names[:_MOST_GUARDRAILS]
    lead = (
        f"Estimates for {name}, {facts.role}, before each round, with "
        f"{facts.config.confidence:.0%} intervals. Stars mark the gain of the candidate that would "
        "have been recommended then. All are computed with the current model from the readings of "
        "the earlier rounds, whenever these arrived."
    )
    lead += limited(len(past.moments) - 1, past.num_rounds, "rounds whose deltas are kept")
    lead += limited(len(shown), len(names), "guardrails")
    lead += f" {slacks_in_words(facts)}" if names else ""
    key = Key(name, BLUE, "solid")
    keys = (key, Key("recommended then", VERMILLION, "star"))
    title = f"Estimated gain of {name} by round (current model)"
    drawn = round_plots.estimate_by_round(rows, "", "signed", "gain over base")
    blocks: list[Block] = [lead, plot_by_round(facts, title, drawn, rows, keys, not shown)]
    for i, guardrail in enumerate(shown):
        kind = slack_kind(facts, i)
        axis = slack_label(facts, i)
        drawn = round_plots.estimate_by_round(rows, f"s{i}_", kind, axis)
        title = f"Slack of {guardrail}"
        blocks.append(plot_by_round(facts, title, drawn, rows, (key,), is_wide=False))
    return blocks


def traffic(facts: Facts) -> Section:
    """Shares of the traffic by candidate."""
    rows = round_rows.traffic(facts)
    drawn, keys = round_plots.traffic_by_round(rows, name_of(facts.best.candidate_id))
    lead = "Planned share of the traffic by candidate; the control is at the bottom."
    lead += in_words(sorted(facts.history.plans), "averages, labelled by their first round")
    plot = plot_by_round(facts, "Share by round", drawn, rows, keys)
    return Section("traffic", "Traffic", [lead, plot])


def calibration(facts: Facts, past: Retrospect | None) -> Section:
    """Whether prediction intervals contain as many new deltas as they should."""
    coverage = None if past is None else residual_rows.coverage(facts, past)
    counts = [] if coverage is None else [int(n or 0) for n in coverage.column("num")]
    if past is None or coverage is None or not max(counts):
        first = (
            f"There are no residuals yet: the first {NUM_WARM_UP} rounds are left out, because "
            "their noise is not known well enough."
        )
        return Section("calibration", "Calibration", [first])
    most = max(counts)
    compared = sum(moment.z is not None for moment in past.moments)
    metrics = facts.problem.metrics
    looks = list(zip(metrics, METRIC_LOOKS))
    stride = -(-most // residual_rows.MOST_POINTS)
    lead = (
        f"New deltas of {compared} rounds against their predictions from the rounds before. "
        "Residuals are standardised by the predicted standard deviation, with the error taken out "
        "that arms share through the control. If the model is right they have mean 0 and standard "
        f"deviation 1, and 95 % lie within ±1.96. The model is the current one; the first "
        f"{NUM_WARM_UP} rounds are left out, because their noise is not known well enough."
    )
    lead += limited(len(looks), len(metrics), "metrics")
    if stride > 1:
        lead += f" One in {stride} residuals is drawn; all are counted."
    curve = residual_rows.curve(facts, past)
    bands = [residual_rows.sampling_interval(v, most) for v in residual_rows.CURVE]
    drawn = candidate_plots.coverage_curve(curve, [a for a, _ in bands], [b for _, b in bands])
    lines = [Key(m, color, SHAPES.get(dash, "dashed")) for m, (color, dash, _) in looks]
    lines.append(Key("ideal", MUTED, "dotted"))
    lines.append(Key("95 % sampling interval", MUTED, "solid"))
    each = []
    for m, (name, _) in enumerate(looks):
        rounds, z = residual_rows.residuals(past, m)
        each.append((name, rounds[::stride], z[::stride].tolist()))
    spread = round_plots.residuals_by_round(each, SIGMAS)
    spots = [Key(m, color, SPOTS[symbol]) for m, (color, _, symbol) in looks]
    spots.append(Key("95 % interval", MUTED, "dashed"))
    rows = residual_rows.by_round(facts, past)
    return Section(
        "calibration",
        "Calibration",
        [
            lead,
            Plot("Coverage", drawn, coverage, tuple(lines), is_wide=False),
            plot_by_round(facts, "Residuals by round", spread, rows, spots, is_wide=False),
        ],
    )
