"""The command that runs a study on a clock."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..live.build import source_of, updater_of
from ..live.clock import SystemClock
from ..live.loop import ROUNDS_BEFORE_WARNING, Loop
from ..live.observers import Observers
from ..live.telemetry import JsonFormatter, TextFormatter, check_metrics_file
from ..live.webhook import secrets_of
from ..study.config import LiveConfig, StudyConfig, TunerConfig
from ..study.history import History
from ..transfer.refresh import Named, read
from ..tuner.tuner import Tuner
from .ending import ending_within
from .output import note, show, warn
from .own_files import check_apart, check_only
from .study import DryRun, open_study
from .world_file import write_world_file

logger = logging.getLogger(__name__)


class LogFormat(enum.StrEnum):
    """How ``run`` logs."""

    TEXT = "text"
    JSON = "json"


class LiveWorld(enum.StrEnum):
    """Simulated worlds with an app of their own."""

    VALUE_MODEL = "value-model"


def run(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Study file with a 'live' section."),
    ] = None,
    world: Annotated[
        LiveWorld | None,
        typer.Option(help="Instead of a study file: a simulated recommender, hours in seconds."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to run; by default no end (world: 24).")
    ] = None,
    out: Annotated[Path, typer.Option(help="world: folder for its log, flags and journal.")] = Path(
        "living"
    ),
    seed: Annotated[int, typer.Option(min=0, help="world: seed of world and tuner.")] = 0,
    users: Annotated[int, typer.Option(min=100, help="world: number of users.")] = 20_000,
    log: Annotated[LogFormat, typer.Option(help="Log lines for people or for machines.")] = (
        LogFormat.TEXT
    ),
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve /metrics, /healthz and /readyz at this port, at live.monitoring.address.",
        ),
    ] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write Prometheus metrics to a file after each round.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Run a study on a clock: every hour collect readings, plan, and have the plan served.

    It reads the exposures and events that the study file names, and writes the journal and the
    flags or the table. It can be stopped and started again at any time, and several may run at
    once. SIGTERM and Ctrl-C let the current round finish if it does within a few seconds. A step
    that fails is retried, noted in the journal and skipped; meanwhile the platform keeps serving
    its last plan, until its lease (lease_rounds) has run out, and then the control.

    Examples:

      hyperzero run -c tuning.yaml --log json --metrics-port 9108

      hyperzero run --world value-model --rounds 24
    """
    if (config is None) == (world is None):
        raise ConfigError("name a study file with --config, or a world with --world")
    if config is None and dry_run:
        raise ConfigError("--dry-run is for --config; a world writes into --out only")
    if metrics_file is not None:
        if config is not None:
            check_apart(config, metrics_file=metrics_file)
        check_metrics_file(metrics_file)
    stop = threading.Event()
    opened: AbstractContextManager[tuple[Tuner, Loop]]
    live: LiveConfig | None = None
    with ending_within(stop):
        if config is None:
            opened, rounds = _world(out, seed, users, stop), rounds or 24
        else:
            study, driven, live = _loop_of(config, stop, dry_run)
            opened = nullcontext((study, driven))
        with opened as (tuner, loop):
            if dry_run:
                note(f"dry run: study {tuner.study.name!r} can be run; nothing was written")
                return
            with _logging(log):
                drive(tuner, loop, rounds, metrics_port, metrics_file, live)


@contextmanager
def _world(out: Path, seed: int, users: int, stop: threading.Event) -> Iterator[tuple[Tuner, Loop]]:
    """A simulated recommender. At the end its recommendation is compared with the truth."""
    from ..live.simulated import LivingRecommender, closed_circle
    from ..simulate.recommender.world import ValueModelWorld

    world = ValueModelWorld(seed, num_users=users)
    check_only(out / "study.db", "living")
    app = LivingRecommender(world, out)
    tuner = Tuner(world.problem, TunerConfig(), f"sqlite:///{out / 'study.db'}", "living", seed)
    try:
        yield tuner, closed_circle(tuner, app, stop)
    finally:
        app.close()
    best = tuner.recommend()
    truth = world.truth(world.problem.space.theta(best.parameters).unsqueeze(0))
    show(str(best))
    show(f"true gain {float(truth.gain):+.2%}, true violation {float(truth.violation):.4f}")
    show(f"journal {out / 'study.db'}, flags {out / 'flags.json'}, log {out}")
    if file := write_world_file(tuner, out, "study.db", app.live()):
        show(f"study file {file}; look at it with: hyperzero status -c {file}")


def _loop_of(config: Path, stop: threading.Event, dry_run: bool) -> tuple[Tuner, Loop, LiveConfig]:
    study = StudyConfig.from_file(config)
    if study.live is None:
        raise ConfigError(f"{config} has no 'live' section; see 'hyperzero init'")
    if study.live.alerts is not None:
        secrets_of(study.live.alerts)  # refused before anything is written
    folder = config.resolve().parent
    tuner = open_study(config, create=True, dry_run=dry_run)
    source, updater = source_of(study.live, tuner.problem, folder), updater_of(study.live, folder)
    clock = SystemClock(stop)

    def domains(history: History) -> Named:
        # Goals may be changed while the loop runs, so the problem is the one of then.
        facts = (study.sources, folder, tuner.problem, history)
        return read(*facts, revocations=study.revocations)

    loop = Loop(
        tuner,
        updater,
        source,
        clock,
        study.live.round_seconds,
        keep=study.live.keep_readings,
        domains=domains if study.sources or study.revocations else None,
        lease_rounds=study.live.lease_rounds,
    )
    return tuner, loop, study.live


def drive(
    tuner: Tuner,
    loop: Loop,
    rounds: int | None,
    port: int | None,
    file: Path | None,
    live: LiveConfig | None = None,
) -> None:
    """Run the loop, and notify its observers of each round; a failure of theirs does not end it.

    Args:
        tuner: of the loop.
        loop: what is run.
        rounds: how many; None until the loop is stopped.
        port: where metrics are served; None where only the study file says so.
        file: where metrics are written after each round; None where they are not.
        live: the study file's section; None for a world.
    """
    observers = Observers(loop, live, port, file)
    if observers.url is not None:
        note(f"metrics on {observers.url}")
    num_rounds, rows, without_readings = 0, 0, 0
    try:
        for done in loop.run(rounds):
            num_rounds, rows = num_rounds + 1, rows + done.rows
            without_readings = done.rounds_without_readings
            observers.see(done)
    finally:
        undelivered = observers.close()
    ran = f"{num_rounds} round{'s' * (num_rounds != 1)}"
    note(f"stopped after {ran}; {rows:,} new readings recorded")
    if undelivered:
        warn(f"{undelivered} alerts could not be delivered to the webhook (details in the log)")
    if without_readings >= ROUNDS_BEFORE_WARNING:
        warn(
            f"no readings of the last {without_readings} rounds have arrived (details in the "
            "journal)"
        )


@contextmanager
def _logging(log: LogFormat) -> Iterator[None]:
    """Log the loop on standard error, in one of two formats, until the context ends."""
    package = logging.getLogger("hyperzero_torch")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log is LogFormat.JSON else TextFormatter())
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
