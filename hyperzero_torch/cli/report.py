"""The command that writes a study's report, once or whenever the study changes."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, JournalError
from ..tuner.recommend import Criterion as Ranking
from ..tuner.tuner import Tuner
from .output import note, signals_to
from .own_files import check_apart
from .study import Config, Criterion, as_criterion, open_study


def report(
    config: Config,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    criterion: Criterion = "lcb",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep running; write it again after new rounds or readings."),
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=1.0, max=86_400.0, help="--watch: seconds between two checks."),
    ] = 60.0,
) -> None:
    """Write one self-contained HTML report with plots; it opens offline.

    With --watch the file is kept up to date until Ctrl-C or SIGTERM, and an open page reloads
    itself. The file is replaced in one step, so it is always whole.

    Examples:

      hyperzero report -c tuning.yaml --out report.html

      hyperzero report -c tuning.yaml --watch --every 300
    """
    from ..report import check_place, write_report

    ranking = as_criterion(criterion)
    check_place(out, "report")
    check_apart(config, out=out)
    tuner = open_study(config)
    if not watch:
        write_report(tuner, out, criterion=ranking)
        note(f"wrote {out}")
        return
    with signals_to(signal.default_int_handler):
        try:
            watch_study(tuner, out, ranking, every)
        except KeyboardInterrupt:
            note(f"stopped; the last report is {out}" if out.exists() else "stopped")


def watch_study(tuner: Tuner, out: Path, criterion: Ranking, every: float) -> None:
    """Write a report, and one line, whenever the study has changed, until interrupted."""
    from ..report import write_report

    num_shown: int | None = None  # entries of the journal that the file shows
    last_problem = ""
    while True:
        problem = ""
        try:
            tuner.study.sync()
            if tuner.history.last_round is None:
                problem = "waiting for the first round"
            elif tuner.history.num_entries != num_shown:
                begin = time.monotonic()
                write_report(tuner, out, criterion=criterion, reload_every=every)
                num_shown = tuner.history.num_entries
                arms = tuner.history.num_in_flight
                _note_with_time(
                    f"round {tuner.history.last_round}, {arms} arm{'s' * (arms != 1)} in flight; "
                    f"wrote {out} in {time.monotonic() - begin:.1f} s"
                )
        except JournalError as error:  # a database may be away for a while
            problem = f"the journal cannot be read, trying again: {error}"
        except ConfigError as error:  # a full disk ends only the first attempt
            if num_shown is None:
                raise
            problem = f"not written, trying again: {error}"
        if problem and problem != last_problem:
            _note_with_time(problem)
        last_problem = problem
        _pause(every)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _note_with_time(message: str) -> None:
    note(f"{datetime.now():%H:%M:%S} {message}")
