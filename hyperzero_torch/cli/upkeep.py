"""Commands by which people overrule a study, or clear up after it: rollback, set-aside, compact."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import RoundError
from .study import AsJson, Config, open_study

notes = Console(stderr=True, soft_wrap=True)


def rollback(
    config: Config,
    to_round: Annotated[int, typer.Option("--to-round", min=0, help="A planned round.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; write nothing.")
    ] = False,
) -> None:
    """Go on as the study was when it planned a round; nothing is deleted.

    Readings of that round and later ones count no longer, candidates born since are not served
    again. Candidates that were stopped for harm stay stopped.
    """
    tuner = open_study(config)
    if to_round not in tuner.history.plans:
        raise RoundError(f"round {to_round} was never planned; last: {tuner.history.last_round}")
    later = [r for r in tuner.history.plans if r >= to_round]
    born = sum(b.round > to_round for b in tuner.history.candidates)
    said = f"{len(later)} rounds set aside, {born} candidates withdrawn"
    if dry_run:
        notes.print(Text(f"dry run: {said}; nothing was written"))
        return
    tuner.study.roll_back(to_round, reason)
    notes.print(
        Text(
            f"rolled back to round {to_round}: {said}; the platform serves its last plan "
            "until the next one, or until hyperzero run is started again"
        )
    )


def set_aside(
    config: Config,
    round: Annotated[list[int], typer.Option("--round", min=0, help="May be given repeatedly.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let them count again.")] = False,
) -> None:
    """Keep rounds out of the evidence, e.g. hours of an incident; or let them count again."""
    tuner = open_study(config)
    if undo:
        tuner.study.reinstate(round, reason)
    else:
        tuner.study.set_aside(round, reason)
    aside = sorted(tuner.history.status.excluded_rounds)
    notes.print(Text(f"rounds set aside now: {aside or 'none'}"))


def compact(
    config: Config,
    keep: Annotated[
        int, typer.Option(min=0, help="Latest rounds whose readings stay, e.g. 2016: 12 weeks.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only say what would go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old readings whose evidence is pooled for good; no estimate changes.

    They go block by block (block_rounds, a week of hours), each block into one entry of the journal
    that says which messages it came from. Rounds of such a block cannot be corrected, set aside or
    rolled back to any more, so without --yes nothing is deleted.
    """
    told = open_study(config).study.compact(keep, dry_run=not yes)
    if as_json:
        typer.echo(json.dumps(told.to_dict() | {"done": yes and bool(told.rounds)}, indent=2))
        return
    if told.why_not is not None:
        notes.print(Text(f"nothing to compact: {told.why_not}"))
        return
    said = (
        f"{told.rows} readings of {len(told.rounds)} rounds ({told.rounds[0]} to "
        f"{told.rounds[-1]}), from {told.messages} messages"
    )
    if yes:
        notes.print(
            Text(f"compacted {said}; the first round with its readings is {told.kept_from}")
        )
    else:
        notes.print(
            Text(f"dry run: would compact {said}; nothing was deleted, give --yes for that")
        )
