"""The living recommender behind real parts: its app asks a flag client, and logs to Parquet."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..errors import HyperZeroError
from ..simulate.recommender.assignments import Assignment, one_by_one
from ..simulate.recommender.world import ValueModelWorld
from ..study.config import LiveConfig
from ..tuner.tuner import Tuner
from .build import source_of, updater_of
from .loop import Loop
from .retry import SimulatedClock
from .serve.files import replace_file, to_json
from .serve.flagd import ThetaClient

# The app's client looks at its file so often; an hour passes in seconds here.
_POLL_SECONDS = 0.05
_MOST_POLLS = 100


class LivingRecommender:
    """Users come, each is assigned by the flag client, and all that happens is logged.

    Args:
        world: who comes, and what they do.
        folder: for ``flags.json`` and the Parquet log.
    """

    def __init__(self, world: ValueModelWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.flags = folder / "flags.json"
        if not self.flags.exists():  # flagd's provider logs a traceback at every look at no file
            replace_file(self.flags, to_json({"flags": {}}))
        self.client = ThetaClient.open(self.flags, world.problem.base, poll_seconds=_POLL_SECONDS)

    def live(self) -> LiveConfig:
        """The ``live`` section of a study file that stands in the app's folder."""
        return LiveConfig(
            exposures="exposures/*.parquet",
            events="events/*.parquet",
            flags=self.flags.name,
            max_events=1000,
        )

    def serve(self, round: int) -> None:
        """One hour of the app.

        Raises:
            HyperZeroError: the flag client does not see the round's plan.
        """
        self._wait_for(round)

        def assign(user: str) -> Assignment:
            found = self.client.assign(user)
            return Assignment(found.candidate, found.parameters)

        self.world.serve_round(round, one_by_one(assign))
        self.world.write(self.folder, arrived_by=round)

    def sees(self, round: int) -> bool:
        """Whether the flag client serves a round, or will in a moment."""
        for _ in range(_MOST_POLLS):
            if self.client.assign("someone").round == round:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _wait_for(self, round: int) -> None:
        if self.sees(round):
            return
        raise HyperZeroError(
            f"the flag client does not serve round {round}: {self.client.assign('someone')}"
        )

    def close(self) -> None:
        """Stop the client's thread."""
        self.client.close()


class AppClock(SimulatedClock):
    """A simulated clock whose hours are served by an app while they pass."""

    def __init__(self, serve: Callable[[], None]) -> None:
        super().__init__()
        self._serve = serve

    def sleep(self, seconds: float) -> bool:
        """Serve the hour, then let it have passed."""
        self._serve()
        return super().sleep(seconds)


def closed_circle(tuner: Tuner, app: LivingRecommender) -> Loop:
    """A loop over an app, in simulated time: flags out, Parquet in."""

    served: set[int] = set()

    def serve() -> None:  # the clock is also slept on between tries: an hour is served once
        last = tuner.history.last_round
        if last is not None and last not in served and app.sees(last):
            app.serve(last)
            served.add(last)

    live = app.live()
    source = source_of(live, tuner.problem, app.folder)
    return Loop(tuner, updater_of(live, app.folder), source, AppClock(serve))
