"""A study as one HTML file: the recommendation, and the evidence behind it.

    write_report(tuner, "report.html")

    data       facts of a study, and the tables computed from them
    figures    tables -> plotly figures, as plain dictionaries
    sections   text, tables and figures in their order
    html       sections -> one page: its markup, style and script

Each imports only from those above it. The file opens offline, follows light and dark themes, and
holds the numbers of every plot as a table. plotly is needed for its JavaScript alone, and is
imported when a report is written.
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
from .data.facts import collect
from .html.page import check_place, load_plotly, render
from .sections.all import sections
from .sections.transfer import comparison

if TYPE_CHECKING:
    from ..simulate import Environment, Oracle, RoundRecord
    from ..transfer.model.correlation import ByEvidence
    from ..transfer.similarity import ByFeatures
    from ..tuner.tuner import Tuner

__all__ = ["check_place", "write_comparison", "write_report"]


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

    The file is written whole or not at all. It replaces an earlier report, and no other file.

    Args:
        path: of the file, in a folder that exists.
        records: of a simulation, for the true gain and violation by round.
        oracle: of a simulation, marked wherever theta or gain is drawn.
        world: of a simulation, for the true deltas and the true gain of the recommendation.
        criterion: of the recommendation, see ``Tuner.recommend``.
        reload_every: seconds after which an open page reloads itself, for a file that is written
            repeatedly; None for never.
    Returns:
        The path.
    Raises:
        RoundError: nothing was planned yet, so there is nothing to report.
        MissingExtraError: plotly is not installed.
        ConfigError: the file cannot be written there, an unknown criterion, or an invalid number
            of seconds.
    """
    path = Path(path)
    if reload_every is not None and not _is_seconds(reload_every):
        raise ConfigError(f"reload_every is a number of seconds above 0, got {reload_every!r}")
    check_place(path, "report")  # before the work, not after it
    plotly = load_plotly()
    facts = collect(tuner, records, oracle, world, criterion)
    subtitle = f"Round {facts.last_round} · maximise {facts.problem.objective_name} · {_now()}"
    write_atomically(path, render(facts.study, subtitle, sections(facts), plotly, reload_every))
    return path


def write_comparison(
    path: str | os.PathLike[str], features: ByFeatures, evidence: ByEvidence
) -> Path:
    """Write heat maps of the similarity of domains as one self-contained HTML file.

    Args:
        path: of the file, in a folder that exists; it replaces an earlier page, and no other file.
    Returns:
        The path.
    Raises:
        ConfigError: the file cannot be written there.
        MissingExtraError: plotly is not installed.
    """
    path = Path(path)
    check_place(path, "page")
    plotly = load_plotly()
    subtitle = f"{len(features.names)} domains · {_now()}"
    page = comparison(features, evidence)
    write_atomically(path, render("Comparison of domains", subtitle, page, plotly))
    return path


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _is_seconds(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]
