"""A simulated recommender with a real flag client and a real Parquet log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import HyperZeroError
from ..simulate.recommender.assignments import Assignment, one_by_one
from ..simulate.recommender.world import ValueModelWorld
from ..study.config import LiveConfig
from ..tuner.tuner import Tuner
from .build import source_of, updater_of
from .clock import SimulatedClock
from .loop import Loop
from .serve.client import ThetaClient
from .serve.files import replace_file, to_json

# How often the app's client looks at its file; an hour passes in seconds here.
_POLL_SECONDS = 0.05
_MAX_POLLS = 100


class LivingRecommender:
    """An app whose flag client assigns each user, and which logs exposures and events.

    Args:
        world: the users and their behaviour.
        folder: for ``flags.json`` and the Parquet log.
    """

    def __init__(self, world: ValueModelWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.flags = folder / "flags.json"
        if not self.flags.exists():  # flagd's provider logs a traceback each time it finds no file
            replace_file(self.flags, to_json({"flags": {}}))
        self.client = ThetaClient.open(self.flags, world.problem.base, poll_seconds=_POLL_SECONDS)

    def live(self) -> LiveConfig:
        """The ``live`` section of a study file in the app's folder."""
        return LiveConfig(
            exposures="exposures/*.parquet",
            events="events/*.parquet",
            flags=self.flags.name,
            max_events=1000,
        )

    def serve(self, round: int) -> None:
        """Serve one hour's users.

        Raises:
            HyperZeroError: the flag client does not serve the round's plan.
        """
        if not self.sees(round):
            raise HyperZeroError(
                f"the flag client does not serve round {round}, but {self.client.served_round()}"
            )

        def assign(user: str) -> Assignment:
            assignment = self.client.assign(user)
            is_counted = assignment.round is not None
            return Assignment(assignment.candidate, assignment.parameters, is_counted)

        self.world.serve_round(round, one_by_one(assign))
        self.world.write(self.folder, arrived_by=round)

    def sees(self, round: int) -> bool:
        """Whether the flag client serves a round now or within a few seconds."""
        for _ in range(_MAX_POLLS):
            if self.client.served_round() == round:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def close(self) -> None:
        """Stop the client's thread."""
        self.client.close()


class AppClock(SimulatedClock):
    """A simulated clock; an app serves its users before each wait."""

    def __init__(self, serve: Callable[[], None], stop: threading.Event | None = None) -> None:
        super().__init__(stop=stop)
        self._serve = serve

    def sleep(self, seconds: float) -> bool:
        """Serve the hour, then move the time forward."""
        self._serve()
        return super().sleep(seconds)


def closed_circle(
    tuner: Tuner, app: LivingRecommender, stop: threading.Event | None = None
) -> Loop:
    """A loop over an app in simulated time: it writes flags and reads Parquet files."""
    served: set[int] = set()

    def serve() -> None:  # the loop also waits between attempts: an hour is served once
        last = tuner.history.last_round
        if last is not None and last not in served and app.sees(last):
            app.serve(last)
            served.add(last)

    live = app.live()
    source = source_of(live, tuner.problem, app.folder)
    # The flag client lives in real time, in which an hour of this loop passes in seconds.
    updater, clock = updater_of(live, app.folder), AppClock(serve, stop)
    return Loop(tuner, updater, source, clock, lease_rounds=None)
