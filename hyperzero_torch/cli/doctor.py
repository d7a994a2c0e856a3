"""The command that shows what is amiss in a study, and what to do about it."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ..study.findings import findings
from .output import console, show, show_json
from .study import AsJson, Config, open_study


def doctor(config: Config, as_json: AsJson = False) -> None:
    """Show what is amiss, and what to do about it: one line for each finding.

    Metrics and arms that do not report, rounds without readings, users that do not fit the planned
    shares, candidates out of service, excluded rounds, drift, and plans that were not made in the
    usual way. It writes nothing.

    Example:

      hyperzero doctor -c tuning.yaml
    """
    tuner = open_study(config)
    amiss = findings(tuner.history)
    if as_json:
        show_json({"study": tuner.study.name, "findings": [f.to_dict() for f in amiss]})
        return
    if not amiss:
        show(f"study {tuner.study.name}: nothing is amiss")
        return
    title = f"study {tuner.study.name}: {len(amiss)} findings"
    table = Table("what", "where", "what to do", title=title, title_justify="left")
    for finding in amiss:
        table.add_row(Text(finding.what), Text(finding.where), Text(finding.advice))
    console.print(table)
