"""The verdict on a launch in the words of a decision, with its numbers."""

from __future__ import annotations

from ..problem.problem import Problem
from ..stats import sequential
from ..study.journal.launch_trace import LaunchTest, Verdict
from ..study.launch_state import Launch
from .launch_evidence import Measured, guards_of

# Of the intervals of metrics that a sentence shows.
_CONFIDENCE = 0.95


def sentence(
    problem: Problem,
    launch: Launch,
    verdict: Verdict,
    share: float,
    measured: Measured,
    tests: tuple[LaunchTest, ...],
    worst: LaunchTest | None,
    why: str,
    rounds_left: int | None,
    margin: float,
) -> str:
    """The verdict, the candidate and its share, the metrics, and the reason."""
    shown = share if verdict != "go back" else launch.share()
    verb = "from" if verdict == "go back" else "at"
    head = f"{verdict}: candidate {launch.candidate} {verb} {_percent(shown)} of all users"
    parts = [head, *_metrics(problem, measured, margin)]
    return "; ".join([*parts, _reason(problem, verdict, tests, worst, why, rounds_left, margin)])


def _reason(
    problem: Problem,
    verdict: Verdict,
    tests: tuple[LaunchTest, ...],
    worst: LaunchTest | None,
    why: str,
    rounds_left: int | None,
    margin: float,
) -> str:
    if why:
        return why
    if worst is not None:
        by = f"by at least {100 * -worst.upper:.3f} points"
        if worst.is_objective:
            return f"its objective {worst.name!r} is worse than the base's {by}"
        return f"it breaks {worst.name!r} {by}"
    if verdict == "hold":
        return _undecided(problem, tests, rounds_left, margin)
    if not problem.num_constraints:
        return f"the objective cannot lose more than {100 * margin:.3f} points"
    if all(test.lower >= 0 for test in guards_of(problem, tests)):
        return "every guardrail holds"
    return f"no guardrail can be broken by more than {100 * margin:.3f} points"


def _undecided(
    problem: Problem, tests: tuple[LaunchTest, ...], rounds_left: int | None, margin: float
) -> str:
    """The guardrail that it waits for, and how long."""
    guards = guards_of(problem, tests)
    when = (
        "which does not look likely at present traffic"
        if rounds_left is None
        else f"about {rounds_left} more round{'s' * (rounds_left != 1)} at present traffic"
    )
    names = problem.constraint_names or (problem.objective_name,)
    without = [name for name in names if name not in {test.name for test in guards}]
    if without:
        return f"no evidence on {without} since the launch began; {when}"
    worst = min(guards, key=lambda test: test.lower)
    slack, low, high = (100 * value for value in (worst.slack, worst.lower, worst.upper))
    return (
        f"undecided: the slack of {worst.name!r} is {slack:+.3f} [{low:+.3f}, {high:+.3f}] points, "
        f"and its lower bound must reach {-100 * margin:+.3f}; {when}"
    )


def _metrics(problem: Problem, measured: Measured, margin: float) -> list[str]:
    """Deltas of the metrics in use, with intervals that hold at every look."""
    used = problem.used_metrics & measured.mean.isfinite()
    tight = (margin / 3) ** 2
    low, high = sequential.interval(measured.mean, measured.var, 1 - _CONFIDENCE, tight)
    return [
        f"{name} {mean:+.2%} [{below:+.2%}, {above:+.2%}]"
        for name, mean, below, above, is_used in zip(
            problem.metrics, measured.mean.tolist(), low.tolist(), high.tolist(), used.tolist()
        )
        if is_used
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
