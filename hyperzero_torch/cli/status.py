"""``hyperzero status``: the state of a study in one screen."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..study import launch as launches
from ..study.acceptance import in_words
from ..study.exposure import exposure_facts
from ..study.findings import findings
from .experiment import show_experiment
from .exposure import show_exposure
from .hours import missing, show_missing
from .output import console, show, show_json
from .study import AsJson, Config, open_study
from .switch_words import show_switches, switch_facts

_LAST_ROUNDS = 24  # that are listed


def status(config: Config, as_json: AsJson = False) -> None:
    """Show where the study stands: rounds, candidates, and arms whose readings are missing.

    Example:

      hyperzero status -c tuning.yaml
    """
    tuner = open_study(config)
    history = tuner.history
    rounds = [
        {
            "round": number,
            "arms": len(planned.candidates) - 1,
            "control_share": planned.shares[0],
            "waiting": history.tables[number].num_waiting if number in history.tables else 0,
        }
        for number, planned in sorted(history.plans.items())
    ]
    facts: dict[str, Any] = (
        {
            "study": tuner.study.name,
            "last_round": history.last_round,
            "experiment_share": tuner.config.experiment_share,
            "candidates": max(0, history.num_candidates - 1),
            "in_flight": history.num_in_flight,
            "stopped": sorted(history.status.stopped),
            "compacted": sum(len(block.rounds) for block in history.compacted),
            "readmitted": sorted(history.status.readmitted.keys() - history.status.stopped),
            "quarantined": len(history.quarantined),
            "launch": launches.facts(history),
            "set_aside": {str(r): why for r, why in sorted(history.status.excluded_rounds.items())},
        }
        | switch_facts(history)
        | missing(history)
        | {"exposure": exposure_facts(history, tuner.config)}
    )
    amiss = findings(history)
    if as_json:
        show_json(facts | {"findings": [f.to_dict() for f in amiss], "rounds": rounds})
        return
    last = history.last_round
    progress = "no round planned yet" if last is None else f"last round {last}"
    show(
        f"study {tuner.study.name}: {progress}, {facts['candidates']} candidates, "
        f"{facts['in_flight']} arms in flight, control included"
    )
    show_switches(history)
    show_experiment(tuner.config)
    show_exposure(history, tuner.config)
    if facts["stopped"]:
        show(f"stopped candidates, which are not served again: {facts['stopped']}")
    if facts["compacted"]:
        show(f"rounds whose readings were compacted: {facts['compacted']}")
    for number, why in facts["set_aside"].items():
        show(f"round {number} is excluded: {why}", "yellow")
    for line in (*in_words(history), *launches.in_words(history)):
        show(line, "yellow")
    why = None if last is None else history.plans[last].trace.why_not
    if why is not None:
        show(f"traffic is split evenly: {why}", "yellow")
    show_missing(history)
    for remark in () if last is None else history.plans[last].trace.notes:
        show(remark, "yellow")
    if amiss:
        show(f"{len(amiss)} findings; what to do about them: hyperzero doctor -c {config}")
    if rounds:
        table = Table("round", "arms", "control's share", "arms without readings")
        for row in rounds[-_LAST_ROUNDS:]:
            share = f"{row['control_share']:.1%}"
            table.add_row(str(row["round"]), str(row["arms"]), share, str(row["waiting"]))
        console.print(table)
