"""The plan of one round: which parameters to serve, to which fraction of the traffic."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..problem.space import Value
from ..runtime.files import write_atomically
from ..runtime.html import html_table
from ..runtime.places import Kind, check_place, json_object


def _is_plan(content: bytes) -> bool:
    document = json_object(content)
    if document is None or "kind" in document:  # an assignment table says its kind
        return False
    return "round" in document and isinstance(document.get("arms"), list)


#: The file that ``Plan.write`` writes.
PLAN_FILE = Kind("a plan", _is_plan)


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Arms and their shares of the traffic; all fields are in the order of ``candidate_ids``.

    Args:
        round: the round (hour) to serve it in.
        candidate_ids: the control (0) first, then the arms, ascending.
        parameters: one mapping from parameter name to value per arm.
        theta: ``(arms, params)``, the same as numbers, float64, on the CPU.
        slots: traffic slots per arm: the number of draws it won, and at least
            ``TunerConfig.newcomer_slots`` where it has never been served; 0 for the control,
            whose share is set by the configuration.
        shares: fraction of the experiment's traffic per arm, the control's included; sums to 1.
        notes: what was amiss when the plan was made, a sentence each: readings that are missing,
            users that do not fit the planned shares, arms that were limited or withdrawn for it.
        experiment_share: fraction of all users that takes part. The others are served the base,
            and are not counted: no exposure of them is logged.
    """

    round: int
    candidate_ids: tuple[int, ...]
    parameters: tuple[dict[str, Value], ...]
    theta: Tensor
    slots: tuple[int, ...]
    shares: tuple[float, ...]
    notes: tuple[str, ...] = ()
    experiment_share: float = 1.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.candidate_ids)

    def __repr__(self) -> str:
        return (
            f"Plan(round={self.round}, arms={len(self) - 1}, "
            f"control_share={self.control_share:.4g})"
        )

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for arm in self.parameters for name in arm))
        rows = [
            ("control" if c == 0 else c, f"{share:.2%}", slots, *(arm.get(n) for n in names))
            for c, share, slots, arm in zip(
                self.candidate_ids, self.shares, self.slots, self.parameters
            )
        ]
        part = self.experiment_share
        notes = [] if part == 1 else [f"{part:.4g} of all users take part"]
        title = f"Plan of round {self.round}: {len(self) - 1} arms"
        columns = ["candidate", "share", "slots", *names]
        return html_table(title, columns, rows, [*notes, *self.notes])

    @property
    def control_share(self) -> float:
        """The control's fraction of the experiment's traffic."""
        return self.shares[0]

    def write(self, path: str | Path) -> None:
        """Write the plan as JSON, atomically: a reader never sees a part of it.

        An earlier plan is replaced, and no other file.

        Raises:
            ConfigError: the folder does not exist or cannot be written to, or the file is no plan.
        """
        check_place(path, f"the plan's file {str(path)!r}", PLAN_FILE)
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def control_alone(self) -> dict[str, Any]:
        """In the form of ``to_dict``: the control alone, outside any round.

        Its round is null: nobody is counted until the next plan.
        """
        control = self.to_dict()["arms"][0] | {"share": 1.0}
        return {"round": None, "arms": [control]}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``{"round": ..., "arms": [{"candidate": ..., "share": ...}]}``.

        ``notes`` are there where there are any, ``experiment_share`` where it is below 1.
        """
        part = {"experiment_share": self.experiment_share} if self.experiment_share < 1 else {}
        return {
            "round": self.round,
            **part,
            **({"notes": list(self.notes)} if self.notes else {}),
            "arms": [
                {"candidate": c, "share": share, "slots": slots, "parameters": dict(parameters)}
                for c, share, slots, parameters in zip(
                    self.candidate_ids, self.shares, self.slots, self.parameters
                )
            ],
        }
