"""Which studies are served: those of study files, and all studies of journals."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, StudyNotFoundError
from ...live.build import updater_of
from ...live.opening import check_unserved, open_study
from ...study.config import LiveConfig, StudyConfig
from ...study.journal import open_journal
from ...tuner.tuner import Tuner

#: Opens a study; with the argument true, one that does not exist is started.
Opener = Callable[[bool], Tuner]


@dataclass(frozen=True)
class Place:
    """Where a study is.

    Args:
        key: its name in addresses.
        name: of the study.
        open: opens it.
        file: its study file; None where only its journal is known.
    """

    key: str
    name: str
    open: Opener
    file: Path | None = None

    def stamp(self) -> dict[str, Any] | None:
        """The stamp of what the platform serves, empty where there is none.

        Returns:
            None where the study file names no platform.
        Raises:
            HyperZeroError: the platform cannot be read.
        """
        live = self.live()
        if live is None or self.file is None:
            return None
        return updater_of(live, self.file.resolve().parent).owner() or {}

    def live(self) -> LiveConfig | None:
        """The platform that the study file names, as the file is now."""
        return None if self.file is None else StudyConfig.from_file(self.file).live


def places(files: Sequence[Path], journals: Sequence[str] = ()) -> list[Place]:
    """The studies of study files and of journals, each under a key of its own.

    Raises:
        ConfigError: there is none, a file cannot be used, or it is named twice.
        JournalError: a journal cannot be used.
    """
    listed: list[Place] = []
    if len({file.resolve() for file in files}) < len(files):
        raise ConfigError(f"a study file is named twice: {', '.join(map(str, files))}")
    for name, opened, file in [*_of_files(files), *_of_journals(journals)]:
        key = _key(name)
        if any(place.key == key for place in listed):
            key = f"{key}-{len(listed) + 1}"
        listed.append(Place(key, name, opened, file))
    if not listed:
        raise ConfigError(
            "there is no study to serve: name study files with --config, or a journal with "
            "--journal"
        )
    return listed


def _of_files(files: Sequence[Path]) -> Iterator[tuple[str, Opener, Path | None]]:
    for file in files:
        study = StudyConfig.from_file(file)
        study.journal_url(file.resolve().parent)  # refused now, and not at the first request
        yield study.study, _file_opener(file), file


def _of_journals(journals: Sequence[str]) -> Iterator[tuple[str, Opener, Path | None]]:
    for url in journals:
        journal = open_journal(url, create=False)
        try:
            names = journal.studies()
        finally:
            journal.close()
        for name in names:
            yield name, _journal_opener(url, name), None


def _file_opener(file: Path) -> Opener:
    def opened(create: bool) -> Tuner:
        if not create:
            _check_begun(file)
        return open_study(file, create=create)

    return opened


def _check_begun(file: Path) -> None:
    """Refuse to read a study that nobody has asked for a plan of, or whose journal was lost.

    Raises:
        StudyNotFoundError: it has not begun.
        FencedError: its flags serve a plan all the same.
    """
    study = StudyConfig.from_file(file)
    try:
        journal = open_journal(study.journal_url(file.resolve().parent), create=False)
    except StudyNotFoundError:
        names = []
    else:
        names = journal.studies()
        journal.close()
    if study.study not in names:
        check_unserved(file, study)  # then it had begun
        raise StudyNotFoundError(
            f"the study {study.study!r} has not begun: its journal holds no plan of it. It begins "
            "with the first ask, or with 'hyperzero run'"
        )


def _journal_opener(url: str, name: str) -> Opener:
    return lambda _: Tuner.resume(url, name)


def _key(name: str) -> str:
    """A name for addresses: the study's, where it has no other characters than these."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
    if plain == name:
        return name
    return f"{plain or 'study'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
