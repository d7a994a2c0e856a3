"""Sources in the journal: what a study may learn from is a decision like any other.

Each source is one ``Decision`` entry that holds its evidence, so the journal alone gives the same
plans: a study resumes without its sources being named again, and the evidence behind a plan can be
read years later. A source that is given again under its name replaces the earlier one from then on,
if its evidence differs. An expert's override (``ExpertOverride``) is an entry too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, JournalCorruptError, PackageError
from ..problem.problem import Problem
from ..study.history import History
from ..study.journal import Decision
from ..study.journal.source_trace import (
    SourceAdded,
    SourceRefused,
    SourcesOverridden,
    SourceWithdrawn,
)
from ..study.study import Study
from .alignment import Aligned, align
from .duplicates import check_apart, check_distinct, own_evidence
from .overrides import ExpertOverride, Subject
from .sharing.package import Package
from .sharing.terms import Terms, terms_of, why_older
from .source import PACKAGE_HINT, Source, from_journal


class Refusal(NamedTuple):
    """Why a package of a source is not learned from, or no longer; ``sha256`` is the package's."""

    name: str
    text: str
    sha256: str


def opened(sources: Iterable[Source | str]) -> tuple[Source, ...]:
    """Sources as they are given to a tuner: themselves, or as ``journal-url#study``.

    Raises:
        ConfigError: neither of the two; or evidence that would count twice.
        JournalError: the journal cannot be read, or holds no such study.
    """
    if isinstance(sources, str | Source):
        sources = [sources]
    if _is_package(sources) or not isinstance(sources, Iterable):
        raise ConfigError(
            f"sources must be a list of sources, got {type(sources).__name__}{_hint(sources)}"
        )
    opened_sources = []
    for given in sources:
        if not isinstance(given, str | Source):
            raise ConfigError(
                "a source is a hz.transfer.Source or 'journal-url#study', got "
                f"{type(given).__name__}{_hint(given)}"
            )
        opened_sources.append(from_journal(given) if isinstance(given, str) else given)
    check_distinct(opened_sources)
    return tuple(opened_sources)


def _is_package(given: object) -> bool:
    """Whether it is a package's path, its content, or the package itself."""
    return isinstance(given, os.PathLike | Mapping | Package)


def _hint(given: object) -> str:
    return f"; {PACKAGE_HINT}" if _is_package(given) else ""


def learn_from(study: Study, sources: Sequence[Source]) -> None:
    """Let a study learn from these sources from here on; journaled.

    Raises:
        ConfigError: as ``entries`` does; then none is recorded.
    """
    if sources:
        url = getattr(study.journal, "url", None)
        place = "" if url is None else url.render_as_string(hide_password=True)
        own = f"{place}#{study.name}" if place else ""
        study.append(lambda history: (entries(study.problem, history, sources, own), None))


def override_sources(study: Study, override: ExpertOverride) -> None:
    """Put an expert's override in force, until the next; journaled.

    Raises:
        ConfigError: as ``override_entry`` does.
    """
    parameters = study.problem.space.names

    def decide(history: History) -> tuple[list[Decision], None]:
        names = [source.name for source in recorded(history)]
        return [override_entry(history, override, names, parameters)], None

    study.append(decide)


def entries(
    problem: Problem, history: History, sources: Sequence[Source], own: str = ""
) -> list[Decision]:
    """The entries that let a study learn from these sources; none for what it has already.

    Args:
        own: where the study itself is, ``journal-url#study``, if anywhere.
    Raises:
        ConfigError: a source that cannot be aligned with the problem, the study itself, or evidence
            that would count twice.
        PackageError: a package of an earlier version than the last one learned from.
    """
    present = {source.name: source for source in recorded(history)}
    before = last_terms(history)
    for source in sources:
        why = why_older(before.get(source.name), terms_of(source.origin))
        if why is not None:
            raise PackageError(f"the package of source {source.name!r} is refused: {why}")
    new = [s for s in sources if s.name not in present or not _same(present[s.name], s)]
    if itself := [s.name for s in new if own and _place(s.origin) == _place(own)]:
        raise ConfigError(
            f"source {itself[0]!r} is this study itself; its evidence would count twice"
        )
    every = [*{**present, **{source.name: source for source in new}}.values()]
    check_apart(every, own_evidence(problem, history) if new else None)
    return [_entry(align(s, problem), s, history, s.name in present) for s in new]


def _place(address: str) -> str:
    """An address in one form: relative paths of SQLite as absolute ones."""
    path, mark, study = address.rpartition("#")
    file = path.removeprefix("sqlite:///")
    return f"{Path(file).resolve()}#{study}" if mark and file != path else address


def _entry(aligned: Aligned, source: Source, history: History, again: bool) -> Decision:
    rows = f"{len(aligned.rows)} settings"
    if aligned.num_outside:
        rows += f" ({aligned.num_outside} outside the target's space are left out)"
    reason = f"the study may learn from {source.name!r}: {rows}"
    if aligned.missing:
        reason += f"; it has no evidence on {list(aligned.missing)}"
    if again:
        reason += "; this replaces its earlier evidence"
    trace = SourceAdded(source=_plain(source), fingerprint=source.fingerprint())
    return Decision.of(history.last_round or 0, reason, trace)


def recorded(history: History) -> tuple[Source, ...]:
    """The sources of a study, as its journal has them; the latest of each name.

    Raises:
        JournalCorruptError: an entry holds no source, or another than its fingerprint says.
    """
    latest: dict[Any, SourceAdded] = {}
    for trace in (d.trace for d in history.decisions):
        if isinstance(trace, SourceAdded):
            latest[trace.source.get("name")] = trace
        elif isinstance(trace, SourceWithdrawn):
            latest.pop(trace.name, None)
    sources = []
    for trace in latest.values():
        try:
            source = Source.from_plain(dict(trace.source))
        except (KeyError, TypeError, ConfigError) as error:
            raise JournalCorruptError(
                f"a source in the journal cannot be read ({error}); restore it from a backup"
            ) from None
        if source.fingerprint() != trace.fingerprint:
            raise JournalCorruptError(
                f"the evidence of source {source.name!r} in the journal is not what was recorded; "
                "restore the journal from a backup"
            )
        sources.append(source)
    return tuple(sources)


def last_terms(history: History) -> dict[str, Terms]:
    """By source, the terms of the last package that was learned from, withdrawn or not."""
    terms = {}
    for trace in (d.trace for d in history.decisions):
        if isinstance(trace, SourceAdded):
            own = terms_of(str(trace.source.get("origin")))
            if own is not None:
                terms[str(trace.source.get("name"))] = own
    return terms


def record(study: Study, refused: Sequence[Refusal], withdrawn: Sequence[Refusal]) -> None:
    """Journal packages that were refused, and withdraw the evidence of sources; once each."""

    def decide(history: History) -> tuple[list[Decision], None]:
        present = {source.name for source in recorded(history)}
        noted = {d.reason for d in history.decisions if isinstance(d.trace, SourceRefused)}
        round_ = history.last_round or 0
        new = [
            Decision.of(round_, r.text, SourceRefused(name=r.name, sha256=r.sha256))
            for r in refused
            if r.text not in noted
        ]
        new += [
            Decision.of(round_, r.text, SourceWithdrawn(name=r.name, sha256=r.sha256))
            for r in withdrawn
            if r.name in present
        ]
        return new, None

    if refused or withdrawn:
        study.append(decide)


def check(history: History) -> None:
    """Read the sources and the override; a ``JournalCorruptError`` where one cannot be read."""
    recorded(history)
    current_override(history)


def override_entry(
    history: History, override: ExpertOverride, names: Sequence[str], parameters: Sequence[str]
) -> Decision:
    """An expert's override as an entry; the latest holds.

    Raises:
        ConfigError: it has no reason, or names a source or a parameter that does not exist.
    """
    if not isinstance(override, ExpertOverride):
        raise ConfigError(
            f"sources are overridden by a hz.transfer.ExpertOverride, got {type(override).__name__}"
        )
    if not override.reason.strip():
        raise ConfigError("an override needs a reason, for whoever reads the journal later")
    override.check(names, parameters)
    trace = SourcesOverridden(
        pin=dict(override.pin),
        forbid=tuple(_to_plain(subject) for subject in override.forbid),
        discount=[[_to_plain(subject), part] for subject, part in override.discount.items()],
        reason=override.reason,
    )
    reason = f"sources are overridden: {override.summary or 'nothing'} ({override.reason})"
    return Decision.of(history.last_round or 0, reason, trace)


def current_override(history: History) -> ExpertOverride:
    """The expert's override that holds; an empty one where there is none."""
    traces = [d.trace for d in history.decisions if isinstance(d.trace, SourcesOverridden)]
    return override_from(traces[-1]) if traces else ExpertOverride()


def override_from(trace: SourcesOverridden) -> ExpertOverride:
    """An expert's override, as the journal has it.

    Raises:
        JournalCorruptError: it cannot be one.
    """
    try:
        discount = trace.discount
        pairs = discount.items() if isinstance(discount, dict) else discount
        discounts = {s if isinstance(s, str) else tuple(s): part for s, part in pairs}
        return ExpertOverride(
            pin=trace.pin, forbid=trace.forbid, discount=discounts, reason=trace.reason
        )
    except (KeyError, IndexError, TypeError, ValueError, ConfigError) as error:
        raise JournalCorruptError(
            f"an override in the journal cannot be read ({error}); restore it from a backup"
        ) from None


def _to_plain(subject: Subject) -> str | list[str]:
    return subject if isinstance(subject, str) else list(subject)


def _same(ours: Source, theirs: Source) -> bool:
    return (
        ours.fingerprint() == theirs.fingerprint()
        and ours.base == theirs.base
        and ours.meta_features == theirs.meta_features
    )


def _plain(source: Source) -> dict[str, Any]:
    """JSON values. Errors that all settings share are left out: they are an offset, and the model
    gives every domain an unknown offset."""
    return source.to_plain() | {"origin": source.origin}
