"""What users were exposed to in each round, by today's estimates, and what exploring has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...study.config.exposure import base_violation
from ...study.history import CONTROL
from ...tuner.limits import prospect
from ...tuner.model import Fitted
from .facts import Facts
from .surfaces import at_theta
from .tables import Kind, Table, Values, blocks, table


class Round(NamedTuple):
    """A planned round; averages over the users who took part, NaN where it is not known.

    ``users`` are those whose readings are kept, ``untested`` their share on arms without own
    evidence when the round was planned, ``expected`` the violation that was expected then, and
    ``without`` without limits. By today's estimates: ``violation``, ``exposed``, the share of
    users on candidates that break a guardrail, and ``price``, the objective's loss against the
    base.
    """

    number: int
    users: float
    untested: float
    expected: float
    without: float
    violation: float
    exposed: float
    price: float


class Totals(NamedTuple):
    """Over all rounds whose users are known: ``users``, those ``exposed`` to violations, ``harm``
    in points times users, and the ``price``, averaged over the users; the last is NaN without any.
    """

    users: float
    exposed: float
    harm: float
    price: float


def by_round(facts: Facts) -> list[Round]:
    """Every planned round, ascending; empty before anything was fitted."""
    model = facts.model
    if not isinstance(model, Fitted):
        return []
    violation, unsafe, loss = _of_candidates(facts, model)
    rounds = []
    for number, plan in sorted(facts.history.plans.items()):
        arms, trace = torch.tensor(plan.candidates), plan.trace.exposure
        shares = torch.tensor(plan.shares, dtype=torch.float64)
        then = (None, None) if trace is None else (trace.violation, trace.without_limits)
        rounds.append(
            Round(
                number,
                _users(facts, number),
                np.nan if trace is None else trace.untested,
                *(np.nan if value is None else value / 100 for value in then),
                *(float(shares @ values[arms]) for values in (violation, unsafe, loss)),
            )
        )
    return rounds


def totals(rounds: Sequence[Round]) -> Totals:
    """What all rounds come to."""
    reporting = [r for r in rounds if np.isfinite(r.users)]
    users = math.fsum(r.users for r in reporting)
    price = math.fsum(r.users * r.price for r in reporting)
    return Totals(
        users=users,
        exposed=math.fsum(r.users * r.exposed for r in reporting),
        harm=100 * math.fsum(r.users * r.violation for r in reporting),
        price=price / users if users else np.nan,
    )


def exposure(rounds: Sequence[Round]) -> Table:
    """By round, or averages by block of rounds in a long study."""
    by_number = {r.number: r for r in rounds}
    parts = blocks(list(by_number))
    columns: list[Values] = [("round", "round", "whole", [part[0] for part in parts])]
    shown: tuple[tuple[str, str, Kind], ...] = (
        ("users", "users", "whole"),
        ("untested", "share untested", "percent"),
        ("expected", "violation expected then", "percent"),
        ("without", "without limits", "percent"),
        ("violation", "violation by today's estimates", "percent"),
        ("exposed", "share exposed to violations", "percent"),
        ("price", "objective lost", "signed"),
    )
    for name, title, kind in shown:
        values = [_mean([getattr(by_number[r], name) for r in part]) for part in parts]
        columns.append((name, title, kind, values))
    return table(*columns)


def _of_candidates(facts: Facts, model: Fitted) -> tuple[Tensor, Tensor, Tensor]:
    """Of every candidate, each ``(candidates,)``: expected violation, P(violation) and loss.

    For the base they are what is known of it.
    """
    theta = facts.history.theta
    outlook = prospect(model, facts.problem.space.to_unit(theta))
    violation, unsafe = outlook.violation, 1 - outlook.prob_feasible
    violation[CONTROL] = base_violation(facts.problem)
    unsafe[CONTROL] = float(violation[CONTROL] > 0)
    loss = -at_theta(facts, model.posterior, theta).gain[0].nan_to_num(0.0).double()
    loss[CONTROL] = 0.0
    return violation, unsafe, loss


def _users(facts: Facts, round: int) -> float:
    table_ = facts.history.tables.get(round)
    if table_ is None or not table_.reported.any():
        return np.nan
    return float(np.nansum(table_.counted("count"), axis=0).max())


def _mean(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return sum(finite) / len(finite) if finite else np.nan
