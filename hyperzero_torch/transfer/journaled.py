"""Sources in the journal: what a study may learn from others is a decision like any other.

Each source is one ``Decision`` entry that holds its evidence, so the journal alone gives the same
plan: a study goes on without its sources being named again, and what a plan rests on can be read
years later. A source given again under its name replaces the earlier one from there on, where its
evidence differs; an expert's word (``ExpertOverride``) is an entry too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, JournalCorruptError
from ..problem.problem import Problem
from ..study.decisions import OVERRULED, SOURCE
from ..study.history import History
from ..study.journal import Decision
from .alignment import Aligned, align
from .duplicates import check_distinct
from .overrides import ExpertOverride, Whom
from .own import check_apart, own_evidence
from .sharing.package import Package
from .source import PACKAGE_HINT, Source, from_journal


def opened(sources: Iterable[Source | str]) -> tuple[Source, ...]:
    """Sources as they are given to a tuner: themselves, or as ``journal-url#study``.

    Raises:
        ConfigError: neither of the two; or evidence that would count twice.
        JournalError: the journal cannot be read, or holds no such study.
    """
    if isinstance(sources, str | Source):
        sources = [sources]
    if _is_package(sources) or not isinstance(sources, Iterable):
        hint = f"; {PACKAGE_HINT}" if _is_package(sources) else ""
        raise ConfigError(f"sources is a list of them, got {type(sources).__name__}{hint}")
    found = []
    for given in sources:
        if not isinstance(given, str | Source):
            hint = f"; {PACKAGE_HINT}" if _is_package(given) else ""
            raise ConfigError(
                "a source is a hz.transfer.Source or 'journal-url#study', got "
                f"{type(given).__name__}{hint}"
            )
        found.append(from_journal(given) if isinstance(given, str) else given)
    check_distinct(found)
    return tuple(found)


def _is_package(given: object) -> bool:
    """Whether it is a package's path, its content, or the package itself."""
    return isinstance(given, os.PathLike | Mapping | Package)


def entries(
    problem: Problem, history: History, sources: Sequence[Source], own: str = ""
) -> list[Decision]:
    """What has to be written for a study to learn from these; nothing of what it knows already.

    Args:
        problem: of the study.
        history: of it.
        sources: to learn from.
        own: where the study itself is, ``journal-url#study``, if anywhere.
    Raises:
        ConfigError: a source that cannot be aligned with the problem, the study itself, or evidence
            that would count twice.
    """
    known = {source.name: source for source in recorded(history)}
    news = [s for s in sources if s.name not in known or not _same(known[s.name], s)]
    if itself := [s.name for s in news if own and _place(s.origin) == _place(own)]:
        raise ConfigError(
            f"source {itself[0]!r} is this study itself; its evidence would count twice"
        )
    both = [*{**known, **{source.name: source for source in news}}.values()]
    check_apart(both, own_evidence(problem, history) if news else None)
    return [
        _entry(align(source, problem), source, history, source.name in known) for source in news
    ]


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
        reason += f"; of {list(aligned.missing)} it knows nothing"
    if again:
        reason += "; this replaces its earlier evidence"
    details = {"source": _plain(source), "fingerprint": source.fingerprint()}
    return Decision(history.last_round or 0, SOURCE, reason, details)


def recorded(history: History) -> tuple[Source, ...]:
    """The sources of a study, as its journal has them; the latest of each name.

    Raises:
        JournalCorruptError: an entry holds no source, or another than its fingerprint says.
    """
    latest: dict[Any, Decision] = {}
    for entry in history.decisions:
        if entry.kind == SOURCE:
            told = entry.details.get("source")
            latest[told.get("name") if isinstance(told, dict) else None] = entry
    found = []
    for entry in latest.values():
        try:
            source = _read(entry.details["source"])
        except (KeyError, TypeError, ConfigError) as error:
            raise JournalCorruptError(
                f"a source in the journal cannot be read ({error}); restore it from a backup"
            ) from None
        if source.fingerprint() != entry.details.get("fingerprint"):
            raise JournalCorruptError(
                f"the evidence of source {source.name!r} in the journal is not what was recorded; "
                "restore the journal from a backup"
            )
        found.append(source)
    return tuple(found)


def overruling(
    history: History, overrule: ExpertOverride, names: Sequence[str], parameters: Sequence[str]
) -> Decision:
    """An expert's word, as an entry; the latest holds.

    Raises:
        ConfigError: it speaks of a source or a parameter that is not there.
    """
    if not isinstance(overrule, ExpertOverride):
        raise ConfigError(
            f"sources are overruled by a hz.transfer.Overrule, got {type(overrule).__name__}"
        )
    if not overrule.reason.strip():
        raise ConfigError("an overrule needs a reason, for whoever reads the journal later")
    whom = [*overrule.pin, *overrule.forbid, *overrule.discount]
    parts = [one for one in whom if not isinstance(one, str)]
    if history.config.get("transfer") == "ensemble" and (overrule.pin or parts):
        raise ConfigError(
            "in an ensemble of posteriors (transfer: ensemble) whole sources can be forbidden or "
            f"discounted, nothing else: {overrule.words}"
        )
    overrule.rule(dict.fromkeys(names, 1.0), parameters)
    said: dict[str, Any] = {
        "pin": dict(overrule.pin),
        "forbid": [_plain_whom(whom) for whom in overrule.forbid],
        "discount": [[_plain_whom(whom), left] for whom, left in overrule.discount.items()],
        "why": overrule.reason,
    }
    reason = f"sources are overruled: {overrule.words or 'nothing'}"
    if overrule.reason:
        reason += f" ({overrule.reason})"
    return Decision(history.last_round or 0, OVERRULED, reason, said)


def overruled(history: History) -> ExpertOverride:
    """The expert's word that holds."""
    said = [entry for entry in history.decisions if entry.kind == OVERRULED]
    return word_of(said[-1]) if said else ExpertOverride()


def word_of(entry: Decision) -> ExpertOverride:
    """What an expert said, by its entry.

    Raises:
        JournalCorruptError: the entry holds no such word.
    """
    try:
        forbid, discount = entry.details["forbid"], entry.details["discount"]
        pairs = discount.items() if isinstance(discount, dict) else discount
        return ExpertOverride(
            pin=entry.details["pin"],
            forbid=[_whom(plain) for plain in forbid],
            discount={_whom(plain): left for plain, left in pairs},
            reason=entry.details.get("why", ""),
        )
    except (KeyError, IndexError, TypeError, ValueError, ConfigError) as error:
        raise JournalCorruptError(
            f"an overrule in the journal cannot be read ({error}); restore it from a backup"
        ) from None


def _plain_whom(whom: Whom) -> str | list[str]:
    return whom if isinstance(whom, str) else list(whom)


def _whom(plain: str | list[str]) -> Whom:
    return plain if isinstance(plain, str) else (plain[0], plain[1])


def _same(ours: Source, theirs: Source) -> bool:
    return (
        ours.fingerprint() == theirs.fingerprint()
        and ours.base == theirs.base
        and ours.meta_features == theirs.meta_features
    )


def _plain(source: Source) -> dict[str, Any]:
    """JSON values. Errors that all settings share are left out: the model's unknown offset of a
    domain takes them up."""
    return {
        "name": source.name,
        "parameters": [dict(row) for row in source.parameters],
        "metrics": list(source.metrics),
        "mean": _numbers(source.mean),
        "var": _numbers(source.var),
        "meta_features": dict(source.meta_features),
        "num_rounds": source.num_rounds,
        "origin": source.origin,
        "base": None if source.base is None else dict(source.base),
    }


def _read(plain: dict[str, Any]) -> Source:
    fields = dict(plain)
    for name in ("mean", "var"):
        fields[name] = torch.tensor(
            [[torch.nan if value is None else value for value in row] for row in plain[name]],
            dtype=torch.float64,
        )
    return Source(**fields)


def _numbers(values: Tensor) -> list[list[float | None]]:
    rows: list[list[float]] = values.tolist()
    return [[value if abs(value) < float("inf") else None for value in row] for row in rows]
