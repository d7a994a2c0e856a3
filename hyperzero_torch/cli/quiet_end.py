"""The end of the process: what libraries print while Python takes them down is no news."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


def end_quietly() -> None:
    """From the very end of this process on, nothing is printed on standard error.

    DuckDB 2 lists objects that the interpreter did not free, dozens of lines of C++ names, after
    all of ours has been printed. Handlers run in the reverse order of their registration, so this
    is called first.
    """
    atexit.register(_silence)


def _silence() -> None:
    if "duckdb" not in sys.modules:
        return
    with suppress(OSError, ValueError):
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
