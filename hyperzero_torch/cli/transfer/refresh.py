"""``hyperzero transfer refresh``: read other domains' newest evidence now."""

from __future__ import annotations

import typer

from ...errors import ConfigError
from ...study.config import StudyConfig
from ...transfer.journaled import entries, record
from ...transfer.refresh import read
from ..output import note
from ..study import Config, DryRun, open_study

_UNREAD = 3  # the exit code of every error


def refresh(config: Config, dry_run: DryRun = False) -> None:
    """Read all sources of the study file again, due or not.

    Use it after a change of a source's map, scope or signers in the study file, when a domain has
    new evidence, or when a key or a package was revoked. A source that cannot be read stays as it
    was, and so does one whose package has an older version than the last one. The evidence of a
    revoked one no longer counts. All three are said, and the exit code is 3; the last two are
    journaled.

    Example:

      hyperzero transfer refresh -c south.yaml --dry-run
    """
    study = StudyConfig.from_file(config)
    if not study.sources and not study.revocations:
        raise ConfigError(f"{config} names no sources; list them under 'sources'")
    tuner = open_study(config)
    folder = config.resolve().parent
    facts = (study.sources, folder, tuner.problem, tuner.history)
    refreshed = read(*facts, every=True, revocations=study.revocations)
    news = entries(tuner.problem, tuner.history, refreshed.sources)
    if not dry_run:
        record(tuner.study, refreshed.refused, refreshed.withdrawn)
        tuner.learn_from(refreshed.sources)
    for entry in news:
        note(f"{'dry run: ' if dry_run else ''}{entry.reason}")
    if not news and not refreshed.remarks:
        note("no source has changed")
    for remark in refreshed.remarks:
        note(remark, "yellow")
    if refreshed.remarks:
        raise typer.Exit(_UNREAD)
