"""What an application logs of a round: exposures and events as Arrow tables and Parquet files.

    exposures   user, round, candidate                     one row for each user and arm seen
    events      user, round, metric, value, arrived        one row for each thing that happened

``round`` is when the user was served, ``arrived`` the round in which the event reached the log. A
file holds events of one round that arrived in one round, so it never changes once it is there, and
what has not arrived yet is in no file::

    folder/exposures/round-000012.parquet
    folder/events/round-000012-arrived-000015.parquet
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, MissingExtraError
from .feed import EVENT_METRICS, Happenings


@dataclass(frozen=True)
class Served:
    """One served round as its application sees it.

    Args:
        round: when the users were served.
        exposures: ``pyarrow.Table`` with columns user, round, candidate.
        events: ``pyarrow.Table`` with columns user, round, metric, value, arrived.
    """

    round: int
    exposures: Any
    events: Any

    def write(self, folder: str | Path, arrived_by: int | None = None) -> list[Path]:
        """Log the round: its events by the round in which they arrived, then its exposures.

        Every file is written under another name and moved to its place in one step, and one that
        is there already is left as it is. So a round whose exposures are there is complete, and a
        round that was cut off can be served and written again, with the same assignment.

        Args:
            folder: of the log; made where it does not exist.
            arrived_by: leave out events that arrive later; None leaves out none, for readers that
                look at ``arrived`` themselves.
        Returns:
            The files that are new.
        Raises:
            ConfigError: the folder cannot be written to.
        """
        pc = _pyarrow("compute")
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
    round: int, names: list[str], exposed: Tensor, candidate: Tensor, happened: Happenings
) -> Served:
    """Tensors as tidy tables.

    Args:
        round: when the users were served.
        names: every user's id, by the user's number.
        exposed: ``(exposures,)``, users' numbers.
        candidate: ``(exposures,)``, what each was shown.
        happened: the events.
    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow()
    exposures = {
        "user": _named(exposed, names),
        "round": pa.array(np.full(len(exposed), round, dtype=np.int64)),
        "candidate": pa.array(candidate.numpy().astype(np.int64)),
    }
    events = {
        "user": _named(happened.user, names),
        "round": pa.array(np.full(len(happened.user), round, dtype=np.int64)),
        "metric": _named(happened.metric, EVENT_METRICS),
        "value": pa.array(happened.value.numpy()),
        "arrived": pa.array((round + happened.late).to(torch.int64).numpy()),
    }
    return Served(round, pa.table(exposures), pa.table(events))


def _named(index: Tensor, names: list[str] | tuple[str, ...]) -> Any:
    """Plain strings, not a dictionary: engines disagree on what a categorical column may do."""
    pa = _pyarrow()
    return pa.DictionaryArray.from_arrays(index.numpy().astype(np.int32), pa.array(names)).cast(
        pa.string()
    )


def _write_parquet(table: Any, path: Path) -> list[Path]:
    """The path, or nothing where the file is there already."""
    if path.exists():
        return []
    pa, pq = _pyarrow(), _pyarrow("parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    beside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # No name that a pattern such as *.parquet would find before it is whole.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.stem}.", suffix=".part", delete=False
        ) as file:
            beside = file.name
            file.write(sink.getvalue())
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # temporary files are private, logs are not
        os.replace(beside, path)
    except OSError as error:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
        raise ConfigError(
            f"{str(path)!r} cannot be written ({error.strerror}); name a folder that can be "
            "written to"
        ) from None
    return [path]


def _pyarrow(module: str | None = None) -> Any:
    """``pyarrow``, or one of its modules."""
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("logging exposures and events", "pyarrow", "parquet") from None
    return {None: pa, "compute": pc, "parquet": pq}[module]
