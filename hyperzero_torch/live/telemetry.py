"""What a running loop tells its operators: one JSON object a line, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtraError
from ..tuner.recommend import Recommendation
from .loop import Round

# What logging itself puts on every record; the rest is ours.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One line of JSON per record: time, level, what was said, and the facts that go with it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = {k: v for k, v in vars(record).items() if k not in _USUAL}
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **facts,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Telemetry:
    """Counts and gauges of one loop, in Prometheus' text format.

    Args:
        study: the study's name, a label of every metric.
    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, study: str) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("metrics", "prometheus-client", "metrics") from None
        self._prometheus: Any = prometheus
        self.registry: Any = prometheus.CollectorRegistry()
        self._study = study

        def counter(name: str, says: str) -> Any:
            made = prometheus.Counter(f"hyperzero_{name}", says, ["study"], registry=self.registry)
            return made.labels(study)

        def gauge(name: str, says: str) -> Any:
            made = prometheus.Gauge(f"hyperzero_{name}", says, ["study"], registry=self.registry)
            return made.labels(study)

        self._rounds = counter("rounds", "Rounds that the loop went through.")
        self._skipped = counter("rounds_not_applied", "Rounds that the platform did not take.")
        self._rows = counter("readings", "Readings that were news.")
        self._remarks = counter("remarks", "What was not as usual; the journal says what.")
        self._round = gauge("round", "The last round.")
        self._arms = gauge("arms", "Candidates served in the last round, beside the control.")
        self._seconds = gauge("round_seconds", "Seconds that the last round took.")
        self._silent = gauge(
            "rounds_without_readings", "Latest rounds in a row of which no reading has arrived."
        )
        self._control = gauge("control_share", "The control's share of the traffic.")
        self._candidate = gauge("recommended_candidate", "Who would be promoted; 0 is the base.")
        self._feasible = gauge("recommended_prob_feasible", "P(feasible) of the recommendation.")
        self._gain = gauge("recommended_gain_lower", "Lower bound of its gain over the base.")

    def observe(self, done: Round, best: Recommendation | None) -> None:
        """Take a round in."""
        self._rounds.inc()
        self._skipped.inc(0 if done.applied else 1)
        self._rows.inc(done.rows)
        self._remarks.inc(len(done.notes))
        self._round.set(done.round)
        self._seconds.set(done.seconds)
        self._silent.set(done.silent_rounds)
        if done.plan is not None:
            self._arms.set(len(done.plan) - 1)
            self._control.set(done.plan.control_share)
        if best is not None:
            self._candidate.set(best.candidate_id)
            self._feasible.set(best.prob_feasible)
            self._gain.set(best.objective_lcb - best.objective_base)

    def serve(self, port: int) -> int:
        """Answer ``GET /metrics`` on localhost, in a thread; returns the port (0 takes a free one).

        Raises:
            ConfigError: the port cannot be had.
        """
        try:
            server, _ = self._prometheus.start_http_server(
                port, addr="127.0.0.1", registry=self.registry
            )
        except (OSError, OverflowError) as error:
            raise ConfigError(f"metrics cannot be served on port {port}: {error}") from None
        found: int = server.server_port
        return found

    def write(self, path: Path) -> None:
        """Write the metrics to a file, whole or not at all, for a node exporter's collector."""
        try:
            self._prometheus.write_to_textfile(str(path), self.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be written to {path} ({error.strerror}); name a file in a folder "
                "that exists and can be written to"
            ) from None
