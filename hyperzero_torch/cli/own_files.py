"""Which files a study uses itself: no option may name one of them as a file to write."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from ..errors import ConfigError, HyperZeroError
from ..study.config import StudyConfig
from ..study.journal import open_journal

#: Files that SQLite keeps beside a database.
BESIDE = ("-wal", "-shm", "-journal")


def check_apart(config: Path, **options: Path | None) -> None:
    """Refuse options that name a file of the study, which may not be there yet, or the same file.

    Args:
        config: the study file.
        options: the files to be written, by the option's name with ``_`` for ``-``; None where it
            is not given.
    Raises:
        ConfigError: one of them is a file of the study, or another option's.
    """
    taken = _own_files(config)
    for name, path in options.items():
        if path is None:
            continue
        option, place = f"--{name.replace('_', '-')}", _resolved(path)
        if place in taken:
            raise ConfigError(f"{option} {path} is {taken[place]}; name another file")
        taken[place] = f"the file of {option} too"


def check_only(database: Path, study: str) -> None:
    """Refuse a simulation's folder whose journal holds anything but an earlier simulation.

    Args:
        database: the SQLite file in the folder of ``--out``.
        study: the simulation's.
    Raises:
        ConfigError: the journal has other studies.
        JournalError: the file is no journal, or cannot be read.
    """
    if not os.path.lexists(database):
        return
    with closing(open_journal(f"sqlite:///{database}", create=False)) as journal:
        studies = journal.studies()
    if studies not in ([], [study]):
        raise ConfigError(
            f"--out: {database} holds the studies {studies[:5]}, not only a "
            f"simulation's {study!r}; nothing was changed: name another folder"
        )


def _own_files(config: Path) -> dict[Path, str]:
    from ..study.journal.address import Address  # SQLAlchemy only where it is used

    files = {_resolved(config): "the study file"}
    try:
        study = StudyConfig.from_file(config)
        folder = config.resolve().parent
        journal = Address.of(study.journal_url(folder)).file
    except (HyperZeroError, OSError, RuntimeError):
        return files  # opening the study says what is amiss
    if journal is not None:
        files[_resolved(Path(journal))] = "the study's journal"
        for ending in BESIDE:
            files[_resolved(Path(journal + ending))] = "part of the study's journal"
    if study.live is not None and study.live.file is not None:
        files[_resolved(folder / study.live.file)] = "the file that the study serves"
    return files


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # circular links
        return path.absolute()
