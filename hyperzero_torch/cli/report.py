"""The command that writes a study's report, once or whenever something has landed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import ConfigError, JournalError
from ..tuner.recommend import Criterion as Ranking
from ..tuner.tuner import Tuner
from .study import Config, Criterion, as_criterion, open_study

notes = Console(stderr=True, soft_wrap=True)


def report(
    config: Config,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    criterion: Criterion = "lcb",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Go on: write it anew whenever rounds or readings land."),
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=1.0, max=86_400.0, help="--watch: seconds from one look to the next."),
    ] = 60.0,
) -> None:
    """Write one self-contained HTML report with plots; it opens offline.

    With --watch the file is kept up to date, and the open page loads itself anew, until Ctrl-C or
    SIGTERM. The file is always whole: a new one takes its place in one step.

    Examples:

      hyperzero report -c tuning.yaml --out report.html

      hyperzero report -c tuning.yaml --watch --every 300
    """
    from ..report import write_report

    ranking = as_criterion(criterion)
    tuner = open_study(config)
    if not watch:
        write_report(tuner, out, criterion=ranking)
        notes.print(Text(f"wrote {out}"))
        return
    with _interruptible():
        try:
            _watch(tuner, out, ranking, every)
        except KeyboardInterrupt:
            notes.print(Text(f"stopped; {out} stays" if out.exists() else "stopped"))


def _watch(tuner: Tuner, out: Path, criterion: Ranking, every: float) -> None:
    """Until interrupted: a report, and one line, for all that has landed since the last."""
    from ..report import write_report

    shown: int | None = None  # entries of the journal that the file rests on
    said = ""
    while True:
        try:
            tuner.study.sync()
            if tuner.history.last_round is None:
                trouble = "waiting for the first round"
            else:
                trouble = ""
                if tuner.history.num_entries != shown:
                    begun = time.monotonic()
                    write_report(tuner, out, criterion=criterion, reload_every=every)
                    shown = tuner.history.num_entries
                    _say(f"{_standing(tuner)}; wrote {out} in {time.monotonic() - begun:.1f} s")
        except JournalError as error:  # a database may be away for a while
            trouble = f"the journal cannot be read, trying again: {error}"
        except ConfigError as error:  # nor may a full disk end it, once it has worked
            if shown is None:
                raise
            trouble = f"not written, trying again: {error}"
        if trouble and trouble != said:
            _say(trouble)
        said = trouble
        _pause(every)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _standing(tuner: Tuner) -> str:
    history = tuner.history
    arms = "arm" if history.num_in_flight == 1 else "arms"
    return f"round {history.last_round}, {history.num_in_flight} {arms} in flight"


def _say(what: str) -> None:
    notes.print(Text(f"{datetime.now():%H:%M:%S} {what}"))


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does, wherever a program may be; afterwards as before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; who runs this elsewhere stops it otherwise
        return
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
