"""``hyperzero watch``: the status of a study, again and again while it runs."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from typing import Annotated

import typer

from ..errors import JournalError
from ..study.horizon import has_passed
from ..tuner.status import facts_of, planning_of
from .output import console, note, show, signals_to
from .status import show_status
from .study import AsJson, Config, open_study


def watch(
    config: Config,
    every: Annotated[
        float, typer.Option(min=0.1, max=86_400.0, help="Seconds between two looks.")
    ] = 10.0,
    always: Annotated[
        bool,
        typer.Option("--always", help="Show it at every look, also where nothing has changed."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the status of a study again after every round and all news, until Ctrl-C.

    It looks at the journal every --every seconds and writes nothing. On a terminal the screen is
    cleared each time; elsewhere the states follow each other. With --json each is one line, with
    the keys of 'hyperzero status --json'. Ctrl-C and SIGTERM end it with exit code 0. A journal
    that cannot be read for a while is tried again.

    Examples:

      hyperzero watch -c tuning.yaml

      hyperzero watch -c tuning.yaml --every 60 --always --json
    """
    with signals_to(signal.default_int_handler):
        try:
            _watch(config, every, always, as_json)
        except KeyboardInterrupt:
            note("stopped")


def _watch(config: Config, every: float, always: bool, as_json: bool) -> None:
    tuner = open_study(config)
    shown: tuple[int, str, bool] | None = None
    last_problem = ""
    while True:
        problem = ""
        try:
            tuner.study.sync()
            planning = planning_of(tuner)  # it changes by the clock alone, as the horizon does
            by_the_clock = "" if planning is None else planning.state
            state = tuner.history.num_entries, by_the_clock, has_passed(tuner.config.horizon)
            if state != shown or always:
                if as_json:
                    typer.echo(json.dumps(facts_of(tuner)))
                else:
                    if console.is_terminal:
                        console.clear()
                    show(f"{datetime.now():%Y-%m-%d %H:%M:%S}")
                    show_status(tuner, config)
                shown = state
        except JournalError as error:  # a database may be away for a while
            problem = f"the journal cannot be read, trying again: {error}"
        if problem and problem != last_problem:
            note(f"{datetime.now():%H:%M:%S} {problem}")
        last_problem = problem
        time.sleep(every)
