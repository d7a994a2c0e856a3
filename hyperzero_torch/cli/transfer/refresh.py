"""``hyperzero transfer refresh``: read other domains' newest evidence now."""

from __future__ import annotations

import typer

from ...errors import ConfigError
from ...study.config import StudyConfig
from ...transfer.journaled import entries
from ...transfer.refresh import read
from ..output import note
from ..study import Config, DryRun, open_study

_UNREAD = 3  # the exit code of every error


def refresh(config: Config, dry_run: DryRun = False) -> None:
    """Read all sources of the study file again, due or not.

    Use it after a change of a source's map, scope or key in the study file, or when a domain has
    new evidence. A source that cannot be read stays as it was, and the exit code is 3.

    Example:

      hyperzero transfer refresh -c south.yaml --dry-run
    """
    study = StudyConfig.from_file(config)
    if not study.sources:
        raise ConfigError(f"{config} names no sources; list them under 'sources'")
    tuner = open_study(config)
    refreshed = read(
        study.sources, config.resolve().parent, tuner.problem, tuner.history, every=True
    )
    news = entries(tuner.problem, tuner.history, refreshed.sources)
    if not dry_run:
        tuner.learn_from(refreshed.sources)
    for entry in news:
        note(f"{'dry run: ' if dry_run else ''}{entry.reason}")
    if not news and not refreshed.remarks:
        note("no source has changed")
    for remark in refreshed.remarks:
        note(remark, "yellow")
    if refreshed.remarks:
        raise typer.Exit(_UNREAD)
