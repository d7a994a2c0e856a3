"""The application, its commands and its exit codes."""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..errors import (
    FencedError,
    HyperZeroError,
    InputError,
    JournalError,
    MissingExtraError,
    StudyMismatchError,
    TunerWarning,
)
from ..runtime import __version__
from . import (
    doctor,
    explain,
    goals,
    launch,
    live,
    models,
    output,
    quarantine,
    report,
    serve,
    sql,
    status,
    study,
    switches,
    takeover,
    template,
    upkeep,
    verify,
    watch,
    worlds,
)
from .quiet_end import end_quietly
from .transfer.app import app as transfer_app

# The first that fits; all other errors exit with 1.
_EXIT_CODES = (
    (InputError, 3),
    (StudyMismatchError, 6),
    (JournalError, 4),
    (MissingExtraError, 5),
    (FencedError, 7),
)

app = typer.Typer(
    name="hyperzero",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Tune the weights of a live recommender from hourly A/B feedback.

A study in five minutes:

  1. hyperzero init      (writes tuning.yaml: edit it)

  2. hyperzero step -c tuning.yaml --plan plan_0.json      (serve this plan)

  3. hyperzero step -c tuning.yaml --readings hour_0.csv --plan plan_1.json      (every hour)

  4. hyperzero recommend -c tuning.yaml      (at any time)

See it work first: hyperzero demo, or with users and events: hyperzero run --world value-model

Exit codes: 0 done; 2 wrong usage; 3 input refused, nothing was changed; 4 the journal cannot be
used; 5 an optional package is missing; 6 the study has another problem or other goals than the
file, nothing was changed; 7 what is served belongs to another study, another journal or a later
round, nothing was changed; 8 a journal does not hold what was written; 1 any other error.""",
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"hyperzero {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of all commands; the help is the application's."""


app.command()(worlds.demo)
app.command()(template.init)
app.command()(study.step)
app.command()(status.status)
app.command()(watch.watch)
app.command()(doctor.doctor)
app.command()(sql.sql)
app.command()(study.recommend)
app.command()(launch.launch)
app.command()(launch.promote)
app.command()(report.report)
app.command()(worlds.simulate)
app.command()(live.run)
app.command()(explain.explain)
app.command()(models.models)
app.command()(switches.pause)
app.command()(switches.withdraw)
app.command()(switches.resume)
app.command()(switches.stop)
app.command("let-back")(switches.let_back)
app.command()(switches.pin)
app.command()(switches.unpin)
app.command()(switches.approve)
app.command()(switches.rollback)
app.command("take-over")(takeover.take_over)
app.command("set-aside")(upkeep.set_aside)
app.command()(upkeep.resync)
app.command()(upkeep.compact)
app.command()(verify.verify)
app.add_typer(goals.goals_app)
app.add_typer(serve.serve_app)
app.add_typer(quarantine.readings_app)
app.add_typer(switches.candidates_app)
app.add_typer(transfer_app)


@functools.cache
def _command() -> Any:
    """The application, built once: a program that calls ``main`` often need not wait each time."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Our errors become one message and an exit code, our warnings a line."""
    if arguments is None:  # the program itself, not a call from Python
        end_quietly()
    # Commands print what is amiss themselves; `run` adds a handler of its own.
    logging.getLogger("hyperzero_torch").addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", TunerWarning)
            show_usually = warnings.showwarning

            def show(
                message: Warning | str, category: type[Warning], *place: Any, **more: Any
            ) -> None:
                if issubclass(category, TunerWarning):
                    output.warn(str(message))
                else:
                    show_usually(message, category, *place, **more)

            warnings.showwarning = show
            _command()(args=None if arguments is None else list(arguments))
    except HyperZeroError as error:
        output.error(str(error))
        sys.exit(next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1))
