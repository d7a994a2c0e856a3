"""``hyperzero transfer overrule``: an expert's word on the sources of a study."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ...errors import ConfigError
from ...transfer.journaled import overruled, overruling, recorded
from ...transfer.overrides import ExpertOverride, Whom, called
from ..study import Config, DryRun, open_study

notes = Console(stderr=True, soft_wrap=True)

_WHOM = "SOURCE or SOURCE:PARAMETER"


def overrule(
    config: Config,
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")],
    pin: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE=0.8: correlates with this study by that, whatever is learnt."),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(help=f"{_WHOM}: nothing that it says is believed.")
    ] = None,
    discount: Annotated[
        list[str] | None, typer.Option(help=f"{_WHOM}=0.5: that part of it is believed.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Overrule what was learnt about sources: pin, forbid or discount them, until the next word.

    All that holds is said at once: a word that is not said again no longer holds, and --reason
    alone takes all words back. What a source says about a forbidden parameter is not believed: it
    is asked only at this study's base value of it.

    Example:

      hyperzero transfer overrule -c south.yaml --discount north=0.5 --forbid east:w_share \\
        --reason "east counts shares since May"
    """
    tuner = open_study(config)
    names = [source.name for source in recorded(tuner.history)]
    parameters = tuner.problem.space.names
    word = ExpertOverride(
        pin=_numbers("--pin", pin or [], names),
        forbid=[_whom(one, names) for one in forbid or ()],
        discount=_numbers("--discount", discount or [], names),
        reason=reason,
    )
    entry = overruling(tuner.history, word, names, parameters)
    before = overruled(tuner.history)
    for kind in ("pin", "forbid", "discount"):
        gone = [whom for whom in getattr(before, kind) if whom not in getattr(word, kind)]
        if gone:
            said = ", ".join(map(called, gone))
            notes.print(Text(f"no longer holds: {kind} {said}", style="yellow"))
    if dry_run:
        notes.print(Text(f"dry run: {entry.reason}; nothing was written"))
        return
    tuner.overrule(word)
    notes.print(Text(f"{entry.reason}; it counts from the next plan on"))


def _whom(given: str, names: list[str]) -> Whom:
    """A source, whose name may hold colons, or one parameter of it."""
    if given in names:
        return given
    source, colon, parameter = given.rpartition(":")
    return (source, parameter) if colon else given


def _numbers(option: str, given: list[str], names: list[str]) -> dict[Whom, float]:
    found: dict[Whom, float] = {}
    for one in given:
        whom, number = _number(option, one, names)
        if whom in found:
            raise ConfigError(
                f"{option} says {one!r} and {found[whom]:g} of the same; name it once"
            )
        found[whom] = number
    return found


def _number(option: str, given: str, names: list[str]) -> tuple[Whom, float]:
    whom, _, number = given.rpartition("=")
    try:
        return _whom(whom, names), float(number)
    except ValueError:
        raise ConfigError(f"{option} is SOURCE=NUMBER, such as north=0.5, got {given!r}") from None
