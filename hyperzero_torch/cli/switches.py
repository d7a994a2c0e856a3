"""Switches that people throw: pause, withdraw, resume, stop, pin, approve, and what undoes them.

Each is written to the journal first, and then to the file that the study serves. A running loop
reads the journal before and after it serves a plan, so it does not bring back an older state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..errors import ConfigError, HyperZeroError, RoundError
from ..live.serving import platform_of, serve_now
from ..study.config import StudyConfig
from ..study.study import Study
from .output import note
from .own_files import check_apart
from .plan_file import check_writable, write_plan
from .study import Config, DryRun, Reason, open_study

By = Annotated[
    str | None, typer.Option("--by", help="Who throws the switch; by default the login name.")
]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", help="Plan file of 'hyperzero step', to bring up to date."),
]
Candidate = Annotated[int, typer.Argument(min=0, help="Its number.")]
Candidates = Annotated[list[int], typer.Argument(min=0, help="One number or several.")]

candidates_app = typer.Typer(
    name="candidates",
    no_args_is_help=True,
    help="Let stopped candidates be served again; the same as 'hyperzero let-back'.",
)

_Throw: TypeAlias = Callable[[Study], None]


def pause(config: Config, reason: Reason, by: By = None, plan: PlanFile = None) -> None:
    """Freeze the last plan: candidates and their shares stay as they are until 'resume'.

    Plans of the next rounds repeat it; no candidate is added. Readings go on, and a candidate that
    breaks a guardrail is still stopped: its share goes to the control.

    Example:

      hyperzero pause -c tuning.yaml --reason "a release until Friday"
    """
    _throw(config, plan, lambda study: study.pause(reason, by))


def withdraw(config: Config, reason: Reason, by: By = None, plan: PlanFile = None) -> None:
    """Give all traffic to the control, at once, until 'resume'.

    Until the next round nobody is counted. Plans of the next rounds have the control alone, whose
    readings go on.

    Example:

      hyperzero withdraw -c tuning.yaml --reason "an incident in the feed"
    """
    _throw(config, plan, lambda study: study.withdraw(reason, by))


def resume(config: Config, reason: Reason, by: By = None, plan: PlanFile = None) -> None:
    """End a pause, or a withdrawal: then the last plan is served again at once.

    A plan that was made while the study was withdrawn has the control alone; the next one is made
    as usual.

    Example:

      hyperzero resume -c tuning.yaml --reason "the incident is over"
    """
    _throw(config, plan, lambda study: study.resume(reason, by))


def stop(
    config: Config, candidate: Candidates, reason: Reason, by: By = None, plan: PlanFile = None
) -> None:
    """Stop candidates: they are served no more until 'let-back'.

    Where one of them is being served, the control alone is served until the next round, and nobody
    is counted: other arms cannot take its users within a round.

    Example:

      hyperzero stop 12 -c tuning.yaml --reason "the support desk reports empty feeds"
    """
    _throw(config, plan, lambda study: study.stop(candidate, reason, by))


def let_back(
    config: Config, candidate: Candidates, reason: Reason, by: By = None, plan: PlanFile = None
) -> None:
    """Let stopped candidates be served again, whoever or whatever stopped them.

    Readings of rounds planned so far do not stop them again; later ones may. The model still uses
    all their readings: set rounds aside whose readings were wrong.

    Example:

      hyperzero let-back 12 -c tuning.yaml --reason "stopped by a broken log"
    """
    _throw(config, plan, lambda study: study.readmit(candidate, reason, by))


@candidates_app.command("readmit")
def readmit(
    config: Config,
    candidate: Annotated[list[int], typer.Option("--candidate", min=0, help="May be repeated.")],
    reason: Reason,
    by: By = None,
    plan: PlanFile = None,
) -> None:
    """The same as 'hyperzero let-back'.

    Example:

      hyperzero candidates readmit -c tuning.yaml --candidate 12 --reason "stopped by a broken log"
    """
    let_back(config, candidate, reason, by, plan)


def pin(
    config: Config,
    candidate: Candidate,
    share: Annotated[float, typer.Argument(help="Fraction of the experiment, e.g. 0.05.")],
    reason: Reason,
    by: By = None,
    plan: PlanFile = None,
) -> None:
    """Give a candidate a fixed share of the experiment, from the next plan on, until 'unpin'.

    The round that is being served keeps its shares: users would change arms within it.

    Example:

      hyperzero pin 12 0.05 -c tuning.yaml --reason "the partner wants to see it"
    """
    _throw(config, plan, lambda study: study.pin(candidate, share, reason, by))


def unpin(
    config: Config, candidate: Candidate, reason: Reason, by: By = None, plan: PlanFile = None
) -> None:
    """Plan a candidate's share as usual again, from the next plan on.

    Example:

      hyperzero unpin 12 -c tuning.yaml --reason "they have seen it"
    """
    _throw(config, plan, lambda study: study.unpin(candidate, reason, by))


def approve(config: Config, reason: Reason, by: By = None, plan: PlanFile = None) -> None:
    """Approve the plan that waits (approval_above in the study file); the next plan is like it.

    Its proposer cannot: neither who ran the command that planned it, nor who pinned its candidate.

    Example:

      hyperzero approve -c tuning.yaml --by anna --reason "the report looks right"
    """
    _throw(config, plan, lambda study: study.approve(reason, by))


def rollback(
    config: Config,
    to_round: Annotated[int, typer.Option("--to-round", min=0, help="A planned round.")],
    reason: Reason,
    by: By = None,
    plan: PlanFile = None,
    dry_run: DryRun = False,
) -> None:
    """Restore the study to round N: as it was when it planned that round. Nothing is deleted.

    Readings of that round and of later rounds no longer count, and candidates added since are not
    served again. Candidates stopped for harm stay stopped. The control alone is served, at once,
    until the next round.

    Example:

      hyperzero rollback -c tuning.yaml --to-round 41 --reason "a faulty ranker went live"
    """
    tuner = open_study(config)
    if to_round not in tuner.history.plans:
        raise RoundError(f"round {to_round} was never planned; last: {tuner.history.last_round}")
    num_rounds = sum(r >= to_round for r in tuner.history.plans)
    num_candidates = sum(c.round > to_round for c in tuner.history.candidates)
    effect = f"{num_rounds} rounds excluded, {num_candidates} candidates withdrawn"
    if dry_run:
        note(f"dry run: {effect}; nothing was written")
        return
    _throw(config, plan, lambda study: study.roll_back(to_round, reason, by))
    note(f"restored to round {to_round}: {effect}")


def _throw(config: Path, plan: Path | None, switch: _Throw) -> None:
    """Write a switch to the journal, then bring up to date what is served."""
    if plan is not None:
        check_apart(config, plan=plan)
        check_writable(plan)
    live = StudyConfig.from_file(config).live
    tuner = open_study(config)
    switch(tuner.study)
    if tuner.study.sync().last_round is None:
        note("journaled; no round was planned yet, so nothing is served")
        return
    try:
        write = None if plan is None else partial(write_plan, path=plan)
        platform = (
            None if live is None else partial(platform_of, tuner, live, config.resolve().parent)
        )
        served = serve_now(tuner.study, platform, write)
    except HyperZeroError as error:
        raise ConfigError(
            "the switch is in the journal, and the next plan follows it, but what is served now "
            f"could not be changed: {error}"
        ) from error
    places = [] if live is None else [live.place]
    places += [] if plan is None else [str(plan)]
    if places:
        note(f"journaled, and written to {' and '.join(places)}: {served}")
    else:
        note(
            f"journaled: {served}. The study file names no platform, so nothing was written; name "
            "the plan file with --plan, or serve it yourself until the next plan"
        )
