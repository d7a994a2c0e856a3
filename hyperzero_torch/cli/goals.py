"""Commands on the goals of a study: goals show, goals change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..live.opening import check_started, surrogate_of
from ..problem.difference import Difference, difference
from ..study.config import StudyConfig
from ..study.goals import Period, periods
from ..study.history import history_of
from ..study.journal import open_journal
from ..tuner.goals import GoalsEffect, goals_before
from ..tuner.recommend import Recommendation
from ..tuner.tuner import Tuner
from .output import note, show, show_json
from .study import AsJson, DryRun, Reason

_MOST_LISTED = 12  # candidates of a line

goals_app = typer.Typer(
    name="goals",
    no_args_is_help=True,
    help="What a study maximises, and within which guardrails and bounds: show it, or change it.",
)
File = Annotated[
    Path, typer.Option("--config", "-c", "--study-file", help="Study file with the goals.")
]


@goals_app.command("show")
def show_goals(config: File, as_json: AsJson = False) -> None:
    """Show which goals held when, who changed them and why.

    A study file whose goals differ from those in force is no error here: the differences are shown.

    Example:

      hyperzero goals show -c tuning.yaml
    """
    study, url = _located(config)
    journal = open_journal(url, create=False)
    try:
        header = journal.header(study.study)
        history = history_of(header)
        history.extend(journal.read(study.study))
    finally:
        journal.close()
    held = periods(header, history)
    differs = difference(held[-1].goals.problem, study.problem().spec())
    if as_json:
        rows = [_plain(period, history.last_round) for period in held]
        show_json({"study": study.study, "goals": rows, "file": [*differs.goals, *differs.fixed]})
        return
    for period in held:
        _show_period(period, history.last_round)
    _show_file(config, differs)


@goals_app.command("change")
def change_goals(
    config: File,
    reason: Reason,
    by: Annotated[
        str | None, typer.Option(help="Who; by default the user that runs the command.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put the goals of an edited study file in force, from the next plan on.

    The objective, guardrails, bounds, options, constraints on theta and base levels may differ.
    Parameters, the base and metrics may not. All evidence is kept. Candidates that were stopped for
    a guardrail that is gone or looser are judged anew on their evidence.

    Examples:

      hyperzero goals change -c tuning.yaml --reason "revenue may fall by 0.5 %" --dry-run

      hyperzero goals change -c tuning.yaml --reason "revenue may fall by 0.5 %" --by ann
    """
    study, url = _located(config)
    problem = study.problem()
    journal = open_journal(url, create=False)
    before = goals_before(journal, journal.header(study.study), problem)
    surrogate = surrogate_of(study, before, config)
    tuner = Tuner.resume(journal, study.study, problem=before, surrogate=surrogate)
    effect = tuner.change_goals(problem, reason=reason, by=by, dry_run=dry_run)
    if as_json:
        show_json(effect.to_dict() | {"written": effect.changed and not dry_run})
        return
    if not effect.changed:
        return  # the warning says so
    _show_effect(effect)
    if dry_run:
        note("dry run: nothing was written")
    else:
        note("changed: the next plan follows these goals; until then the platform serves its last")


def _located(config: Path) -> tuple[StudyConfig, str]:
    """The study file, and the URL of its journal, which must hold the study."""
    study = StudyConfig.from_file(config)
    url = study.journal_url(config.resolve().parent)
    if study.study not in check_started(url, config):
        raise ConfigError(
            f"study {study.study!r} has not begun, so its goals are those of {config}: edit the "
            f"file, then make the first plan with 'hyperzero step --config {config}'"
        )
    return study, url


def _show_period(period: Period, last_round: int | None) -> None:
    problem = period.goals.problem
    show(f"{_rounds(period, last_round)}: maximise {problem['objective']}")
    for name in problem["constraints"]:
        show(f"  guardrail {name}")
    for parameter in problem["parameters"]:
        show(f"  parameter {_in_words(parameter)}")
    for text in problem.get("theta_constraints", ()):
        show(f"  constraint {text}")
    if period.change is not None:
        show(f"  changed by {period.change.by}: {period.reason}")
        for sentence in period.change.differences:
            show(f"    {sentence}")


def _rounds(period: Period, last_round: int | None) -> str:
    """Which rounds were planned under these goals."""
    first = 0 if period.after is None else period.after + 1
    if not period.is_present:
        if period.last is None or period.last < first:
            return "no round"
        return f"rounds {first} to {period.last}"
    if last_round is None or last_round < first:
        return f"from round {first} on, none of which is planned yet"
    return f"from round {first} on"


def _plain(period: Period, last_round: int | None) -> dict[str, Any]:
    change = period.change
    return {
        "rounds": _rounds(period, last_round),
        "after": period.after,
        "last": period.last,
        "by": None if change is None else change.by,
        "reason": period.reason,
        "differences": [] if change is None else list(change.differences),
        "problem": dict(period.goals.problem),
    }


def _in_words(parameter: dict[str, Any]) -> str:
    if parameter["kind"] == "choice":
        return f"{parameter['name']} in {parameter['options']}"
    scale = ", logarithmic" if parameter.get("log") else ""
    return f"{parameter['name']} in [{parameter['low']}, {parameter['high']}]{scale}"


def _show_file(config: Path, differs: Difference) -> None:
    if not differs:
        return
    note(f"{config} has other goals, which are not in force:", "yellow")
    for sentence in (*differs.fixed, *differs.goals):
        note(f"  {sentence}", "yellow")
    if differs.fixed:
        note("a running study cannot take these: start another study for them", "yellow")
    else:
        note(f"put them in force: hyperzero goals change -c {config} --reason ...", "yellow")


def _show_effect(effect: GoalsEffect) -> None:
    for sentence in effect.differences:
        show(sentence)
    if effect.before is not None and effect.after is not None:
        show(f"recommended before: {_recommended(effect.before)}")
        show(f"recommended after:  {_recommended(effect.after)}")
    lines = {
        "compete again": effect.let_back,
        "outside the bounds, served no more": effect.outside,
        "no longer likely enough to be feasible": effect.no_longer_feasible,
        "now likely enough to be feasible": effect.newly_feasible,
    }
    for what, candidates in lines.items():
        if candidates:
            show(f"{what}: {_listed(candidates)}")
    for _, why in effect.stopped:
        show(why, "yellow")


def _recommended(best: Recommendation) -> str:
    return f"candidate {best.candidate_id}, P(feasible) {best.prob_feasible:.2f}: {best.reason}"


def _listed(candidates: tuple[int, ...]) -> str:
    more = f" and {len(candidates) - _MOST_LISTED} more" if len(candidates) > _MOST_LISTED else ""
    return f"candidates {', '.join(map(str, candidates[:_MOST_LISTED]))}{more}"
