"""The file that a plan is written to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import ConfigError


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
