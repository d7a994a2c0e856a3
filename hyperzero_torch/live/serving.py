"""What is served is brought up to date at once, after a person has thrown a switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..study.config import LiveConfig
from ..study.epochs import current
from ..study.serving import why_control_alone
from ..study.study import Study
from ..tuner.tuner import Tuner
from .build import updater_of
from .clock import Schedule, SystemClock
from .lease import terms_of
from .serve.checks import Updater


def platform_of(tuner: Tuner, live: LiveConfig, folder: Path) -> Updater:
    """The platform that serves the last plan of a study, on its behalf and until its lease ends.

    Args:
        tuner: the study.
        live: of its study file.
        folder: where relative paths start.
    """
    updater = updater_of(live, folder)
    stamp = updater.owner()
    has_served = stamp is not None or current(tuner.history) is not None
    if not has_served and why_control_alone(tuner.history) is not None:
        return updater  # only to withdraw what no study owns
    schedule = Schedule(tuner, SystemClock(), live.round_seconds)
    last = tuner.history.last_round or 0
    return updater.on_behalf_of(terms_of(schedule, last, live.lease_rounds, stamp))


def serve_now(
    study: Study,
    platform: Callable[[], Updater] | None = None,
    write: Callable[..., None] | None = None,
) -> str:
    """Bring up to date what is served, and say what it is.

    Args:
        study: whose switches were thrown.
        platform: where its plans are served; None where nothing is known of it.
        write: takes the plan and ``is_served``, false where the control alone is to be served.
    """
    while True:
        history = study.sync()
        before, plan = history.num_entries, study.plan(history.last_round or 0)
        why_not = why_control_alone(history)
        if platform is not None:
            if why_not is None:
                platform().apply(plan)
            else:
                platform().withdraw()
        if write is not None:
            write(plan, is_served=why_not is None)
        # Somebody else may have thrown a switch, or planned a round, meanwhile.
        if study.sync().num_entries == before:
            break
    return (
        f"round {plan.round} is served"
        if why_not is None
        else f"{why_not}; only the control is served"
    )
