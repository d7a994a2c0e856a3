"""The log of a round: exposures and events as Arrow tables and Parquet files.

    exposures   user, round, candidate                     one row for each user and arm
    events      user, round, metric, value, arrived        one row for each event

``round`` is when the user was served, ``arrived`` the round in which the event reached the log. A
file holds events of one round that arrived in one round, so it never changes once it is written.
Events that have not arrived are in no file::

    folder/exposures/round-000012.parquet
    folder/events/round-000012-arrived-000015.parquet
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, MissingExtraError
from ...runtime.files import write_atomically
from .feed import EVENT_METRICS, Events


@dataclass(frozen=True)
class Served:
    """One served round as the application sees it: two ``pyarrow.Table``s, see above."""

    round: int
    exposures: Any
    events: Any

    def write(self, folder: str | Path, arrived_by: int | None = None) -> list[Path]:
        """Log the round: its events by the round in which they arrived, then its exposures.

        Every file is moved to its place in one step, and a file that exists is kept. So a round
        with exposures is complete, and an interrupted round can be served and written again, with
        the same assignment. Events that arrive after ``arrived_by`` are left out; None keeps all,
        for readers that filter by ``arrived`` themselves.

        Returns:
            The files that are new.
        Raises:
            ConfigError: the folder cannot be written to.
        """
        pc = _pyarrow("pyarrow.compute")
        folder = Path(folder)
        paths = []
        for arrived in sorted(pc.unique(self.events["arrived"]).to_pylist()):
            if arrived_by is None or arrived <= arrived_by:
                name = f"round-{self.round:06d}-arrived-{arrived:06d}.parquet"
                part = self.events.filter(pc.equal(self.events["arrived"], arrived))
                paths += _write_parquet(part, folder / "events" / name)
        path = folder / "exposures" / f"round-{self.round:06d}.parquet"
        return paths + _write_parquet(self.exposures, path)


def as_tables(
    round: int, names: list[str], exposed: Tensor, candidate: Tensor, events: Events
) -> Served:
    """The exposures and events of a round as tidy tables; needs pyarrow.

    ``exposed (exposures,)`` are users' numbers, ``names`` their ids by number, and
    ``candidate (exposures,)`` what each was served.
    """
    pa = _pyarrow()
    exposure_columns = {
        "user": _named(exposed, names),
        "round": pa.array(np.full(len(exposed), round, dtype=np.int64)),
        "candidate": pa.array(candidate.numpy().astype(np.int64)),
    }
    event_columns = {
        "user": _named(events.user, names),
        "round": pa.array(np.full(len(events.user), round, dtype=np.int64)),
        "metric": _named(events.metric, EVENT_METRICS),
        "value": pa.array(events.value.numpy()),
        "arrived": pa.array((round + events.late).to(torch.int64).numpy()),
    }
    return Served(round, pa.table(exposure_columns), pa.table(event_columns))


def _named(index: Tensor, names: list[str] | tuple[str, ...]) -> Any:
    """Plain strings instead of a dictionary: engines treat categorical columns differently."""
    pa = _pyarrow()
    return pa.DictionaryArray.from_arrays(index.numpy().astype(np.int32), pa.array(names)).cast(
        pa.string()
    )


def _write_parquet(table: Any, path: Path) -> list[Path]:
    """The path, or nothing where the file exists already."""
    if path.exists():
        return []
    sink = _pyarrow().BufferOutputStream()
    _pyarrow("pyarrow.parquet").write_table(table, sink)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written ({error.strerror}); name a folder that can be "
            "written to"
        ) from None
    # Its name until it is whole does not match patterns such as *.parquet.
    write_atomically(path, sink.getvalue().to_pybytes())
    return [path]


def _pyarrow(module: str = "pyarrow") -> Any:
    """``pyarrow``, or one of its modules."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError("logging exposures and events", "pyarrow", "parquet") from None
