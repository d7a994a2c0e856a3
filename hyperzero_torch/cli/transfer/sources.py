"""Which domains a command is about: named as packages or journals, or those of the study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ...errors import ConfigError
from ...problem.problem import Problem
from ...study.config import StudyConfig
from ...study.evidence.active_set import fit_set
from ...study.evidence.bucket import gather
from ...study.evidence.pooling import Pooling
from ...transfer import features, from_bucket, from_journal
from ...transfer.alignment import Aligned, align
from ...transfer.journaled import recorded
from ...transfer.own import check_apart, own_evidence
from ...transfer.refresh import absolute, in_terms_of, opened
from ...transfer.sharing import package as packages
from ...transfer.source import Source
from ...tuner.tuner import Tuner
from ..study import open_study

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Packages, or journal-url#study, each also as NAME=...; by default the study's own.",
        metavar="[SOURCE]...",
    ),
]
Scope = Annotated[
    str | None, typer.Option(help="What packages are to be used for; needed to open one.")
]
_NAMED = re.compile(r"([^=/:#\\]+)=(.+)", re.DOTALL)


class Target(NamedTuple):
    """A study as its file describes it; one that has not begun is there without evidence."""

    study: StudyConfig
    folder: Path
    problem: Problem
    tuner: Tuner


def target_of(config: Path) -> Target:
    """The study that a file describes."""
    study = StudyConfig.from_file(config)
    tuner = open_study(config, create=True, dry_run=True, with_sources=False)
    return Target(study, config.resolve().parent, tuner.problem, tuner)


def gathered(
    target: Target, given: Sequence[str] | None, scope: str | None, key: bytes | None
) -> list[Aligned]:
    """The sources in the study's terms: those given, or those that it knows, or its file names.

    What the study file says of a source's names and units holds for one that is given, too.

    Raises:
        ConfigError: none, one that does not fit the study, or evidence that would count twice.
        PackageError: a package that may not be used.
        JournalError: a journal that cannot be read.
    """
    problem, folder = target.problem, target.folder
    found = [_opened(one, scope, key, target) for one in given or ()]
    found = found or list(recorded(target.tuner.history))
    found = found or [opened(config, folder, problem) for config in target.study.sources]
    if not found:
        raise ConfigError(
            f"study {target.tuner.study.name!r} has no sources; name some as packages or "
            "journal-url#study, here or in the study file"
        )
    check_apart(found, own_evidence(problem, target.tuner.history))
    return [align(source, problem) for source in found]


def evidence_of(problem: Problem, tuner: Tuner) -> Aligned | None:
    """The study itself as a domain; None before it has evidence."""
    history, config = tuner.history, tuner.config
    if not history.tables:
        return None
    bucket = gather(history, Pooling.of(config))
    if not bool((bucket.weight > 0).any()):
        return None
    meta = features.of(history, config.rounds_per_day, bucket.dispersion)
    rows = fit_set(history, bucket, config)
    name = f"{tuner.study.name} (this study)"
    return align(from_bucket(problem, bucket, name, meta, rows=rows), problem)


def _opened(given: str, scope: str | None, key: bytes | None, target: Target) -> Source:
    named = _NAMED.fullmatch(given)
    name, place = (named[1].strip(), named[2]) if named else (None, given)
    here = absolute(Path.cwd(), place)
    entries = target.study.sources
    told = next((e for e in entries if absolute(target.folder, e.source) == here), None)
    if "#" in place and ":" in place:
        source = from_journal(place, name)
    else:
        scope = scope or (None if told is None else told.scope)
        if scope is None:
            raise ConfigError(
                f"{place} is a package, which may be used only for what its maker named: say for "
                "what with --scope (hyperzero transfer inspect shows it)"
            )
        source = packages.load(place, scope, key=key).source
        source = source if name is None else replace(source, name=name)
    return source if told is None else in_terms_of(target.problem, source, told)
