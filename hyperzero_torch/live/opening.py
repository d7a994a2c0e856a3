"""From a study file to its tuner: journal, surrogate, other domains, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FencedError, StudyNotFoundError
from ..problem.problem import Problem
from ..study import launch as launches
from ..study.config import StudyConfig
from ..study.history import History
from ..study.horizon import check_changed
from ..study.journal import open_journal
from ..surrogate.foreign import choose
from ..surrogate.foreign.names import NAMES
from ..transfer.journaled import record
from ..transfer.prior_mean import placed
from ..transfer.refresh import Named
from ..transfer.refresh import read as read_named
from ..tuner.surrogates import chosen_surrogate
from ..tuner.tuner import Tuner
from .build import updater_of
from .serve.fence import in_words


def open_study(
    config: Path,
    *,
    create: bool = False,
    dry_run: bool = False,
    with_sources: bool = True,
    anew: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Tuner:
    """The tuner of a study file.

    Args:
        config: the study file.
        create: start a study that does not exist, and read sources that are due.
        dry_run: write nothing.
        with_sources: whether sources that are due are read.
        anew: start a study although its plans are being served.
        say: takes what a person has to know, a line each.
    Raises:
        ConfigError: the file cannot be used, or there is no such study and ``create`` is false.
        JournalError: the journal cannot be used.
        FencedError: the flags serve another study, or a journal that was lost.
    """
    study = StudyConfig.from_file(config)
    problem = study.problem()
    url = study.journal_url(config.resolve().parent)
    is_started = study.study in check_started(url, config, create)
    if create and not is_started and not anew:
        check_unserved(config, study)
    surrogate = surrogate_of(study, problem, config)
    if dry_run and not is_started:
        tuner = Tuner(problem, study.tuner, None, study.study, study.seed, surrogate=surrogate)
    elif not create or dry_run:
        tuner = Tuner.resume(url, study.study, problem=problem, surrogate=surrogate)
    else:
        # Read before the study is started, so that an unusable source leaves no study behind.
        sources = () if is_started else _sources(study, config, None, say).sources
        started = (study.tuner, url, study.study, study.seed)
        tuner = Tuner(problem, *started, sources=sources, surrogate=surrogate)
    while line := launches.goes_on(tuner.history):
        if not dry_run:
            say(line)
        tuner = tuner.successor()
        if create and not dry_run:
            tuner.study.configure(study.tuner)
    if create and dry_run:  # the file's horizon would be put in force
        check_changed(study.tuner, tuner.config, tuner.history)
    if create and with_sources and (study.sources or study.revocations):
        named = _sources(study, config, tuner.history, say)
        if not dry_run:
            record(tuner.study, named.refused, named.withdrawn)
            tuner.learn_from(named.sources)
    return tuner


def surrogate_of(study: StudyConfig, problem: Problem, config: Path) -> Any:
    """What a study file means as surrogate; None for the study's own, or the package's."""
    folder = config.resolve().parent
    if study.prior_mean is not None:
        return chosen_surrogate(study.surrogate, placed(study.prior_mean, folder), problem, folder)
    if study.surrogate is None or study.surrogate in NAMES:
        return study.surrogate
    return choose(study.surrogate, problem.space.num_dims, folder)


def check_started(url: str, config: Path, create: bool = False) -> list[str]:
    """The studies of a journal, which is not made here: most commands only read."""
    try:
        journal = open_journal(url, create=False)
    except StudyNotFoundError as error:
        if create:
            return []
        reason = str(error).partition(";")[0]
        raise ConfigError(
            f"{reason} yet; make the first plan with 'hyperzero step --config {config}'"
        ) from None
    try:
        return journal.studies()
    finally:
        journal.close()


def check_unserved(config: Path, study: StudyConfig) -> None:
    """Refuse to begin a study on flags that serve a plan: its journal was lost, or they are taken.

    Raises:
        FencedError: the flags or the table serve this study, or another one.
    """
    if study.live is None:
        return
    stamp = updater_of(study.live, config.resolve().parent).owner()
    if stamp is None:
        return
    raise FencedError(
        f"the journal holds no study {study.study!r}, but {study.live.place} "
        f"serves {in_words(stamp)}: the journal was lost, another journal is named, or another "
        "study uses these flags. Nothing was written: restore the journal, name other flags, or "
        f"begin the study anew on purpose with 'hyperzero take-over --config {config}'"
    )


def _sources(
    study: StudyConfig, config: Path, history: History | None, say: Callable[[str], None]
) -> Named:
    """The sources that the file names and that are due, and those that were revoked."""
    problem = study.problem()
    history = history or History(problem.space.num_params, problem.metrics)
    folder = config.resolve().parent
    named = read_named(study.sources, folder, problem, history, revocations=study.revocations)
    for remark in named.remarks:
        say(remark)
    return named
