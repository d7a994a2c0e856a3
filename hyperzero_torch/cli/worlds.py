"""Commands that tune simulated worlds, whose truth is known: demo, simulate."""

from __future__ import annotations

import enum
import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import ConfigError, MissingExtraError
from ..report import check_place, write_report
from ..simulate import (
    Environment,
    GuardrailWorld,
    Oracle,
    PaperWorld,
    ReplayWorld,
    RoundRecord,
    ValueModelWorld,
    run,
)
from ..study.config import TunerConfig
from ..study.journal import open_journal
from ..tuner.tuner import Tuner
from .output import console, show
from .own_files import BESIDE, check_only
from .world_file import write_world_file

_COLUMNS = (
    ("hour", 4), ("best", 5), ("true gain", 9), ("of oracle", 9), ("violation", 9),
    ("P(feas.)", 8), ("arms", 4), ("bucket", 6), ("in flight", 9),
)  # fmt: skip


class World(enum.StrEnum):
    """Worlds that ``simulate`` offers."""

    PAPER = "paper"
    GUARDRAIL = "guardrail"
    REPLAY = "replay"
    VALUE_MODEL = "value-model"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for study.db and report.html.")] = Path("demo"),
    rounds: Annotated[int, typer.Option(min=1, help="Hours to run.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of world and tuner.")] = 42,
    paper: Annotated[
        bool, typer.Option("--paper", help="Use the paper's Algorithms 1-3 without our changes.")
    ] = False,
) -> None:
    """Tune the paper's synthetic world from start to end, and write a report.

    30 hours, 1000 traffic slots an hour, readings at least 3 hours late. Every hour one line shows
    the recommended candidate, its true gain, and the traffic. It writes a journal and a report.

    Example:

      hyperzero demo --out demo
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be used as a folder: {error.strerror}") from None
    database = out / "study.db"
    study = "demo"
    check_only(database, study)
    check_place(out / "report.html", "report")
    if database.exists():
        show(f"replacing {database} of an earlier demo", "dim")
        database.unlink()
        for ending in BESIDE:
            Path(f"{database}{ending}").unlink(missing_ok=True)
    world = PaperWorld(seed=seed)
    config = TunerConfig.paper() if paper else TunerConfig()
    tuner = Tuner(world.problem, config, f"sqlite:///{database}", study, seed)
    _run_and_show(tuner, world, rounds, out / "report.html")
    show(f"journal  {database}   (plain SQL tables: sqlite3 {database})")
    if file := write_world_file(tuner, out, database.name):
        show(f"study    {file}   (look at it: hyperzero status -c {file})")


def simulate(
    world: Annotated[
        World,
        typer.Option(
            help="paper: Appendix A. guardrail: the optimum breaks the guardrail. "
            "replay: real A/B traffic (ASOS). value-model: a recommender's users and items."
        ),
    ] = World.PAPER,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to run.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of world and tuner.")] = 0,
    traffic: Annotated[
        float,
        typer.Option(help="Scale of the world's traffic; of value-model: of its 20,000 users."),
    ] = 1.0,
    delay: Annotated[
        int | None, typer.Option(min=0, help="Least delay of the readings, in rounds.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="guardrail: number of parameters; by default 2.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="replay: id of the A/B test; an unknown id lists them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TunerConfig as YAML or JSON; by default TunerConfig().")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Use TunerConfig.paper().")] = False,
    journal: Annotated[
        str | None, typer.Option(help="Journal URL, e.g. sqlite:///sim.db; by default memory.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the study in the journal.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per round.")] = False,
) -> None:
    """Tune a simulated platform, and compare the recommendations with the truth.

    Examples:

      hyperzero simulate --world replay --rounds 60 --report replay.html

      hyperzero simulate --world guardrail --dims 4

      hyperzero simulate --world value-model --rounds 48 --traffic 0.25

      hyperzero simulate --traffic 0.1 --seed 7 --paper
    """
    if not 0 < traffic < math.inf:
        raise ConfigError(f"--traffic must be a number above 0, got {traffic}")
    if config is not None and paper:
        raise ConfigError("--config and --paper exclude each other; drop one")
    if experiment is not None and world is not World.REPLAY:
        raise ConfigError("--experiment is for --world replay; drop it or add --world replay")
    if dims is not None and world is not World.GUARDRAIL:
        raise ConfigError("--dims is for --world guardrail; drop it or add --world guardrail")
    if resume and journal is None:
        raise ConfigError("--resume needs the --journal to continue")
    if report is not None:  # before the work, not after it
        check_place(report, "report")
    environment = make_world(world, seed, traffic, delay, dims, experiment)
    tuner_config = TunerConfig.paper() if paper else TunerConfig()
    if config is not None:
        tuner_config = TunerConfig.from_file(config)
    if world is World.REPLAY and config is None:
        tuner_config = tuner_config.model_copy(update={"rounds_per_day": 2})
    study = f"{world}-{seed}"
    if journal is not None and not resume and study in open_journal(journal).studies():
        raise ConfigError(
            f"{journal} holds the study {study!r} already; continue it with --resume, or name "
            "another journal or seed"
        )
    tuner = Tuner(environment.problem, tuner_config, journal, study, seed)
    if as_json:
        oracle = environment.oracle()
        records = []
        for record in run(tuner, environment, rounds):
            records.append(record)
            plain = {"recommendation": record.recommendation.to_dict(), "oracle_gain": oracle.gain}
            typer.echo(json.dumps(vars(record) | plain))
        if report is not None:
            write_report(tuner, report, records=records, oracle=oracle, world=environment)
        return
    if isinstance(environment, ReplayWorld):
        show(environment.describe(), "dim")
    _run_and_show(tuner, environment, rounds, report)


def make_world(
    world: World,
    seed: int,
    traffic: float,
    delay: int | None,
    dims: int | None,
    experiment: str | None,
) -> Environment:
    """A world as the options of ``hyperzero simulate`` describe it; None is the world's default."""
    lag: dict[str, Any] = {} if delay is None else {"delay": delay}
    if world is World.REPLAY:
        return ReplayWorld(experiment, seed=seed, traffic=traffic, **lag)
    if world is World.GUARDRAIL:
        return GuardrailWorld(seed, dims or 2, traffic=traffic, **lag)
    if world is World.VALUE_MODEL:
        return ValueModelWorld(seed, num_users=max(2, round(20_000 * traffic)), **lag)
    return PaperWorld(seed=seed, draws_per_slot=50 * traffic, **lag)


def _run_and_show(tuner: Tuner, world: Environment, rounds: int, report: Path | None) -> None:
    """Run with a line per round and a progress bar, then print a summary and write the report."""
    start = time.perf_counter()
    oracle = world.oracle()
    show(f"{world.name} world: maximise {world.problem.objective_name}")
    for name in world.problem.constraint_names:
        show(f"  subject to {name}")
    records: list[RoundRecord] = []
    bar = (TextColumn("hour"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
    with Progress(*bar, console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds)
        show("  ".join(name.rjust(width) for name, width in _COLUMNS), "bold")
        for record in run(tuner, world, rounds):
            records.append(record)
            show(_row(record, oracle))
            progress.update(task, completed=record.round + 1)
    console.print(_summary(tuner, world, oracle, records))
    if report is not None:
        try:
            write_report(tuner, report, records=records, oracle=oracle, world=world)
            show(f"report   {report}")
        except MissingExtraError as error:
            show(f"no report: {error}", "yellow")
    show(f"done in {time.perf_counter() - start:.1f} s")


def _row(record: RoundRecord, oracle: Oracle) -> str:
    best = record.recommendation
    cells = (
        str(record.round),
        "base" if best.candidate_id == 0 else f"#{best.candidate_id}",
        f"{record.gain:+.2%}",
        f"{record.gain / oracle.gain:.0%}",
        f"{record.violation:.4f}",
        f"{best.prob_feasible:.2f}",
        str(record.num_arms),
        str(record.num_candidates),
        str(record.num_in_flight),
    )
    return "  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS))


def _summary(tuner: Tuner, world: Environment, oracle: Oracle, records: list[RoundRecord]) -> Table:
    """The recommended parameters beside the oracle's and the base's, with their true values."""
    best = records[-1].recommendation if records else tuner.recommend()
    space = world.problem.space
    thetas = {
        f"recommended (#{best.candidate_id})": space.theta(best.parameters),
        "oracle": oracle.theta,
        "base": world.problem.base_theta,
    }
    table = Table("", *thetas, title="Result", title_justify="left")
    shown = [space.to_parameters(theta.unsqueeze(0))[0] for theta in thetas.values()]
    for name in space.names:
        values = [row[name] for row in shown]
        table.add_row(name, *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values))
    table.add_section()
    truths = [world.truth(theta.unsqueeze(0)) for theta in thetas.values()]
    table.add_row("true gain", *(f"{float(t.gain):+.3%}" for t in truths))
    table.add_row("of the best", *(f"{float(t.gain) / oracle.gain:.1%}" for t in truths))
    table.add_row("violation", *(f"{float(t.violation):.4f}" for t in truths))
    return table
