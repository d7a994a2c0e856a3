"""Commands of the live system: run, explain."""

from __future__ import annotations

import enum
import json
import logging
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..live.build import source_of, updater_of
from ..live.loop import Loop, Round
from ..live.retry import SystemClock
from ..live.telemetry import JsonFormatter, Telemetry
from ..study.config import StudyConfig, TunerConfig
from ..transfer.refresh import read
from ..tuner.explain import Explanation
from ..tuner.recommend import Recommendation
from ..tuner.tuner import Tuner
from .study import AsJson, Config, open_study

log_ = logging.getLogger(__name__)
console = Console()
notes = Console(stderr=True, soft_wrap=True)


class LogFormat(enum.StrEnum):
    """How ``run`` logs."""

    TEXT = "text"
    JSON = "json"


class LiveWorld(enum.StrEnum):
    """Worlds with an app of their own."""

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
        int | None, typer.Option(min=1, help="Rounds to run; by default without end (world: 24).")
    ] = None,
    out: Annotated[Path, typer.Option(help="world: folder for its log, flags and study.")] = Path(
        "living"
    ),
    seed: Annotated[int, typer.Option(min=0, help="world: seed of world and tuner.")] = 0,
    users: Annotated[int, typer.Option(min=100, help="world: number of users.")] = 20_000,
    log: Annotated[LogFormat, typer.Option(help="Log lines for people or for machines.")] = (
        LogFormat.TEXT
    ),
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics on localhost."),
    ] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write Prometheus metrics to a file after each round.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check file, paths and journal; run nothing.")
    ] = False,
) -> None:
    """Drive a study on a clock: collect, plan, serve, every hour, until told to stop.

    Killed anywhere it can be started again and goes on; several may run at once. SIGTERM and Ctrl-C
    let the round in progress finish. What fails is retried, noted in the journal and skipped; the
    platform goes on serving what it has.

    Examples:

      hyperzero run -c tuning.yaml --log json --metrics-port 9108

      hyperzero run --world value-model --rounds 24
    """
    if (config is None) == (world is None):
        raise ConfigError("name a study file with --config, or a world with --world")
    stop = threading.Event()
    if config is not None:
        tuner, loop = _live(config, stop, dry_run)
        if dry_run:
            notes.print(
                Text(f"dry run: study {tuner.study.name!r} can be run; nothing was written")
            )
            return
        with _logging(log), _until_signalled(stop):
            _drive(tuner, loop, rounds, metrics_port, metrics_file)
        return
    if dry_run:
        raise ConfigError("--dry-run is for --config; a world writes into --out only")
    from ..live.simulated import AppClock, LivingRecommender, closed_circle
    from ..simulate.recommender.world import ValueModelWorld

    made = ValueModelWorld(seed, num_users=users)
    app = LivingRecommender(made, out)
    tuner = Tuner(made.problem, TunerConfig(), f"sqlite:///{out / 'study.db'}", "living", seed)
    loop = closed_circle(tuner, app)
    assert isinstance(loop.clock, AppClock)  # made above
    try:
        with _logging(log), _until_signalled(loop.clock.stop):
            _drive(tuner, loop, rounds or 24, metrics_port, metrics_file)
    finally:
        app.close()
    best = tuner.recommend()
    truth = made.truth(made.problem.space.theta(best.parameters).unsqueeze(0))
    console.print(Text(str(best)))
    console.print(
        Text(f"true gain {float(truth.gain):+.2%}, true violation {float(truth.violation):.4f}")
    )
    console.print(Text(f"study {out / 'study.db'}, flags {out / 'flags.json'}, log {out}"))


def explain(
    config: Config,
    round: Annotated[
        int | None, typer.Option("--round", min=0, help="A planned round; by default the last.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Why each arm of a round got its traffic: what was believed then, and from which readings."""
    found = open_study(config).explain(round)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        console.print(_table(found))
        for remark in found.remarks:
            console.print(Text(f"remark: {remark}", style="yellow"))


def _live(config: Path, stop: threading.Event, dry_run: bool) -> tuple[Tuner, Loop]:
    study = StudyConfig.from_file(config)
    if study.live is None:
        raise ConfigError(f"{config} has no 'live' section; see 'hyperzero init'")
    folder = config.resolve().parent
    tuner = open_study(config, create=True, dry_run=dry_run)
    source, updater = source_of(study.live, tuner.problem, folder), updater_of(study.live, folder)
    clock = SystemClock(stop)
    keep, domains = study.live.keep_readings, None
    if study.sources:
        domains = partial(read, study.sources, folder, tuner.problem)
    loop = Loop(tuner, updater, source, clock, study.live.round_seconds, keep=keep, domains=domains)
    return tuner, loop


def _drive(
    tuner: Tuner, loop: Loop, rounds: int | None, port: int | None, file: Path | None
) -> None:
    telemetry = Telemetry(tuner.study.name) if port is not None or file is not None else None
    if telemetry is not None and port is not None:
        notes.print(Text(f"metrics on http://127.0.0.1:{telemetry.serve(port)}/metrics"))
    for done in loop.run(rounds):
        if telemetry is None:
            continue
        try:
            telemetry.observe(done, _best(tuner, done))
            if file is not None:
                telemetry.write(file)
        except Exception as error:  # what is only told must not end what is served
            log_.warning("metrics: %s: %s", type(error).__name__, error)
    notes.print(Text("stopped"))


def _best(tuner: Tuner, done: Round) -> Recommendation | None:
    return None if done.plan is None else tuner.recommend()


@contextmanager
def _logging(how: LogFormat) -> Iterator[None]:
    """The loop's log lines on standard error, in one of two forms; as before afterwards."""
    logger = logging.getLogger("hyperzero_torch")
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if how is LogFormat.JSON else plain)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _until_signalled(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop``; the handlers are put back afterwards."""

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, told) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _table(found: Explanation) -> Table:
    table = Table(
        *("candidate", "share", "slots", "P(best)", "P(feasible)", "objective", "why"),
        title=f"round {found.round}",
        title_justify="left",
    )
    for arm in sorted(found.arms, key=lambda a: (a.candidate != 0, -a.share)):
        mean, low, high = arm.objective
        rounds = len(arm.readings)
        users = sum(r.users for r in arm.readings)
        table.add_row(
            str(arm.candidate),
            f"{arm.share:.1%}",
            str(arm.slots),
            "" if arm.prob_best is None else f"{arm.prob_best:.1%}",
            "" if math.isnan(mean) else f"{arm.prob_feasible:.2f}",  # nothing was believed yet
            "" if math.isnan(mean) else f"{mean:.4g} [{low:.4g}, {high:.4g}]",
            Text(f"{'; '.join(arm.why)}; {rounds} rounds, {users:,.0f} users ({arm.origin})"),
        )
    return table
