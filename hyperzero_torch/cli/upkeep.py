"""Commands that correct or clean up a study: set-aside, resync, compact."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import RoundError
from ..live.clock import Schedule, SystemClock
from ..study.config import StudyConfig
from .output import note, show_json
from .study import AsJson, Config, Reason, open_study


def set_aside(
    config: Config,
    round: Annotated[list[int], typer.Option("--round", min=0, help="May be repeated.")],
    reason: Reason,
    undo: Annotated[bool, typer.Option("--undo", help="Let the rounds count again.")] = False,
) -> None:
    """Exclude rounds from the evidence, e.g. hours of an incident, or let them count again.

    Examples:

      hyperzero set-aside -c tuning.yaml --round 40 --round 41 --reason "logging was down"

      hyperzero set-aside -c tuning.yaml --round 40 --reason "the log was restored" --undo
    """
    tuner = open_study(config)
    if undo:
        tuner.study.reinstate(round, reason)
    else:
        tuner.study.set_aside(round, reason)
    note(f"excluded rounds: {sorted(tuner.history.status.excluded_rounds) or 'none'}")


def resync(config: Config, reason: Reason) -> None:
    """Count rounds on from the last planned one, after a wrong --round or a clock that was ahead.

    A round far in the future, once planned, keeps 'hyperzero run' waiting for it. This continues
    the study with the first later round of the same hour of the day; nothing is deleted. A loop
    that waits goes on by itself. A cron job that computes --round has to count from there too.

    Example:

      hyperzero resync -c tuning.yaml --reason "--round 1700 was a typo for 170"
    """
    study = StudyConfig.from_file(config)
    tuner = open_study(config)
    if study.live is None:
        last = tuner.history.last_round
        if last is None:
            raise RoundError("no round was planned yet, so there is nothing to continue")
        tuner.study.note("clock", f"rounds are counted on from {last + 1}: {reason}")
        note(f"the next round is {last + 1}: let the job that gives --round count from there")
        return
    next_round = Schedule(tuner, SystemClock(), study.live.round_seconds).resync(reason)
    note(f"the present round is {next_round}; 'hyperzero run' goes on with it")


def compact(
    config: Config,
    keep: Annotated[
        int, typer.Option(min=0, help="Latest rounds whose readings stay, e.g. 2016: 12 weeks.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Delete; by default only show what.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old readings whose evidence is pooled for good; no estimate changes.

    Readings are deleted in blocks (block_rounds, a week of hours). Each block becomes one entry of
    the journal that names the messages it came from. Rounds of a block can no longer be corrected,
    set aside or rolled back to.

    Example:

      hyperzero compact -c tuning.yaml --keep 2016 --yes
    """
    summary = open_study(config).study.compact(keep, dry_run=not yes)
    if as_json:
        show_json(summary.to_dict() | {"done": yes and bool(summary.rounds)})
        return
    if summary.why_not is not None:
        note(f"nothing to compact: {summary.why_not}")
        return
    readings = (
        f"{summary.rows} readings of {len(summary.rounds)} rounds ({summary.rounds[0]} to "
        f"{summary.rounds[-1]}), from {summary.messages} messages"
    )
    if yes:
        note(f"compacted {readings}; the first round with its readings is {summary.kept_from}")
    else:
        note(f"dry run: would compact {readings}; nothing was deleted, give --yes to delete")
