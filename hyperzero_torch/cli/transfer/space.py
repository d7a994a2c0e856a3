"""A proposal of a smaller space, as tables, as JSON and as a part of a study file."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from ...transfer import space_reduction as spaces

_MOST_INDICES = 3


def reasons(found: spaces.Proposal) -> Table:
    """What is proposed for each parameter, and why."""
    table = Table("parameter", "proposal", "why")
    for reason in found.reasons:
        style = "" if reason.what == "keep" else "bold"
        table.add_row(Text(reason.parameter), Text(reason.what, style=style), Text(reason.why))
    return table


def shares(found: spaces.Proposal) -> Table:
    """Total Sobol indices: of each parameter the largest, which a proposal rests on."""
    title = f"the {_MOST_INDICES} largest of each parameter; --json has all"
    table = Table("parameter", "metric", "source", "share of variance", title=title)
    for reason in found.reasons:
        own = [s for s in found.sensitivities if s.parameter == reason.parameter]
        for s in sorted(own, key=lambda s: -s.high)[:_MOST_INDICES]:
            told = f"{s.mean:.3f} [{s.low:.3f}, {s.high:.3f}]"
            told = "unknown" if math.isnan(s.mean) else told
            table.add_row(Text(s.parameter), Text(s.metric), Text(s.source), told)
    return table


def plain(found: spaces.Proposal) -> dict[str, Any]:
    """All of it, for scripts; what is not known is NaN."""
    return {
        "applied": False,
        "fixed": dict(found.fixed),
        "narrowed": {name: list(bounds) for name, bounds in found.narrowed.items()},
        "reasons": [r._asdict() for r in found.reasons],
        "sensitivities": [s._asdict() for s in found.sensitivities],
        "study": _study(found),
    }


def _study(found: spaces.Proposal) -> dict[str, Any]:
    """The part of a study file that would be another."""
    from pydantic import TypeAdapter

    from ...problem.parameters import Parameter

    kinds = TypeAdapter(list[Parameter]).dump_python(list(found.space.parameters), mode="json")
    part: dict[str, Any] = {"parameters": kinds, "base": dict(found.base)}
    if found.space.constraints:
        part["theta_constraints"] = list(found.space.constraints)
    return part


def as_yaml(found: spaces.Proposal) -> str:
    """The part of a study file that would be another, as it is written there."""
    import yaml

    fixed = "".join(
        f"# {name} is served at {value!r} throughout\n" for name, value in found.fixed.items()
    )
    text: str = yaml.safe_dump(_study(found), sort_keys=False, allow_unicode=True)
    return fixed + text
