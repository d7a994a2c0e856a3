"""Who runs this process."""

from __future__ import annotations

import getpass


def login_name() -> str:
    """The login name; ``"unknown"`` where the system has none, as in some containers."""
    try:
        return getpass.getuser() or "unknown"
    except (OSError, KeyError, ImportError):
        return "unknown"
