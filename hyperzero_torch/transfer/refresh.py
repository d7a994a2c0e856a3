"""The sources that a study file names: when each is read, under which names and in which units.

A source is read when a study begins, and again when it is due (``SourceConfig.refresh``) or after a
drift alarm. A study never waits for other people's files: a source that cannot be read again stays
as it was, and a remark says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, HyperZeroError
from ..problem.problem import Problem
from ..study.config import SourceConfig
from ..study.history import History
from ..study.journal.trace import DRIFT, SourceAdded
from .alignment import Rescaled, align, translate
from .duplicates import check_apart, own_evidence
from .journaled import recorded
from .sharing import package
from .source import Source, from_journal


class Named(NamedTuple):
    """``sources`` to learn from now, under the target's names; ``remarks`` on unreadable ones."""

    sources: tuple[Source, ...]
    remarks: tuple[str, ...]


def read(
    configs: Sequence[SourceConfig],
    folder: Path,
    problem: Problem,
    history: History,
    every: bool = False,
) -> Named:
    """The named sources that are new or due.

    Args:
        configs: as in the study file.
        folder: of that file, which relative paths start from.
        every: whether sources that are not due are read, too.
    Raises:
        ConfigError: a source that was never read and does not fit, or two of one name.
        PackageError: a package that was never read and may not be used.
        JournalError: a journal that was never read and cannot be.
    """
    names = [_name(config) for config in configs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"sources: {twice} name more than one; give each its own 'name' in the study file"
        )
    present = {source.name: source for source in recorded(history)}
    read_at = _read_at(history)
    sources: list[Source] = []
    remarks: list[str] = []
    for name, config in zip(names, configs):
        if name in present and not every and not _due(config, read_at[name], history):
            continue
        try:
            source = opened(config, folder, problem)
            align(source, problem)
            others = {**present, **{s.name: s for s in sources}}
            # A new source that repeats the study's own evidence is refused when it is added, which
            # stops the study; a source that is present already must not stop it.
            own = own_evidence(problem, history) if name in present else None
            check_apart([*{**others, name: source}.values()], own)
        except HyperZeroError as error:
            if name not in present:
                raise
            remarks.append(f"source {name!r} stays as it was read: {error}")
            continue
        sources.append(source)
    return Named(tuple(sources), tuple(remarks))


def opened(config: SourceConfig, folder: Path, problem: Problem) -> Source:
    """One named source, under the target's names and in its units.

    Raises:
        ConfigError: it does not fit.
        PackageError: a package that may not be used.
        JournalError: a journal that cannot be read.
    """
    return translated(problem, replace(_opened(config, folder), name=_name(config)), config)


def translated(problem: Problem, source: Source, config: SourceConfig) -> Source:
    """A source under the target's names and in its units, by the mapping of its configuration.

    Raises:
        ConfigError: an invalid mapping.
    """
    mapping = {
        ours: theirs if isinstance(theirs, str) else Rescaled(theirs.name, theirs.factor)
        for ours, theirs in config.map.items()
    }
    return translate(source, problem, mapping, config.ignore)


def _opened(config: SourceConfig, folder: Path) -> Source:
    if config.is_journal:
        return from_journal(absolute(folder, config.source))
    key = None
    if config.key_env is not None:
        if not os.environ.get(config.key_env):
            raise ConfigError(
                f"source {_name(config)!r}: the environment variable {config.key_env!r} that "
                "should hold its key is not set"
            )
        key = os.environ[config.key_env].encode()
    # The configuration refuses a package without a scope.
    return package.load(absolute(folder, config.source), config.scope or "", key=key).source


def absolute(folder: Path, source: str) -> str:
    """A package's path, or a journal's address, with relative ones taken from ``folder``."""
    if "#" not in source or ":" not in source:
        return str((folder / source).resolve())
    path, _, study = source.rpartition("#")
    file = path.removeprefix("sqlite:///")
    return source if file == path else f"sqlite:///{(folder / file).resolve()}#{study}"


def _name(config: SourceConfig) -> str:
    """Its name in the journal."""
    if config.name is not None:
        return config.name
    return config.source.rpartition("#")[2] if config.is_journal else Path(config.source).stem


def _read_at(history: History) -> dict[str, int]:
    """The round of each source's last entry, by name."""
    return {
        str(entry.trace.source["name"]): entry.round
        for entry in history.decisions
        if isinstance(entry.trace, SourceAdded)
    }


def _due(config: SourceConfig, before: int, history: History) -> bool:
    """Whether its period is over, or the last round raised a drift alarm."""
    last = history.last_round
    if config.refresh is None or last is None or last <= before:
        return False
    alarmed = any(d.kind == DRIFT and d.round == last for d in history.decisions)
    return alarmed or (last - before) % config.refresh == 0
