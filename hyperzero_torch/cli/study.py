"""Commands for a platform of your own: step, status, recommend. And how commands open a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.table import Column, Table
from rich.text import Text

from ..errors import ConfigError
from ..live import opening
from ..study.plan import Plan
from ..study.readings import Readings
from ..study.serving import why_control_alone
from ..tuner.recommend import Criterion as Ranking
from ..tuner.recommend import Recommendation
from ..tuner.tuner import Tuner
from .experiment import whose_traffic
from .hours import check_round, warn_of_left_out, warn_of_missing
from .output import console, note, show_json
from .own_files import check_apart
from .plan_file import check_writable, write_plan
from .readings import digest, read_messages

Config = Annotated[
    Path, typer.Option("--config", "-c", help="Study file, as written by 'hyperzero init'.")
]
Criterion = Annotated[
    str, typer.Option(help="Rank candidates by the objective's 'mean', 'lcb' or 'ucb'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Reason = Annotated[str, typer.Option(help="Why; it is written to the journal.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show; write nothing.")]


def step(
    config: Config,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="JSON file for the next plan; by default it is printed."),
    ] = None,
    readings: Annotated[
        list[Path] | None,
        typer.Option(
            "--readings",
            help="Tidy readings (.csv, .jsonl, each also .gz; .parquet; - for standard input) with "
            "the columns round, candidate, metric, count, mean, var[, revision]; may be given "
            "several times.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            help="Other names of columns in the readings, ours=theirs, such as "
            "round=hour,candidate=arm.",
        ),
    ] = None,
    round: Annotated[
        int | None,
        typer.Option("--round", min=0, help="Round to plan; by default the next one."),
    ] = None,
    allow_gap: Annotated[
        bool,
        typer.Option("--allow-gap", help="Plan a --round far beyond the last planned one."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Record readings and write the next plan: the command for an hourly cron job.

    Every file is checked as a whole before anything is recorded. A job that failed half-way is
    simply run again: the same files change nothing and give the same plan. Late hours, parts of an
    hour and corrected hours (with a higher revision) may come in any order. Rows of rounds that
    were never planned are left out and named; all others count.

    Without readings the next round is planned from the readings recorded so far. Name it with
    --round, so that a repetition of the job does not plan another round.

    Examples, at the start of hour 18:

      hyperzero step --config tuning.yaml --readings hour_17.csv --plan plan_18.json

    From a query, and with other names of columns:

      psql --csv -f hour.sql | hyperzero step -c tuning.yaml --readings - --columns round=hour
    """
    if plan is not None:
        check_apart(config, plan=plan)
        check_writable(plan)
    messages = read_messages(readings or [], columns or [])
    message = Readings.concat(messages) if messages else None
    # Checked on a tuner that writes nothing, so that refused readings do not start a study.
    reader = open_study(config, create=True, dry_run=True, with_sources=dry_run)
    check_round(reader.history, round, allow_gap)
    num_new = 0 if message is None else reader.study.count_new(message, unknown="skip")
    if message is not None:
        warn_of_left_out(reader, message)
    if dry_run:
        note(f"dry run: {num_new} new rows would be recorded, nothing was written")
        return
    tuner = open_study(config, create=True)
    num_decisions = len(tuner.history.decisions)
    next_plan = tuner.ask(round) if message is None else _record(tuner, message, num_new, round)
    why = tuner.history.plans[next_plan.round].trace.why_not
    if why is not None:
        note(f"traffic is split evenly: {why}")
    warn_of_missing(tuner, next_plan.round)
    # A warning has said those that were journaled just now.
    announced = {decision.reason for decision in tuner.history.decisions[num_decisions:]}
    for remark in (r for r in next_plan.notes if r not in announced):
        note(remark, "yellow")
    last = tuner.history.last_round
    if last is not None and next_plan.round < last:
        note(f"this is an older plan; the last planned round is {last}")
    why_not = why_control_alone(tuner.history, next_plan.round)
    if why_not is not None:  # the plan was made before a switch was thrown
        note(f"{why_not}; only the control is served", "yellow")
    if plan is None:
        show_json(next_plan.to_dict() if why_not is None else next_plan.control_alone())
        return
    write_plan(next_plan, plan, why_not is None)
    note(
        f"wrote {plan}: round {next_plan.round}, {len(next_plan) - 1} arms, "
        f"{next_plan.control_share:.1%} of {whose_traffic(next_plan)} to the control"
    )


def _record(tuner: Tuner, message: Readings, num_new: int, round_: int | None) -> Plan:
    """Record a message and plan; the same message again gets the plan that it got before."""
    trigger = digest(message, round_)
    earlier = tuner.study.planned_for(trigger)
    if earlier is not None:
        note(f"these readings were recorded before; the plan of round {earlier.round} stays")
        return earlier
    num_recorded = tuner.tell(message, unknown="skip")
    note(f"recorded {num_recorded} new rows of {len(message)}")
    last = tuner.history.last_round
    if not num_new and round_ is None and last is not None and not tuner.history.has_news:
        return tuner.ask(last)  # nothing has changed since the last plan
    return tuner.ask(round_, trigger=trigger)


def recommend(
    config: Config,
    criterion: Criterion = "lcb",
    proven: Annotated[
        bool,
        typer.Option("--proven", help="Only candidates proven safe by their own readings."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the candidate to promote and its estimates; candidate 0 means: keep the base.

    Examples:

      hyperzero recommend -c tuning.yaml

      hyperzero recommend -c tuning.yaml --proven --json
    """
    tuner = open_study(config)
    best = tuner.recommend(as_criterion(criterion), proven)
    if as_json:
        show_json(best.to_dict())
    else:
        console.print(_recommendation(best, tuner))


def _recommendation(best: Recommendation, tuner: Tuner) -> Table:
    """The recommended parameters beside the base's, and the candidate's estimates."""
    right = [Column(name, justify="right") for name in ("recommended", "base")]
    title = f"candidate {best.candidate_id}: {best.reason}"
    table = Table("", *right, title=title, title_justify="left")
    for name, value in best.parameters.items():
        table.add_row(Text(name), _number(value), _number(tuner.problem.base[name]))
    table.add_section()
    interval = f"[{best.objective_lcb:.5g}, {best.objective_ucb:.5g}]"
    table.add_row(
        "objective", f"{best.objective_mean:.5g} {interval}", f"{best.objective_base:.5g}"
    )
    table.add_row("P(feasible)", f"{best.prob_feasible:.3f}", "")
    table.add_row("P(feasible and better than the base)", f"{best.prob_success:.3f}", "")
    for name, mean in best.delta_mean.items():
        spread = 1.96 * best.delta_var[name] ** 0.5
        table.add_row(Text(f"delta {name}"), f"{mean:+.3%} ± {spread:.3%}", "0")
    table.add_row("rounds with evidence", str(best.num_rounds), "")
    if best.proven is not None:
        table.add_row("proven safe by its own readings", "yes" if best.proven else "not yet", "")
    if best.leader is not None:
        when = "more than 1000" if best.rounds_to_decide is None else str(best.rounds_to_decide)
        table.add_row(f"rounds until candidate {best.leader} is decided", when, "")
    return table


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_criterion(criterion: str) -> Ranking:
    """The criterion that ``--criterion`` names, checked."""
    if criterion not in get_args(Ranking):
        raise ConfigError(f"--criterion must be 'mean', 'lcb' or 'ucb', got {criterion!r}")
    return cast(Ranking, criterion)


def open_study(
    config: Path,
    *,
    create: bool = False,
    dry_run: bool = False,
    with_sources: bool = True,
    anew: bool = False,
) -> Tuner:
    """The tuner of a study file; see ``live/opening.py``. What is to be known is printed."""
    return opening.open_study(
        config,
        create=create,
        dry_run=dry_run,
        with_sources=with_sources,
        anew=anew,
        say=lambda line: note(line, "yellow"),
    )
