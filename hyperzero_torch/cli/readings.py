"""The readings that a command is given: files, standard input, and other names of columns."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..study.readings import COLUMNS, OPTIONAL_COLUMNS, Readings
from ..study.readings.columns import parse_columns

_STDIN = Path("-")


def read_messages(paths: Sequence[Path], columns: Sequence[str]) -> list[Readings]:
    """One message from each file, or from standard input for ``-``.

    Raises:
        ConfigError: ``columns`` is not understood or stands without readings, or standard input is
            named twice or is a terminal.
        ReadingsError: a file is refused; the message names it.
    """
    names = parse_columns(columns, (*COLUMNS, *OPTIONAL_COLUMNS))
    if names and not paths:
        raise ConfigError("--columns names columns of --readings, and there are none")
    if list(paths).count(_STDIN) > 1:
        raise ConfigError("--readings - is standard input, which is read once; name it once")
    return [
        _from_stdin(names) if path == _STDIN else Readings.from_file(path, names) for path in paths
    ]


def _from_stdin(names: dict[str, str]) -> Readings:
    if sys.stdin.isatty():
        raise ConfigError(
            "--readings - reads standard input, which is a terminal here; write the readings to "
            "it, as in 'query | hyperzero step --readings -'"
        )
    return Readings.from_stream(sys.stdin.buffer, names)


def digest(readings: Readings, round_: int | None) -> str:
    """Identifies a message by its rows, in whatever order, and by the round that it asks for."""
    columns = (
        readings.round,
        readings.candidate,
        readings.metric,
        readings.revision,
        readings.count,
        readings.mean,
        readings.var,
    )
    rows = sorted(json.dumps(row) for row in zip(*(column.tolist() for column in columns)))
    return hashlib.sha256("\n".join([str(round_), *rows]).encode()).hexdigest()
