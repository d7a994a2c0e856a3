"""The sources that a study file names: when each is read, and in whose terms it comes.

A source is read when a study begins, and again when it is due (``SourceConfig.refresh``) or an
alarm of drift says that what was believed holds no longer. A study does not wait for other people's
files: what cannot be read again stays as it was, and a remark says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..config import SourceConfig
from ..errors import ConfigError, HyperZeroError
from ..history import History
from ..problem import Problem
from ..standing import DRIFT, SOURCE
from . import package
from .align import Rescaled, align, translate
from .source import Source, from_journal


class Named(NamedTuple):
    """``sources`` to learn from now, in the target's terms; ``remarks`` on those left as were."""

    sources: tuple[Source, ...]
    remarks: tuple[str, ...]


def read(
    configs: Sequence[SourceConfig], folder: Path, problem: Problem, history: History
) -> Named:
    """Those of the named sources that are new or due.

    Args:
        configs: as in the study file.
        folder: of that file, which relative paths start from.
        problem: the target.
        history: of the target's study.
    Raises:
        ConfigError: a source that was never read and does not fit, or two of one name.
        PackageError: a package that was never read and may not be used.
        JournalError: a journal that was never read and cannot be.
    """
    sources, remarks = [], []
    read_at = _read_at(history)
    for config in configs:
        before = read_at.get(_name(config))
        if before is not None and not _due(config, before, history):
            continue
        try:
            found = opened(config, folder, problem)
            align(found, problem)
        except HyperZeroError as error:
            if before is None:
                raise
            remarks.append(f"source {config.source!r} stays as it was read: {error}")
            continue
        sources.append(found)
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"sources: {twice} name more than one; tell them apart by 'name' in the study file"
        )
    return Named(tuple(sources), tuple(remarks))


def opened(config: SourceConfig, folder: Path, problem: Problem) -> Source:
    """One named source, in the target's terms.

    Raises:
        ConfigError: it does not fit.
        PackageError: a package that may not be used.
        JournalError: a journal that cannot be read.
    """
    return in_terms_of(problem, replace(_opened(config, folder), name=_name(config)), config)


def in_terms_of(problem: Problem, source: Source, config: SourceConfig) -> Source:
    """A source under the target's names and in its units, as its entry says.

    Raises:
        ConfigError: a mapping that cannot be.
    """
    mapping = {
        ours: theirs if isinstance(theirs, str) else Rescaled(theirs.name, theirs.factor)
        for ours, theirs in config.map.items()
    }
    return translate(source, problem, mapping, config.ignore)


def _opened(config: SourceConfig, folder: Path) -> Source:
    if config.is_journal:
        return from_journal(_from(folder, config.source))
    key = None
    if config.key_env is not None:
        if not os.environ.get(config.key_env):
            raise ConfigError(
                f"source {config.source!r}: the environment variable {config.key_env!r} that "
                "should hold its key is not set"
            )
        key = os.environ[config.key_env].encode()
    assert config.scope is not None  # checked by the configuration
    return package.load(folder / config.source, config.scope, key=key).source


def _from(folder: Path, address: str) -> str:
    """A journal's address, with a relative SQLite path taken from ``folder``."""
    head, mark, rest = address.partition("sqlite:///")
    if head or not mark or Path(rest).is_absolute():
        return address
    return f"sqlite:///{folder / rest}"


def _name(config: SourceConfig) -> str:
    """What the journal calls it."""
    if config.name is not None:
        return config.name
    return config.source.rpartition("#")[2] if config.is_journal else Path(config.source).stem


def _read_at(history: History) -> dict[str, int]:
    """Rounds after which sources were read last, by name."""
    found = {}
    for entry in history.decisions:
        if entry.kind == SOURCE:
            found[str(entry.details["source"]["name"])] = entry.round
    return found


def _due(config: SourceConfig, before: int, history: History) -> bool:
    if config.refresh is None:
        return False
    alarmed = any(d.kind == DRIFT and d.round > before for d in history.decisions)
    return alarmed or (history.last_round or 0) - before >= config.refresh
