"""A study as one HTML file: where it stands, and the evidence behind it.

    write_report(tuner, "report.html")

    facts      one consistent look at a study; past: at its earlier rounds; lateness: of readings
    surfaces   what the posterior says anywhere in the space; sensitivity: to each parameter
    tables     facts -> plain rows; hours: by round, decisions: of the audit trail, calibration
    canvas     what all figures are made of; marks: drift and the like on plots by round
    plots      rows -> plotly figures; time_plots: by round, maps and parallel: over theta
    blocks     what a section can hold
    sections   what is said, in which order; hour_, space_, parameter_ and audit_sections
    transfer_  from other domains: rows, plots, its section, and a page that compares domains
    page       sections -> HTML; style: how it looks, script: what runs in the browser

The file opens offline, follows light and dark, and holds the numbers of every plot as a table.
plotly is needed for its JavaScript alone, and imported when a report is written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..runtime.files import write_atomically
from ..tuner.recommend import Criterion
from .data.facts import look
from .html.page import check_place, load_plotly, render
from .sections.page_order import sections

if TYPE_CHECKING:
    from ..simulate import Environment, Oracle, RoundRecord
    from ..tuner.tuner import Tuner

__all__ = ["write_report"]


def write_report(
    tuner: Tuner,
    path: str | os.PathLike[str],
    *,
    records: Iterable[RoundRecord] | None = None,
    oracle: Oracle | None = None,
    world: Environment | None = None,
    criterion: Criterion = "lcb",
    reload_every: float | None = None,
) -> Path:
    """Write a study's report as one self-contained HTML file, about 5 MB.

    The file appears whole or not at all; a page that was there is replaced, nothing else is.

    Args:
        tuner: the study.
        path: of the file, in a folder that exists.
        records: of a simulation, for the true gain and violation by round.
        oracle: of a simulation, to be marked wherever theta or gain is drawn.
        world: of a simulation, for the true deltas and the true gain of the recommendation.
        criterion: of the recommendation, see ``Tuner.recommend``.
        reload_every: seconds after which an open page loads itself anew, for a file that is
            written again and again; None for never.
    Returns:
        The path.
    Raises:
        RoundError: nothing was planned yet, so there is nothing to report.
        MissingExtraError: plotly is not installed.
        ConfigError: the file cannot be written there, an unknown criterion, or no number of
            seconds.
    """
    path = Path(path)
    if reload_every is not None and not _is_seconds(reload_every):
        raise ConfigError(f"reload_every is a number of seconds above 0, got {reload_every!r}")
    check_place(path, "report")  # before the work, not after it
    plotly = load_plotly()
    facts = look(tuner, records, oracle, world, criterion)
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"Round {facts.last_round} · maximise {facts.problem.objective_name} · {written}"
    page = render(facts.study, subtitle, sections(facts), plotly, reload_every)
    write_atomically(path, page)
    return path


def _is_seconds(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]
