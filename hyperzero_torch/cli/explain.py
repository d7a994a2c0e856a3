"""The command that explains the traffic of a round."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Annotated

import typer

from ..problem.space import Value
from ..tuner.explanation import ArmReason
from .output import console, show, show_json
from .study import AsJson, Config, open_study

_MOST_ARMS = 20
_COLUMNS = (
    ("candidate", 9), ("share", 7), ("slots", 6), ("P(best)", 8), ("P(feasible)", 11),
)  # fmt: skip


def explain(
    config: Config,
    round: Annotated[
        int | None, typer.Option("--round", min=0, help="A planned round; by default the last.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"All arms, not the {_MOST_ARMS} with most traffic.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain the traffic of each arm of a round: the estimates at that time, and their readings.

    The arms with most traffic come first, after the control. The parameters of each are shown too;
    the control's are the base. --json has all arms.

    Examples:

      hyperzero explain -c tuning.yaml --round 17

      hyperzero explain -c tuning.yaml --all
    """
    explanation = open_study(config).explain(round)
    if as_json:
        show_json(explanation.to_dict())
        return
    arms = sorted(explanation.arms, key=lambda a: (a.candidate != 0, -a.share))
    shown = arms if every else arms[: _MOST_ARMS + 1]
    show(f"round {explanation.round}", "bold")
    show("  ".join(name.rjust(width) for name, width in _COLUMNS) + "  objective", "bold")
    for arm in shown:
        _show_arm(arm)
    if rest := arms[len(shown) :]:
        share = sum(arm.share for arm in rest)
        show(f"and {len(rest)} more arms with {share:.1%} of the traffic: --all shows them")
    for remark in explanation.remarks:
        show(f"remark: {remark}", "yellow")


def _show_arm(arm: ArmReason) -> None:
    """An arm: a line of numbers, then its parameters and why it got its share."""
    mean, low, high = arm.objective
    has_estimate = not math.isnan(mean)
    users = sum(r.users for r in arm.readings)
    cells = (
        str(arm.candidate),
        f"{arm.share:.1%}",
        str(arm.slots),
        "" if arm.prob_best is None else f"{arm.prob_best:.1%}",
        f"{arm.prob_feasible:.2f}" if has_estimate else "",
    )
    line = "  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS))
    estimate = f"  {mean:.4g} [{low:.4g}, {high:.4g}]" if has_estimate else ""
    show((line + estimate).rstrip())
    rounds = f"{len(arm.readings)} round{'s' * (len(arm.readings) != 1)}"
    for text in (
        f"{_listed(arm.parameters)} ({arm.origin})",
        f"{'; '.join(arm.why)}; {rounds}, {users:,.0f} users",
    ):
        for part in textwrap.wrap(text, max(20, console.width - 4)):
            show(f"    {part}", "dim")


def _listed(parameters: Mapping[str, Value]) -> str:
    texts = ((n, f"{v:.4g}" if isinstance(v, float) else str(v)) for n, v in parameters.items())
    return ", ".join(f"{name} {text}" for name, text in texts)
