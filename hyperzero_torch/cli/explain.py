"""The command that explains the traffic of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..problem.space import Value
from ..tuner.explanation import Explanation
from .output import console, show, show_json
from .study import AsJson, Config, open_study


def explain(
    config: Config,
    round: Annotated[
        int | None, typer.Option("--round", min=0, help="A planned round; by default the last.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain the traffic of each arm of a round: the estimates at that time, and their readings.

    The parameters of each arm are shown too; the control's are the base.

    Example:

      hyperzero explain -c tuning.yaml --round 17
    """
    explanation = open_study(config).explain(round)
    if as_json:
        show_json(explanation.to_dict())
        return
    console.print(_table(explanation))
    for remark in explanation.remarks:
        show(f"remark: {remark}", "yellow")


def _table(explanation: Explanation) -> Table:
    table = Table(
        *("candidate", "share", "slots", "P(best)", "P(feasible)", "objective"),
        "parameters, and why",
        title=f"round {explanation.round}",
        title_justify="left",
    )
    for arm in sorted(explanation.arms, key=lambda a: (a.candidate != 0, -a.share)):
        mean, low, high = arm.objective
        has_estimate = not math.isnan(mean)
        users = sum(r.users for r in arm.readings)
        table.add_row(
            str(arm.candidate),
            f"{arm.share:.1%}",
            str(arm.slots),
            "" if arm.prob_best is None else f"{arm.prob_best:.1%}",
            f"{arm.prob_feasible:.2f}" if has_estimate else "",
            f"{mean:.4g} [{low:.4g}, {high:.4g}]" if has_estimate else "",
            Text(
                f"{_listed(arm.parameters)}\n{'; '.join(arm.why)}; {len(arm.readings)} rounds, "
                f"{users:,.0f} users ({arm.origin})"
            ),
        )
    return table


def _listed(parameters: Mapping[str, Value]) -> str:
    texts = ((n, f"{v:.4g}" if isinstance(v, float) else str(v)) for n, v in parameters.items())
    return ", ".join(f"{name} {text}" for name, text in texts)
