"""The sources that a study file names: when each is read, under which names and in which units.

A source is read when a study begins, and again when it is due (``SourceConfig.refresh``) or after a
drift alarm. A study never waits for other people's files: a source that cannot be read again stays
as it was, and a remark says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, HyperZeroError
from ..problem.problem import Problem
from ..study.config import SourceConfig
from ..study.history import History
from ..study.journal.source_trace import SourceAdded
from ..study.journal.trace import DRIFT
from .alignment import Rescaled, align, translate
from .duplicates import check_apart, own_evidence
from .journaled import Refusal, last_terms, recorded
from .sharing import package
from .sharing.revocation import Revocations
from .sharing.terms import terms_of, why_older
from .source import Source, from_journal


class Named(NamedTuple):
    """``sources`` to learn from now, under the target's names; ``remarks`` on unreadable ones.

    ``refused`` are packages that are older than the last one learned from, or revoked;
    ``withdrawn`` are sources whose evidence must no longer count. ``journaled.record`` journals
    both.
    """

    sources: tuple[Source, ...]
    remarks: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()
    withdrawn: tuple[Refusal, ...] = ()


def read(
    configs: Sequence[SourceConfig],
    folder: Path,
    problem: Problem,
    history: History,
    every: bool = False,
    revocations: str | None = None,
) -> Named:
    """The named sources that are new or due, and those that were revoked, due or not.

    Args:
        configs: as in the study file.
        folder: of that file, which relative paths start from.
        every: whether sources that are not due are read, too.
        revocations: file of keys and packages not to be used, if the study file names one.
    Raises:
        ConfigError: a source that was never read and does not fit, or two of one name.
        PackageError: a package that was never read and may not be used, or a file of revocations
            that cannot be read.
        JournalError: a journal that was never read and cannot be.
    """
    revoked = None if revocations is None else Revocations.from_file(folder / revocations)
    names = [_name(config) for config in configs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"sources: {twice} name more than one; give each its own 'name' in the study file"
        )
    present = {source.name: source for source in recorded(history)}
    withdrawn = _revoked(present, revoked)
    for refusal in withdrawn:
        del present[refusal.name]
    read_at, before = _read_at(history), last_terms(history)
    sources: list[Source] = []
    remarks: list[str] = [refusal.text for refusal in withdrawn]
    refused: list[Refusal] = []
    for name, config in zip(names, configs):
        if name in read_at and not every and not _due(config, read_at[name], history):
            continue
        try:
            source = opened(config, folder, problem, revoked)
            terms = terms_of(source.origin)
            why = why_older(before.get(name), terms)
            if why is not None and terms is not None:
                text = f"source {name!r}: its package is refused: {why}"
                refused.append(Refusal(name, text, terms.sha256))
                continue
            align(source, problem)
            others = {**present, **{s.name: s for s in sources}}
            # A new source that repeats the study's own evidence is refused when it is added, which
            # stops the study; a source that is present already must not stop it.
            own = own_evidence(problem, history) if name in present else None
            check_apart([*{**others, name: source}.values()], own)
        except HyperZeroError as error:
            if name not in read_at:
                raise
            stays = "stays as it was read" if name in present else "is not read again"
            remarks.append(f"source {name!r} {stays}: {error}")
            continue
        sources.append(source)
    remarks += [refusal.text for refusal in refused]
    return Named(tuple(sources), tuple(remarks), tuple(refused), tuple(withdrawn))


def _revoked(present: Mapping[str, Source], revoked: Revocations | None) -> list[Refusal]:
    """Sources whose package, or the key that signed it, is revoked."""
    refusals = []
    for name, source in present.items():
        terms = terms_of(source.origin)
        if revoked is None or terms is None:
            continue
        why = revoked.why(terms.sha256, terms.signer)
        if why is not None:
            text = f"source {name!r} is withdrawn: {why}; its evidence no longer counts"
            refusals.append(Refusal(name, text, terms.sha256))
    return refusals


def opened(
    config: SourceConfig, folder: Path, problem: Problem, revoked: Revocations | None = None
) -> Source:
    """One named source, under the target's names and in its units.

    Args:
        config: as in the study file.
        folder: of that file.
        problem: the target's.
        revoked: keys and packages that are not to be used.
    Raises:
        ConfigError: it does not fit.
        PackageError: a package that may not be used.
        JournalError: a journal that cannot be read.
    """
    return translated(
        problem, replace(_opened(config, folder, revoked), name=_name(config)), config
    )


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


def _opened(config: SourceConfig, folder: Path, revoked: Revocations | None) -> Source:
    if config.is_journal:
        return from_journal(absolute(folder, config.source))
    # The configuration refuses a package without a scope.
    place, scope = absolute(folder, config.source), config.scope or ""
    return package.load(place, scope, signers=config.signers or None, revoked=revoked).source


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
