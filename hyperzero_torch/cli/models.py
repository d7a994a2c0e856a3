"""The command that compares surrogates on a study's own evidence."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from ..surrogate.foreign import ForeignSurrogate, choose
from ..surrogate.foreign.names import QUICK
from ..tuner.comparison import MOST_ROUNDS
from ..tuner.gains import Comparison, Contender, Gain
from .output import console, note, show, show_json
from .study import AsJson, Config, open_study


def models(
    config: Config,
    surrogate: Annotated[
        list[str] | None,
        typer.Option(
            "--surrogate",
            help="A surrogate as in the study file: a name or module:function; may be given "
            f"several times. By default {', '.join(QUICK)}.",
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Rounds to predict at most; models are fitted before each."),
    ] = MOST_ROUNDS,
    as_json: AsJson = False,
) -> None:
    """Compare surrogates on the study's own readings, and say which to take.

    Candidates are left out one by one, and rounds are predicted from those before them. Shown are
    gains in log density over the default model, in nats, with standard errors: positive is better.
    Where no gain is larger than noise, the default stays. The journal is only read.

    Examples:

      hyperzero models -c tuning.yaml

      hyperzero models -c tuning.yaml --surrogate rbf --surrogate my_models:make --json
    """
    tuner = open_study(config)
    folder, dims = config.resolve().parent, tuner.problem.space.num_dims
    named: dict[str, ForeignSurrogate | None] | None = None
    if surrogate:
        named = {name: choose(name, dims, folder) for name in surrogate}
    compared = tuner.compare_surrogates(named, rounds=rounds)
    if as_json:
        show_json({"study": tuner.study.name} | compared.to_dict())
        return
    console.print(
        _table(compared, "candidates left out", [c.left_out for c in compared.contenders])
    )
    console.print(_table(compared, "rounds ahead", [c.ahead for c in compared.contenders], True))
    for contender in (c for c in compared.contenders if c.num_failed):
        note(_failures(contender), "yellow")
    show(compared.advice)
    if compared.advised != compared.own:
        note(
            f"this study was started with {compared.own} and keeps it; name the other under "
            f"'surrogate' in the file of a new study"
        )


def _table(compared: Comparison, what: str, gains: list[Gain], with_seconds: bool = False) -> Table:
    num = gains[0].num
    columns = [*compared.metrics, "sum", *(["seconds"] if with_seconds else [])]
    right = [Column(Text(name), justify="right") for name in columns]
    title = f"gain over the default in nats, {num} {what}"
    table = Table("surrogate", *right, title=title, title_justify="left")
    for contender, gain in zip(compared.contenders, gains):
        cells = [_cell(*pair, gain.num) for pair in zip(gain.by_metric, gain.error)]
        cells.append(_cell(gain.total, gain.total_error, gain.num))
        if with_seconds:
            cells.append(f"{contender.seconds:.1f}")
        own = " (this study's)" if contender.name == compared.own else ""
        table.add_row(Text(contender.name + own), *cells)
    return table


def _cell(gain: float, error: float, num: int) -> str:
    if num == 0:
        return "-"
    if not math.isfinite(error):
        return f"{gain:+.1f}"
    return f"{gain:+.1f} ± {error:.1f}" if gain or error else "0"


def _failures(contender: Contender) -> str:
    return (
        f"{contender.num_failed} fits of {contender.name} failed, and the default stood in: "
        f"{contender.why_failed}"
    )
