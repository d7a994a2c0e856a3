"""Commands from a recommendation to the next base: launch, promote."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, LaunchError
from ..live.serving import platform_of
from ..study.config import StudyConfig
from ..tuner.launching import LaunchReport
from .output import note, show, show_json
from .study import AsJson, Config, DryRun, open_study

_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")
_ROUNDS = re.compile(r"\s*(\d+)\s*(d|rounds?)?\s*")

Who = Annotated[
    str | None, typer.Option("--who", help="Who decides; by default the user's name here.")
]


def launch(
    config: Config,
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", min=1, help="By default the recommended one."),
    ] = None,
    stages: Annotated[
        str, typer.Option("--stages", help="Shares of all users, ascending, with percent signs.")
    ] = "1%,5%,25%,50%,100%",
    holdback: Annotated[
        str, typer.Option("--holdback", help="Share of all users that keeps the base.")
    ] = "5%",
    keep_holdback: Annotated[
        str,
        typer.Option(
            "--keep-holdback", help="How long after the last stage began: rounds, or days as 7d."
        ),
    ] = "7d",
    tolerance: Annotated[
        str,
        typer.Option(
            "--tolerance",
            help="A stage is left once no guardrail can be broken by more than this in the next "
            "one, averaged over all users.",
        ),
    ] = "0.2%",
    alpha: Annotated[
        str,
        typer.Option(
            "--alpha", help="Probability that a harmless candidate is ever sent back, at most."
        ),
    ] = "5%",
    least_rounds: Annotated[
        int, typer.Option("--least-rounds", min=1, help="Rounds that each stage lasts at least.")
    ] = 2,
    unproven: Annotated[
        bool,
        typer.Option("--unproven", help="Although its own readings do not prove it safe."),
    ] = False,
    who: Who = None,
    reason: Annotated[str, typer.Option(help="Why; it is written to the journal.")] = "",
    status: Annotated[
        bool, typer.Option("--status", help="Show the launch and the present verdict.")
    ] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="End the launch; give a --reason.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Launch a candidate in stages of all users; the base keeps a holdback. Exploration rests.

    Each stage lasts until its guardrails are certain enough, by a test that is valid at every look.
    Where a guardrail breaks, the launch goes back by itself. Where readings are missing or absurd,
    or users do not fit the shares, it holds.

    Examples:

      hyperzero launch -c tuning.yaml --dry-run

      hyperzero launch -c tuning.yaml --candidate 141 --stages 5%,50%,100% --keep-holdback 14d

      hyperzero launch -c tuning.yaml --status

      hyperzero launch -c tuning.yaml --abort --reason "support tickets"
    """
    if sum((status, abort, dry_run)) > 1:
        raise ConfigError("give one of --status, --abort and --dry-run")
    tuner = open_study(config)
    if status:
        report = tuner.launch_status()
        if report is None:
            raise LaunchError("nothing was launched in this study yet")
        _show(report, as_json)
        return
    person = _person(who)
    if abort:
        tuner.abort_launch(reason, who=person)
        note(f"aborted{_withdrawn(config)}; the next plan explores as before")
        return
    report = tuner.launch(
        candidate,
        unproven=unproven,
        who=person,
        reason=reason,
        dry_run=dry_run,
        stages=tuple(_percent(part, "--stages") for part in stages.split(",")),
        holdback=_percent(holdback, "--holdback"),
        keep_holdback=_rounds(keep_holdback, tuner.config.rounds_per_day),
        tolerance=_percent(tolerance, "--tolerance"),
        alpha=_percent(alpha, "--alpha"),
        least_rounds=least_rounds,
    )
    _show(report, as_json)
    if dry_run:
        note("dry run: nothing was written")


def promote(
    config: Config,
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", min=1, help="By default the one whose launch is complete."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name of the next study; by default this one's, numbered."),
    ] = None,
    unlaunched: Annotated[
        bool, typer.Option("--unlaunched", help="Although no launch of it is complete.")
    ] = False,
    who: Who = None,
    reason: Annotated[str, typer.Option(help="Why; it is written to the journal.")] = "",
) -> None:
    """Make the launched candidate the base; the study goes on with its evidence as the next one.

    The next study stands in the same journal, and commands with the same study file go on with it.
    Deltas and guardrails are relative to the new base. The candidate is 0 there, and the base
    before has its number. Readings that arrive later are not carried.

    Example:

      hyperzero promote -c tuning.yaml --reason "launched for two weeks"
    """
    tuner = open_study(config)
    waiting = tuner.history.num_in_flight
    successor = tuner.promote(
        candidate, name=name, unlaunched=unlaunched, who=_person(who), reason=reason
    )
    if waiting:
        note(f"{waiting} arms had not reported; their readings are not carried", "yellow")
    values = ", ".join(f"{key}: {value}" for key, value in successor.problem.base.items())
    note(
        f"study {successor.study.name!r} goes on from round {successor.history.next_round} with "
        f"the base {{{values}}}; the study file can stay as it is"
    )


def _show(report: LaunchReport, as_json: bool) -> None:
    if as_json:
        show_json(report.to_dict())
        return
    values = ", ".join(f"{name}: {value}" for name, value in report.parameters.items())
    show(f"candidate {report.candidate} {{{values}}}")
    show(report.reason)
    if report.outcome == "planned":
        for number, (share, rounds) in enumerate(zip(report.stages, report.rounds), start=1):
            least = min(share, 1 - report.holdback)
            when = "more than 5000" if rounds is None else f"about {rounds}"
            show(f"  stage {number}: {100 * least:.4g} % of all users, {when} rounds")
        return
    show(f"{report.outcome}, stage {report.stage} of {len(report.stages)}")


def _withdrawn(config: Path) -> str:
    """Serve the control at once where the study file names the platform."""
    study = StudyConfig.from_file(config)
    if study.live is None:
        return "; the platform serves its last plan until the next one"
    platform_of(open_study(config), study.live, config.resolve().parent).withdraw()
    return ", and the platform serves the control to all users"


def _person(who: str | None) -> str:
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user of this number
        return ""


def _percent(text: str, option: str) -> float:
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{option} takes a percentage such as 5%, got {text!r}")
    return float(match[1]) / 100


def _rounds(text: str, per_day: int) -> int:
    match = _ROUNDS.fullmatch(text)
    if match is None:
        raise ConfigError(f"--keep-holdback takes rounds or days, such as 168 or 7d, got {text!r}")
    return int(match[1]) * (per_day if match[2] == "d" else 1)
