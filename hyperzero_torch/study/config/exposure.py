"""What a study may expose users to: plausible lifts, and a budget of expected harm."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import BeforeValidator, Field, PlainSerializer

from ...errors import ConfigError
from ...problem.problem import Problem
from .base import Config


def _as_lifts(value: Any) -> tuple[tuple[str, float], ...]:
    """A mapping from metrics to lifts, as fractions or as texts such as "5%"."""
    if isinstance(value, tuple | list):
        value = dict(value)
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            "plausible_lift maps metrics to the largest lift that is plausible, e.g. "
            f"{{watch_time: 5%}}, got {value!r:.60}"
        )
    return tuple((str(metric), _as_lift(metric, lift)) for metric, lift in value.items())


def _as_lift(metric: str, lift: Any) -> float:
    is_percent = isinstance(lift, str) and lift.strip().endswith("%")
    try:
        number = float(lift.strip().rstrip("%")) / 100 if is_percent else float(lift)
    except (TypeError, ValueError):
        number = float("nan")
    if not (is_percent or isinstance(lift, Real)) or isinstance(lift, bool) or not 0 < number <= 1:
        raise ConfigError(
            f"the plausible lift of {metric!r} is a fraction above 0 and up to 1, such as 0.05 or "
            f"5%, got {lift!r:.40}"
        )
    return number


#: Largest plausible lift by metric, as pairs; a mapping in files and journals.
PlausibleLift: TypeAlias = Annotated[
    tuple[tuple[str, float], ...], BeforeValidator(_as_lifts), PlainSerializer(dict)
]


class HarmBudget(Config):
    """Limits of the expected harm: points of violation times users.

    A candidate that breaks a guardrail by 2 points (a delta of -2.1 % where -0.1 % is allowed) for
    1,000 users costs 2,000.
    """

    per_round: float | None = Field(default=None, gt=0)
    """Upper limit of a round's expected harm."""
    per_day: float | None = Field(default=None, gt=0)
    """Upper limit of the expected harm of ``rounds_per_day`` rounds in a row."""
    users_per_round: float = Field(gt=0)
    """Users of a busy round that take part; where readings show more, their number counts."""

    def model_post_init(self, _: Any) -> None:
        """Require a limit, and one that the other does not contradict."""
        if self.per_round is None and self.per_day is None:
            raise ConfigError("a harm budget names per_round, per_day, or both")
        if self.per_round and self.per_day and self.per_day < self.per_round:
            raise ConfigError(
                f"per_day={self.per_day:g} is less than per_round={self.per_round:g}; a day has "
                "at least one round"
            )


def check_exposure(
    problem: Problem, plausible_lift: PlausibleLift | None, budget: HarmBudget | None
) -> None:
    """Refuse lifts and a budget that do not fit the problem.

    Raises:
        ConfigError: an unknown metric; a budget without guardrails or without a plausible lift of
            each metric that they depend on; or one that the base exceeds by itself.
    """
    lifts = dict(plausible_lift or ())
    unknown = sorted(set(lifts) - set(problem.metrics))
    if unknown:
        raise ConfigError(
            f"plausible_lift names {unknown}, the study's metrics are {list(problem.metrics)}"
        )
    if budget is None:
        return
    if not problem.num_constraints:
        raise ConfigError("a harm budget needs a guardrail: without one nothing counts as harm")
    guarded = zip(problem.metrics, problem.guarded_metrics.any(0).tolist())
    missing = [metric for metric, is_guarded in guarded if is_guarded and metric not in lifts]
    if missing:
        raise ConfigError(
            f"a harm budget needs plausible_lift for {missing}: before there is evidence, the "
            "expected harm of a candidate follows from it; e.g. plausible_lift: "
            f"{{{missing[0]}: 5%}}"
        )
    own = 100 * base_violation(problem) * budget.users_per_round
    limit = min(limit for limit in (budget.per_round, budget.per_day) if limit is not None)
    if own > limit:
        raise ConfigError(
            f"the harm budget of {limit:g} points times users is below the base's own harm: the "
            f"base breaks a guardrail by {100 * base_violation(problem):.4g} points, which costs "
            f"{own:g} for {budget.users_per_round:g} users; raise the budget or loosen the "
            "guardrail"
        )


def base_violation(problem: Problem) -> float:
    """The base's largest violation, as a fraction; 0 where its levels are not known yet."""
    if not problem.num_constraints or not problem.levels_known:
        return 0.0
    with torch.no_grad():
        at_base = torch.zeros(1, problem.num_metrics, dtype=torch.float64)
        slack = problem.to("cpu").evaluate(at_base).slack
    return max(0.0, -float(slack.min()))
