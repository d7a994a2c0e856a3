"""The file that a plan is written to."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ..errors import ConfigError
from ..runtime.files import write_atomically
from ..study.plan import Plan


def check_writable(path: Path) -> None:
    """Checked before anything is recorded: a plan that cannot be written is never served."""
    if path.is_dir():
        raise ConfigError(f"--plan {path} is a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"--plan {path} cannot be written ({error.strerror}); name a file in a folder that "
            "exists and can be written to"
        ) from None


def write_plan(plan: Plan, path: Path, is_served: bool) -> None:
    """Write a plan, or the control alone where the plan may not be served any more."""
    if is_served:
        plan.write(path)
    else:
        write_atomically(path, json.dumps(plan.control_alone(), indent=2) + "\n")
