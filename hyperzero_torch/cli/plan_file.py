"""The file that a plan is written to."""

from __future__ import annotations

import json
from pathlib import Path

from ..runtime.files import write_atomically
from ..runtime.places import check_place
from ..study.plan import PLAN_FILE, Plan


def check_writable(path: Path) -> None:
    """Checked before anything is recorded: a plan that cannot be written is never served."""
    check_place(path, f"--plan {path}", PLAN_FILE)


def write_plan(plan: Plan, path: Path, is_served: bool) -> None:
    """Write a plan, or the control alone where the plan may not be served any more."""
    check_writable(path)  # another program may have put a file there meanwhile
    document = plan.to_dict() if is_served else plan.control_alone()
    write_atomically(path, json.dumps(document, indent=2) + "\n")
