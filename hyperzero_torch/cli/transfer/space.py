"""A proposed smaller space as tables, as JSON and as part of a study file."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from ...study.config.yaml12 import write_yaml
from ...transfer import space_reduction as spaces

_MOST_INDICES = 3


def reasons(proposal: spaces.Proposal) -> Table:
    """The proposal for each parameter, and why."""
    table = Table("parameter", "proposal", "why")
    for reason in proposal.reasons:
        style = "" if reason.what == "keep" else "bold"
        table.add_row(Text(reason.parameter), Text(reason.what, style=style), Text(reason.why))
    return table


def shares(proposal: spaces.Proposal) -> Table:
    """The largest total Sobol indices of each parameter, which the proposal is based on."""
    title = f"the {_MOST_INDICES} largest of each parameter; --json has all"
    table = Table("parameter", "metric", "source", "share of variance", title=title)
    for reason in proposal.reasons:
        own = [s for s in proposal.sensitivities if s.parameter == reason.parameter]
        for s in sorted(own, key=lambda s: -s.high)[:_MOST_INDICES]:
            index = f"{s.mean:.3f} [{s.low:.3f}, {s.high:.3f}]"
            index = "unknown" if math.isnan(s.mean) else index
            table.add_row(Text(s.parameter), Text(s.metric), Text(s.source), index)
    return table


def plain(proposal: spaces.Proposal) -> dict[str, Any]:
    """The whole proposal, for scripts; unknown numbers are NaN."""
    return {
        "applied": False,
        "fixed": dict(proposal.fixed),
        "narrowed": {name: list(bounds) for name, bounds in proposal.narrowed.items()},
        "reasons": [r._asdict() for r in proposal.reasons],
        "sensitivities": [s._asdict() for s in proposal.sensitivities],
        "study": _study(proposal),
    }


def _study(proposal: spaces.Proposal) -> dict[str, Any]:
    """The changed part of the study file."""
    from pydantic import TypeAdapter

    from ...problem.parameters import Parameter

    kinds = TypeAdapter(list[Parameter]).dump_python(list(proposal.space.parameters), mode="json")
    part: dict[str, Any] = {"parameters": kinds, "base": dict(proposal.base)}
    if proposal.space.constraints:
        part["theta_constraints"] = list(proposal.space.constraints)
    return part


def as_yaml(proposal: spaces.Proposal) -> str:
    """The changed part of the study file, as YAML."""
    fixed = "".join(
        f"# {name} is served at {value!r} throughout\n" for name, value in proposal.fixed.items()
    )
    return fixed + write_yaml(_study(proposal))
