"""Commands for a platform of your own: init, step, status, recommend."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..runtime.files import write_atomically
from ..study.config import StudyConfig
from ..study.history import History
from ..study.journal import open_journal
from ..study.plan import Plan
from ..study.readings import Readings
from ..transfer.refresh import read as read_named
from ..transfer.source import Source
from ..tuner.recommend import Recommendation
from ..tuner.tuner import Tuner
from .template import TEMPLATE

console = Console()
notes = Console(stderr=True, soft_wrap=True)

Config = Annotated[
    Path, typer.Option("--config", "-c", help="Study file, as written by 'hyperzero init'.")
]
Criterion = Annotated[
    str, typer.Option(help="Rank candidates by the objective's 'mean', 'lcb' or 'ucb'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show; write nothing.")]


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("tuning.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a commented study file: parameters, base, metrics, objective, constraints, traffic."""
    text = TEMPLATE.format(name=path.name)
    if dry_run:
        typer.echo(text)
        return
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists and stays as it is; name another file, or overwrite it with --force"
        )
    write_atomically(path, text)
    notes.print(Text(f"wrote {path}; edit it, then: hyperzero step -c {path} --plan plan_0.json"))


def step(
    config: Config,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="JSON file for the next plan; else it is printed.")
    ] = None,
    readings: Annotated[
        list[Path] | None,
        typer.Option(
            "--readings",
            help="Tidy readings (.csv, .jsonl, .parquet) with the columns round, candidate, "
            "metric, count, mean, var[, revision]; can be given several times.",
        ),
    ] = None,
    round: Annotated[
        int | None,
        typer.Option("--round", min=0, help="Round to plan; by default the next one."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Take readings in, write the next plan: what a cron job calls every hour.

    Every file is checked as a whole before anything is recorded. The same files again change
    nothing and give the same plan, so a job that failed half-way is simply run again. Late hours,
    parts of an hour and corrected hours (with a higher revision) are welcome in any order.

    Without readings the next round is planned on what is known; name it with --round so that a
    repetition of the job does not plan one more.

    Example, at the start of hour 18:

      hyperzero step --config tuning.yaml --readings hour_17.csv --plan plan_18.json
    """
    if plan is not None:
        _check_writable(plan)
    messages = [Readings.from_file(path) for path in readings or []]
    news = Readings.concat(messages) if messages else None
    # First on a tuner that writes nothing: refused readings must not even start a study.
    reader = open_study(config, create=True, dry_run=True, with_sources=dry_run)
    rows = 0 if news is None else reader.study.count_new(news)
    if dry_run:
        notes.print(Text(f"dry run: {rows} new rows would be recorded, nothing was written"))
        return
    tuner = open_study(config, create=True)
    trigger = None if news is None else _digest(news, round)
    known = None if trigger is None else tuner.study.planned_for(trigger)
    if known is not None:
        notes.print(Text(f"these readings were taken before: round {known.round} stays planned"))
    elif news is not None:
        notes.print(Text(f"recorded {tuner.tell(news)} new rows of {len(news)}"))
    last = tuner.history.last_round
    if known is None and news is not None and not rows and round is None and last is not None:
        # All of it is known. Unless a job was killed between recording and planning, nothing has
        # changed since the last plan.
        known = None if tuner.history.has_news else tuner.ask(last)
    made = known if known is not None else tuner.ask(round, trigger=trigger)
    why = tuner.history.plans[made.round].details.get("why")
    if why is not None:
        notes.print(Text(f"all candidates are served alike: {why}"))
    newest = tuner.history.last_round
    if newest is not None and made.round < newest:
        notes.print(Text(f"note: this is an older plan, the last is of round {newest}"))
    _put(made, plan)


def status(config: Config, as_json: AsJson = False) -> None:
    """Where the study stands: rounds, candidates, readings that are still out."""
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
    facts: dict[str, Any] = {
        "study": tuner.study.name,
        "last_round": history.last_round,
        "candidates": max(0, history.num_candidates - 1),
        "in_flight": history.num_in_flight,
        "stopped": sorted(history.status.stopped),
        "compacted": sum(len(one.rounds) for one in history.compacted),
        "set_aside": {str(r): why for r, why in sorted(history.status.excluded_rounds.items())},
    }
    if as_json:
        typer.echo(json.dumps(facts | {"rounds": rounds}, indent=2))
        return
    last = "none planned yet" if history.last_round is None else f"last round {history.last_round}"
    console.print(
        Text(
            f"study {tuner.study.name}: {last}, {facts['candidates']} candidates, "
            f"{facts['in_flight']} arms in flight (the control counted)"
        )
    )
    if facts["stopped"]:
        console.print(Text(f"candidates that are never served again: {facts['stopped']}"))
    if facts["compacted"]:
        console.print(Text(f"rounds whose readings were compacted: {facts['compacted']}"))
    for number, why in facts["set_aside"].items():
        console.print(Text(f"round {number} does not count: {why}", style="yellow"))
    newest = history.last_round
    why = None if newest is None else history.plans[newest].details.get("why")
    if why is not None:
        console.print(Text(f"all candidates are served alike: {why}", style="yellow"))
    if rounds:
        table = Table("round", "arms", "control's share", "arms without readings")
        for row in rounds[-24:]:
            table.add_row(
                str(row["round"]),
                str(row["arms"]),
                f"{row['control_share']:.1%}",
                str(row["waiting"]),
            )
        console.print(table)


def recommend(
    config: Config,
    criterion: Criterion = "lcb",
    proven: Annotated[
        bool,
        typer.Option("--proven", help="Only who is safe by its own evidence, however often seen."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The candidate to promote, with the evidence behind it; candidate 0 is: stay with the base."""
    tuner = open_study(config)
    best = tuner.recommend(as_criterion(criterion), proven)
    if as_json:
        typer.echo(json.dumps(best.to_dict(), indent=2))
    else:
        console.print(recommendation_table(best, tuner))


def recommendation_table(best: Recommendation, tuner: Tuner) -> Table:
    """A recommendation for people: theta beside the base's, and what is believed of it."""
    table = Table(title=f"candidate {best.candidate_id}: {best.reason}", title_justify="left")
    table.add_column("")
    table.add_column("recommended", justify="right")
    table.add_column("base", justify="right")
    for name, value in best.parameters.items():
        table.add_row(Text(name), _value(value), _value(tuner.problem.base[name]))
    table.add_section()
    table.add_row(
        "objective",
        f"{best.objective_mean:.5g} [{best.objective_lcb:.5g}, {best.objective_ucb:.5g}]",
        f"{best.objective_base:.5g}",
    )
    table.add_row("P(feasible)", f"{best.prob_feasible:.3f}", "")
    for name, mean in best.delta_mean.items():
        spread = 1.96 * best.delta_var[name] ** 0.5
        table.add_row(Text(f"delta {name}"), f"{mean:+.3%} ± {spread:.3%}", "0")
    table.add_row("rounds with evidence", str(best.num_rounds), "")
    if best.proven is not None:
        table.add_row("safe by its own evidence", "yes" if best.proven else "not yet", "")
    if best.leader is not None:
        rounds = best.rounds_to_decide
        when = "more than 1000" if rounds is None else str(rounds)
        table.add_row(Text(f"rounds until candidate {best.leader} is decided"), when, "")
    return table


def as_criterion(criterion: str) -> Any:
    """What ``--criterion`` names, checked."""
    if criterion not in ("mean", "lcb", "ucb"):
        raise ConfigError(f"--criterion must be 'mean', 'lcb' or 'ucb', got {criterion!r}")
    return criterion


def open_study(
    config: Path, *, create: bool = False, dry_run: bool = False, with_sources: bool = True
) -> Tuner:
    """The tuner of a study file. Only ``step`` and ``run`` may start a study, and a dry run starts
    none; where they do, the sources that the file names and that are due are read too."""
    study = StudyConfig.from_file(config)
    problem = study.problem()
    url = study.journal_url(config.resolve().parent)
    path = Path(url.removeprefix("sqlite:///"))
    on_disk = not url.startswith("sqlite:///") or path.exists()
    if not on_disk and not create:
        raise ConfigError(
            f"there is no journal at {path} yet; make the first plan with "
            f"'hyperzero step --config {config}'"
        )
    known = on_disk and study.study in open_journal(url).studies()
    if dry_run and not known:
        tuner = Tuner(problem, study.traffic, None, study.study, study.seed)
    elif not create or dry_run:
        tuner = Tuner.resume(url, study.study, problem=problem)
    else:
        # Before the study is started: a source that cannot be used must not leave one behind.
        first = () if known else _sources(study, config, None)
        tuner = Tuner(problem, study.traffic, url, study.study, study.seed, sources=first)
    if create and with_sources and study.sources:
        found = _sources(study, config, tuner.history)
        if not dry_run:
            tuner.learn_from(found)
    return tuner


def _sources(study: StudyConfig, config: Path, history: History | None) -> tuple[Source, ...]:
    """The sources that the file names and that have to be read now."""
    problem = study.problem()
    history = history or History(problem.space.num_params, problem.metrics)
    named = read_named(study.sources, config.resolve().parent, problem, history)
    for remark in named.remarks:
        notes.print(Text(remark, style="yellow"))
    return named.sources


def _check_writable(path: Path) -> None:
    """Before anything is recorded: a plan that cannot be written would never be served."""
    if path.is_dir():
        raise ConfigError(f"--plan {path} is a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"--plan {path} cannot be written ({error.strerror}); name a file in a folder that "
            "exists and can be written to"
        ) from None


def _digest(readings: Readings, round_: int | None) -> str:
    """Identifies a message by what it says, whatever the order of its rows, and what it asks."""
    columns = (
        readings.round,
        readings.candidate,
        readings.metric,
        readings.revision,
        readings.count,
        readings.mean,
        readings.var,
    )
    rows = sorted(json.dumps(row) for row in zip(*(column.tolist() for column in columns)))
    return hashlib.sha256("\n".join([str(round_), *rows]).encode()).hexdigest()


def _put(plan: Plan, path: Path | None) -> None:
    if path is None:
        typer.echo(json.dumps(plan.to_dict(), indent=2))
        return
    plan.write(path)
    notes.print(
        Text(
            f"wrote {path}: round {plan.round}, {len(plan) - 1} arms, "
            f"{plan.control_share:.1%} of the traffic to the control"
        )
    )


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
