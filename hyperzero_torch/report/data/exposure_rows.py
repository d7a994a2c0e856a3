"""What users were exposed to in each round, by today's estimates, and what exploring has cost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...study.config.exposure import base_violation
from ...study.history import CONTROL
from ...tuner.limits import prospect
from ...tuner.model import Fitted
from .facts import Facts
from .surfaces import at_theta
from .tables import Table, Values, blocks, table


def exposure(facts: Facts) -> Table | None:
    """By round, or block of rounds; None before anything was fitted.

    Shares of what was unknown when the round was planned; the violation that was expected then, and
    would have been without limits; the violation and the price by today's estimates. All are
    averages over the users who took part. The price is the objective's loss against the base.
    """
    model = facts.model
    if not isinstance(model, Fitted):
        return None
    violation, loss = _of_candidates(facts, model)
    plans, rounds = facts.history.plans, blocks(sorted(facts.history.plans))
    keys = ("users", "untested", "expected", "without", "violation", "price")
    averages: dict[str, list[float]] = {key: [] for key in keys}
    for block in rounds:
        each: dict[str, list[float]] = {key: [] for key in keys}
        for r in block:
            arms = torch.tensor(plans[r].candidates)
            shares = torch.tensor(plans[r].shares, dtype=torch.float64)
            trace = plans[r].trace.exposure
            each["users"].append(_users(facts, r))
            each["untested"].append(np.nan if trace is None else trace.untested)
            for key, value in (
                ("expected", None if trace is None else trace.violation),
                ("without", None if trace is None else trace.without_limits),
            ):
                each[key].append(np.nan if value is None else value / 100)
            each["violation"].append(float(shares @ violation[arms]))
            each["price"].append(float(shares @ loss[arms]))
        for key, values in each.items():
            averages[key].append(_mean(values))
    harm = [100 * v * u for v, u in zip(averages["violation"], averages["users"])]
    columns: list[Values] = [
        ("round", "round", "whole", [block[0] for block in rounds]),
        ("users", "users", "whole", averages["users"]),
        ("untested", "share untested", "percent", averages["untested"]),
        ("expected", "violation expected then", "percent", averages["expected"]),
        ("without", "without limits", "percent", averages["without"]),
        ("violation", "violation by today's estimates", "percent", averages["violation"]),
        ("harm", "harm, points times users", "number", harm),
        ("price", "objective lost", "signed", averages["price"]),
    ]
    return table(*columns)


def _of_candidates(facts: Facts, model: Fitted) -> tuple[Tensor, Tensor]:
    """Expected violation and loss of every candidate, each ``(candidates,)``; 0 for the base."""
    theta = facts.history.theta
    violation = prospect(model, facts.problem.space.to_unit(theta)).violation
    violation[CONTROL] = base_violation(facts.problem)
    loss = -at_theta(facts, model.posterior, theta).gain[0].nan_to_num(0.0).double()
    loss[CONTROL] = 0.0
    return violation, loss


def _users(facts: Facts, round: int) -> float:
    table_ = facts.history.tables.get(round)
    if table_ is None or not table_.reported.any():
        return np.nan
    return float(np.nansum(table_.counted("count"), axis=0).max())


def _mean(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return sum(finite) / len(finite) if finite else np.nan
