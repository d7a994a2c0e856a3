"""The sections on candidates: their estimated gains, and their deltas of every metric."""

from __future__ import annotations

from ...study.history import CONTROL
from ..data import candidate_rows, round_rows
from ..data.facts import Facts
from ..data.tables import MOST_ROUNDS, name_of
from ..figures import candidate_plots, round_plots
from ..figures.canvas import BLUE, GREEN, INK, MUTED, SKY, VERMILLION, Key
from .blocks import Block, Plot, Section, limited, no_estimates, plot_by_round

_MOST_METRICS = 8  # that are drawn one by one


def effects(facts: Facts) -> Section:
    """Estimated gains of the most promising candidates."""
    title = "Estimated effects"
    rows = candidate_rows.estimated_gains(facts)
    if not rows.rows:
        return Section("candidates", title, [no_estimates(facts)])
    least = facts.config.min_prob_feasible
    keys = (
        Key("recommended", VERMILLION, "star"),
        Key(f"P(feasible) ≥ {least:g}", BLUE, "circle"),
        Key("below", MUTED, "ring"),
    )
    drawn = candidate_plots.estimated_gains(rows, name_of(facts.best.candidate_id), least)
    lead = (
        f"{len(rows.rows)} of {facts.history.num_candidates - 1} candidates by the lower bound of "
        f"the gain, with {facts.config.confidence:.0%} intervals. Those that may be recommended "
        f"come first; {len(rows.faded)} are stopped or not likely enough to be feasible."
    )
    return Section("candidates", title, [lead, Plot("Estimated gain over base", drawn, rows, keys)])


def deltas(facts: Facts) -> Section:
    """Deltas of every metric: evidence and posterior by candidate, then one candidate by round."""
    title = "Deltas by metric"
    tracked, posterior, best = facts.tracked, facts.posterior, facts.best.candidate_id
    if posterior is None or tracked is None:
        return Section("deltas", title, [no_estimates(facts)])
    theta = facts.bucket.theta[tracked : tracked + 1]
    estimate = posterior.marginal(facts.problem.space.to_unit(theta).to(posterior.x))[0][0].tolist()
    truth = facts.true_delta(theta)
    forest_keys = (
        Key("own evidence", SKY, "circle"),
        Key("posterior", BLUE, "diamond"),
        *(() if best == CONTROL else (Key("recommended", VERMILLION, "diamond"),)),
        *(() if truth is None else (Key("truth", GREEN, "bar"),)),
    )
    round_keys = (
        Key("delta of the round", SKY, "circle"),
        Key("pooled so far", VERMILLION, "solid"),
        Key("posterior", INK, "dashed"),
        *(() if truth is None else (Key("truth", GREEN, "dotted"),)),
    )
    metrics = list(enumerate(facts.problem.metrics))[:_MOST_METRICS]
    lead = (
        "Deltas against the control ± 1.96 standard deviations. Own evidence pools a candidate's "
        "own arms; the posterior also uses its neighbours in the space."
    ) + limited(len(metrics), facts.problem.num_metrics, "metrics")
    forests: list[Block] = []
    funnels: list[Block] = []
    name = name_of(tracked)
    for m, metric in metrics:
        rows = candidate_rows.evidence(facts, posterior, m)
        drawn = candidate_plots.evidence_forest(rows, name_of(best))
        forests.append(Plot(f"{metric} by candidate", drawn, rows, forest_keys, is_wide=False))
        rows = round_rows.funnel(facts, tracked, m)
        true = None if truth is None else float(truth[0, m])
        drawn = round_plots.funnel_by_round(rows, estimate[m], true)
        heading = f"{metric} by round, {name}"
        funnels.append(plot_by_round(facts, heading, drawn, rows, round_keys, is_wide=False))
    by_round = (
        f"Deltas of {name}, {facts.role}, in its last rounds (at most {MOST_ROUNDS}). The pooled "
        "delta also counts all rounds before them."
    )
    return Section("deltas", title, [lead, *forests, by_round, *funnels])
