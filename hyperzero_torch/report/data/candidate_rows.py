"""Candidates as tables: the recommended one, the most promising ones, those with most evidence."""

from __future__ import annotations

import math

import torch

from ...problem.slack_units import slack_units
from ...study.history import CONTROL
from ...surrogate.protocol import FittedPosterior
from .facts import Facts
from .surfaces import at_theta, from_deltas
from .tables import (
    SIGMAS,
    Kind,
    Table,
    Values,
    interval,
    name_of,
    parameter_value,
    show,
    show_interval,
    table,
)

MOST_EVIDENCE = 25
MOST_ESTIMATED = 40


def parameters(facts: Facts) -> Table:
    """The recommended theta beside the base's, and the oracle's where it is known."""
    space = facts.problem.space
    served = [("recommended", facts.best.parameters), ("base", facts.problem.base)]
    if facts.oracle is not None:
        served.append(("oracle", space.to_parameters(facts.oracle.theta.reshape(1, -1))[0]))
    names = space.names
    columns: list[Values] = [("parameter", "parameter", "text", names)]
    columns += [(k, k, "number", [parameter_value(p[name]) for name in names]) for k, p in served]
    return table(*columns)


def guardrails(facts: Facts) -> Table:
    """Each guardrail at the recommended candidate: estimated slack, and P(holds)."""
    names = facts.problem.constraint_names
    if not names or math.isnan(facts.best.objective_mean):
        return Table((), [])
    at = slice(facts.best.candidate_id, facts.best.candidate_id + 1)
    estimates = from_deltas(facts, facts.belief.delta_mean[at], facts.belief.delta_var[at])
    kinds = [slack_kind(facts, i) for i in range(len(names))]
    bands = list(zip(estimates.slack[:, 0].T.tolist(), kinds))
    unit = "slack" if "number" in kinds else "slack, % of the control"
    level = f"{facts.config.confidence:.0%} interval"
    return table(
        ("guardrail", "guardrail", "text", names),
        ("mean", unit, "number", [show(mean, kind) for (mean, _, _), kind in bands]),
        ("interval", level, "number", [show_interval(a, b, kind) for (_, a, b), kind in bands]),
        ("holds", "P(holds)", "prob", estimates.holds[0]),
    )


def slack_kind(facts: Facts, constraint: int) -> Kind:
    """A fraction of the control's value; a plain number where that is 0 or not known."""
    return "number" if slack_units(facts.problem)[constraint].isnan() else "percent"


def slack_label(facts: Facts, constraint: int) -> str:
    """A slack with its unit, for axes and columns."""
    is_own = slack_kind(facts, constraint) == "number"
    return "slack, in its own unit" if is_own else "slack, % of the control"


def slacks_in_words(facts: Facts) -> str:
    """A sentence on the unit of all slacks on the page."""
    names = facts.problem.constraint_names
    own = [name for i, name in enumerate(names) if slack_kind(facts, i) == "number"]
    sentence = (
        "A slack is the distance to a guardrail's bound, in % of the control's value, for metrics "
        "as for their levels; the guardrail is violated where it is negative."
    )
    if own:
        sentence += (
            f" The control's value is 0 or not known for {', '.join(own)}: its slack is in its own "
            "unit."
        )
    return sentence


def estimated_gains(facts: Facts) -> Table:
    """Candidates by their lower bounds of the objective; first those that may be recommended.

    The others, faded, are stopped or not likely enough to meet all guardrails.
    """
    belief = facts.belief
    score = torch.where(belief.lcb.isfinite(), belief.lcb, -torch.inf)
    score[CONTROL] = -torch.inf
    may_be = belief.prob_feasible >= facts.config.min_prob_feasible
    may_be[sorted(facts.history.status.stopped)] = False
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort((~may_be[order]).int(), stable=True)][:MOST_ESTIMATED]
    ids = [c for c in order.tolist() if score[c] > -torch.inf]
    ids = facts.with_best(ids, MOST_ESTIMATED)
    gain = [facts.gain(field[ids]) for field in (belief.mean, belief.lcb, belief.ucb)]
    rows = table(
        ("candidate", "candidate", "text", map(name_of, ids)),
        *interval("estimated gain", "signed", gain),
        ("prob", "P(feasible)", "prob", belief.prob_feasible[ids]),
        ("rounds", "rounds with evidence", "whole", facts.bucket.num_rounds[ids]),
    )
    return rows._replace(faded=tuple(i for i, c in enumerate(ids) if not may_be[c]))


def evidence(facts: Facts, posterior: FittedPosterior, metric: int) -> Table:
    """Own evidence beside the posterior, for the candidates with the most evidence."""
    bucket = facts.bucket
    ids = facts.with_best(facts.by_weight(MOST_EVIDENCE), MOST_EVIDENCE)
    x = facts.problem.space.to_unit(bucket.theta[ids]).to(posterior.x)
    mean, var = (field[:, metric].cpu() for field in posterior.marginal(x))
    order = torch.argsort(mean, descending=True, stable=True)
    rows = torch.tensor(ids, dtype=torch.long)[order]
    columns: list[Values] = [
        ("candidate", "candidate", "text", map(name_of, rows.tolist())),
        ("own", "own evidence", "signed", bucket.mean[rows, metric]),
        ("own_half", "±", "percent", SIGMAS * bucket.var[rows, metric].sqrt()),
        ("posterior", "posterior", "signed", mean[order]),
        ("posterior_half", "±", "percent", SIGMAS * var[order].sqrt()),
    ]
    truth = facts.true_delta(bucket.theta[rows])
    if truth is not None:
        columns.append(("truth", "truth", "signed", truth[:, metric]))
    return table(*columns)


def on_the_map(facts: Facts, posterior: FittedPosterior) -> Table:
    """Estimates at the points that maps mark: candidates, base, oracle."""
    ids = [CONTROL, *facts.by_weight(MOST_EVIDENCE)]
    if facts.best.candidate_id not in ids:
        ids.append(facts.best.candidate_id)
    theta, names = facts.bucket.theta[ids], [name_of(c) for c in ids]
    if facts.oracle is not None:
        theta = torch.cat([theta, facts.oracle.theta.reshape(1, -1)])
        names.append("oracle")
    estimates = at_theta(facts, posterior, theta)
    columns: list[Values] = [("candidate", "candidate", "text", names)]
    columns += [
        (f"p{i}", n, "number", theta[:, i]) for i, n in enumerate(facts.problem.space.names)
    ]
    columns.append(("gain", "gain over base", "signed", estimates.gain[0]))
    columns += [
        (f"s{i}", f"{n}: {slack_label(facts, i)}", slack_kind(facts, i), estimates.slack[0, :, i])
        for i, n in enumerate(facts.problem.constraint_names)
    ]
    return table(*columns, ("prob", "P(feasible)", "prob", estimates.prob_feasible))


def over_parameters(facts: Facts, params: list[int]) -> Table:
    """The most promising candidates with their theta, the base last."""
    gains = estimated_gains(facts)
    names = gains.column("candidate")
    ids = [*(int(str(name)[1:]) for name in names), CONTROL]
    space = facts.problem.space
    served = space.to_parameters(facts.bucket.theta[ids])
    columns: list[Values] = [("candidate", "candidate", "text", [*names, "base"])]
    columns += [
        (f"p{i}", n, "number", [parameter_value(p[n]) for p in served])
        for i, n in ((i, space.names[i]) for i in params)
    ]
    prob = [*gains.column("prob"), float(facts.belief.prob_feasible[CONTROL])]
    return table(
        *columns,
        ("gain", "estimated gain", "signed", [*gains.column("mean"), 0.0]),
        ("prob", "P(feasible)", "prob", prob),
    )
