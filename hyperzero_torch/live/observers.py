"""Observers of each round of a loop: metrics, health, and a webhook."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from ..study.config import LiveConfig
from .endpoints import Health
from .events import alerts_of
from .loop import Loop
from .round import Round
from .series import state_of
from .telemetry import Telemetry
from .webhook import Webhook

log = logging.getLogger(__name__)


class Observers:
    """Metrics, health and alerts of one loop. A failure of any of them does not end a round.

    Args:
        loop: whose rounds they are.
        live: the study file's section; None for a world.
        port: where metrics are served, instead of the study file's; None for the file's own.
        file: where metrics are written after each round; None where they are not.
    Raises:
        MissingExtraError: prometheus-client is needed and not installed.
        ConfigError: the address cannot be used, or a variable of the environment is missing.
    """

    def __init__(
        self,
        loop: Loop,
        live: LiveConfig | None = None,
        port: int | None = None,
        file: Path | None = None,
    ) -> None:
        self._loop, self._file = loop, file
        alerts = None if live is None else live.alerts
        self.webhook = None if alerts is None else Webhook.of(alerts)
        self._events = () if alerts is None else alerts.events
        self._health = Health(loop.clock, loop.round_seconds)
        if port is None and live is not None:
            port = live.monitoring.port
        self._telemetry: Telemetry | None = None
        if port is not None or file is not None:
            self._telemetry = Telemetry(loop.tuner.study.name, loop.clock, self.webhook)
        #: Where metrics are served; None where they are not.
        self.url: str | None = None
        if self._telemetry is not None and port is not None:
            address = "127.0.0.1" if live is None else live.monitoring.address
            port = self._telemetry.serve(port, address, self._health)
            self.url = f"http://{f'[{address}]' if ':' in address else address}:{port}/metrics"
        self._tuner = loop.tuner
        self._num_decisions = len(loop.tuner.history.decisions)

    def see(self, done: Round) -> None:
        """Pass a round that has ended to each of them."""
        for what, work in (("alerts", self._alert), ("metrics", self._measure)):
            try:
                work(done)
            except Exception as error:  # none of them may end the loop
                log.warning("%s: %s: %s", what, type(error).__name__, error)

    def close(self) -> int:
        """Deliver alerts that wait, for a few seconds; returns how many were not delivered."""
        if self.webhook is None:
            return 0
        self.webhook.close()
        return self.webhook.failed

    def _alert(self, done: Round) -> None:
        tuner, before = self._loop.tuner, self._num_decisions
        decisions = tuner.history.decisions
        if tuner is not self._tuner:  # the study goes on as the next one, whose log is copied
            self._tuner, before = tuner, len(decisions)
        self._num_decisions = len(decisions)
        if self.webhook is None:
            return
        for alert in alerts_of(tuner.study.name, done, decisions[before:]):
            if alert.event in self._events:
                self.webhook.send(alert)

    def _measure(self, done: Round) -> None:
        moments, tuner = self._loop.moments(), self._loop.tuner
        self._health.observe(done, moments)
        if self._telemetry is None:
            return
        now = datetime.fromtimestamp(self._loop.clock.now(), UTC)
        self._telemetry.observe_study(state_of(tuner.history, tuner.config, now), moments)
        self._telemetry.observe(done, None if done.plan is None else tuner.recommend())
        if self._file is not None:
            self._telemetry.write(self._file)
