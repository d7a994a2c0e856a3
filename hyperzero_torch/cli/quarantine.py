"""Commands on readings that were set aside: readings list, readings accept."""

from __future__ import annotations

from typing import Annotated

import typer

from ..study.acceptance import set_aside
from .output import note, show, show_json
from .study import AsJson, Config, Reason, open_study

_MOST_LISTED = 8  # rounds or candidates of a group of readings

readings_app = typer.Typer(
    name="readings",
    no_args_is_help=True,
    help="Readings that were set aside as absurd: list them, or accept them.",
)


@readings_app.command("list")
def list_readings(config: Config, as_json: AsJson = False) -> None:
    """List the readings that are set aside, with the reason. They do not count.

    Example:

      hyperzero readings list -c tuning.yaml
    """
    groups = set_aside(open_study(config).history)
    if as_json:
        show_json(groups)
        return
    if not groups:
        note("no reading is set aside")
    for group in groups:
        show(group["reason"], "yellow")
        show(
            f"  {group['readings']} readings of {group['metric']}: rounds "
            f"{_listed(group['rounds'])}, candidates {_listed(group['candidates'])}"
        )


@readings_app.command("accept")
def accept_readings(
    config: Config,
    reason: Reason,
    round: Annotated[
        list[int] | None, typer.Option("--round", min=0, help="Of these rounds only.")
    ] = None,
    candidate: Annotated[
        list[int] | None, typer.Option("--candidate", min=0, help="Of these candidates only.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Of these metrics only.")
    ] = None,
) -> None:
    """Let readings count that were set aside; by default all of them. Options may be repeated.

    Where the unit of a metric was in doubt, its later readings count too.

    Examples:

      hyperzero readings accept -c tuning.yaml --round 17 --metric revenue --reason "a sale day"

      hyperzero readings accept -c tuning.yaml --reason "checked against the warehouse"
    """
    study = open_study(config).study
    num = study.accept_readings(
        reason, rounds=round or None, candidates=candidate or None, metrics=metric or None
    )
    note(f"{num} readings count; {len(study.history.quarantined)} are still set aside")


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + more
