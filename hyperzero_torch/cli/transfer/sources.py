"""The domains of a command: given as packages or journals, or the study's own sources."""

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
from ...transfer import from_journal
from ...transfer.alignment import Aligned, align
from ...transfer.duplicates import check_apart, own_evidence
from ...transfer.journaled import recorded
from ...transfer.refresh import absolute, opened, translated
from ...transfer.sharing import package as packages
from ...transfer.sharing.revocation import Revocations
from ...transfer.source import Source, from_history
from ...tuner.tuner import Tuner
from ..study import open_study

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Packages or journal-url#study, optionally as NAME=...; by default the study's own.",
        metavar="[SOURCE]...",
    ),
]
Scope = Annotated[
    str | None, typer.Option(help="What packages are used for; required to open one.")
]
_NAMED = re.compile(r"([^=/:#\\]+)=(.+)", re.DOTALL)


class Target(NamedTuple):
    """A study as its file describes it; without evidence if it has not begun."""

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
    target: Target, given: Sequence[str] | None, scope: str | None, signers: Sequence[str] | None
) -> list[Aligned]:
    """Aligned sources: those given, or else those of the journal, or else of the study file.

    The study file's mapping of names and units also applies to a given source that it lists.

    Raises:
        ConfigError: none, one that does not fit the study, or evidence that would count twice.
        PackageError: a package that may not be used.
        JournalError: a journal that cannot be read.
    """
    problem, history = target.problem, target.tuner.history
    sources = [_opened(text, scope, signers, target) for text in given or ()]
    sources = sources or list(recorded(history))
    sources = sources or [opened(c, target.folder, problem) for c in target.study.sources]
    if not sources:
        raise ConfigError(
            f"study {target.tuner.study.name!r} has no sources; name some as packages or "
            "journal-url#study, here or in the study file"
        )
    check_apart(sources, own_evidence(problem, history))
    return [align(source, problem) for source in sources]


def evidence_of(problem: Problem, tuner: Tuner) -> Aligned | None:
    """The study itself as a domain; None before it has evidence."""
    if own_evidence(problem, tuner.history) is None:
        return None
    name = f"{tuner.study.name} (this study)"
    return align(from_history(problem, tuner.history, name), problem)


def _opened(text: str, scope: str | None, signers: Sequence[str] | None, target: Target) -> Source:
    named = _NAMED.fullmatch(text)
    name, place = (named[1].strip(), named[2]) if named else (None, text)
    here = absolute(Path.cwd(), place)
    listed = (c for c in target.study.sources if absolute(target.folder, c.source) == here)
    config = next(listed, None)
    if "#" in place and ":" in place:
        source = from_journal(place, name)
    else:
        scope = scope or (None if config is None else config.scope)
        if scope is None:
            raise ConfigError(
                f"{place} is a package, which may be used only for the scopes that it names: give "
                "one with --scope (hyperzero transfer inspect shows them)"
            )
        trusted = signers or (None if config is None else config.signers or None)
        file = target.study.revocations
        revoked = None if file is None else Revocations.from_file(target.folder / file)
        source = packages.load(place, scope, signers=trusted, revoked=revoked).source
        source = source if name is None else replace(source, name=name)
    return source if config is None else translated(target.problem, source, config)
