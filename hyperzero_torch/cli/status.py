"""``hyperzero status``: the state of a study in one screen."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ..study import launch as launches
from ..study.acceptance import in_words
from ..study.findings import findings
from ..tuner.status import facts_of, rounds_of, standing_of
from ..tuner.tuner import Tuner
from .experiment import show_experiment
from .exposure import show_exposure
from .horizon import show_horizon
from .hours import show_missing
from .output import console, show, show_json
from .study import AsJson, Config, open_study
from .switch_words import show_switches

_STYLES = {"PASS": "bold", "WATCH": "yellow", "ACT": "bold red"}
_LAST_ROUNDS = 24  # that are listed


def status(config: Config, as_json: AsJson = False) -> None:
    """Show where the study stands: rounds, candidates, and arms whose readings are missing.

    With --json scripts get the same; the documentation lists its keys, which stay. 'hyperzero
    watch' shows it again while the study runs.

    Examples:

      hyperzero status -c tuning.yaml

      hyperzero status -c tuning.yaml --json
    """
    tuner = open_study(config)
    if as_json:
        show_json(facts_of(tuner))
    else:
        show_status(tuner, config)


def show_status(tuner: Tuner, config: Path) -> None:
    """The status in one screen."""
    standing = standing_of(tuner)  # it reads the journal, so it comes before the first line
    verdict, health = standing.verdict, standing.health
    history = tuner.history
    last = history.last_round
    progress = "no round planned yet" if last is None else f"last round {last}"
    show(
        f"study {tuner.study.name}: {progress}, {max(0, history.num_candidates - 1)} candidates, "
        f"{history.num_in_flight} arms in flight, control included"
    )
    show(verdict.sentence, _STYLES[verdict.state])
    for text in (verdict.why, verdict.next_step and f"next: {verdict.next_step}"):
        if text:
            show(f"  {text}")
    for card in health:
        if card.state != "PASS":
            advice = f": {card.advice}" if card.advice else ""
            show(f"{card.state} {card.name}: {card.sentence}{advice}", _STYLES[card.state])
    show_horizon(standing)
    show_switches(history, verdict.sentence)
    show_experiment(tuner.config)
    show_exposure(history, tuner.config)
    if history.status.stopped:
        stopped = sorted(history.status.stopped)
        show(f"stopped candidates, which are not served again: {stopped}")
    if history.compacted:
        num_compacted = sum(len(block.rounds) for block in history.compacted)
        show(f"rounds whose readings were compacted: {num_compacted}")
    for number, excluded_for in sorted(history.status.excluded_rounds.items()):
        show(f"round {number} is excluded: {excluded_for}", "yellow")
    for line in (*in_words(history), *launches.in_words(history)):
        show(line, "yellow")
    why = None if last is None else history.plans[last].trace.why_not
    if why is not None:
        show(f"traffic is split evenly: {why}", "yellow")
    show_missing(history)
    for remark in () if last is None else history.plans[last].trace.notes:
        show(f"when round {last} was planned: {remark}", "yellow")
    if amiss := findings(history):
        show(f"{len(amiss)} findings; what to do about them: hyperzero doctor -c {config}")
    if rounds := rounds_of(history):
        table = Table("round", "arms", "control's share", "arms without readings")
        for row in rounds[-_LAST_ROUNDS:]:
            share = f"{row['control_share']:.1%}"
            table.add_row(str(row["round"]), str(row["arms"]), share, str(row["waiting"]))
        console.print(table)
