"""What operators of a running loop see: JSON log lines, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..runtime.files import write_atomically
from ..runtime.places import Kind, check_place
from ..runtime.plain import plain
from ..tuner.recommend import Recommendation
from .clock import Clock, SystemClock
from .endpoints import Health, listen
from .round import Round
from .series import SERIES, Moments
from .webhook import Webhook

# Fields that logging itself puts on every record; all others are ours.
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
#: What ``Telemetry.write`` writes.
_METRICS_FILE = Kind("metrics of a loop", lambda content: content.startswith(b"# HELP hyperzero_"))
_COUNTERS = {
    "rounds": "Rounds that the loop has run.",
    "rounds_not_applied": "Rounds whose plan the platform did not accept.",
    "readings": "New readings.",
    "remarks": "Warnings (details in the journal).",
}
_GAUGES = {
    "round": "The last round.",
    "arms": "Candidates served in the last round, without the control.",
    "round_seconds": "Duration of the last round in seconds.",
    "rounds_without_readings": "Latest rounds in a row of which no reading has arrived.",
    "control_share": "The control's share of the traffic.",
    "untested_share": "Share of the last plan to candidates without own evidence.",
    "expected_violation": "Expected violation of the last plan, in points.",
    "harm_left": "What the harm budget leaves for the next round, in points times users.",
    "recommended_candidate": "The recommended candidate; 0 is the base.",
    "recommended_prob_feasible": "P(feasible) of the recommended candidate.",
    "recommended_gain_lower": "Lower bound of the recommended candidate's gain over the base.",
    **SERIES,
}
# Seconds, which are computed when they are asked for: they grow while the loop hangs, too.
_MOVING = {
    "evidence_age_seconds": "Time since the end of the newest round with a reading.",
    "lease_left_seconds": "Time until what is served gives way to the control; below 0 it has.",
}
_WEBHOOK = {
    "webhook_delivered": "Alerts that the webhook took.",
    "webhook_failed": "Alerts that could not be delivered, or were dropped.",
    "webhook_waiting": "Alerts that wait for the webhook.",
}


class JsonFormatter(logging.Formatter):
    """One JSON object per log record: time, level, message and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line per log record for people; data in it can neither begin a line nor steer a terminal.

    A traceback follows on lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and its traceback."""
        line = f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"
        line = plain(line, keep="\t")
        if record.exc_info:
            line += "\n" + plain(self.formatException(record.exc_info))
        return line


class Telemetry:
    """Counters and gauges of one loop, in Prometheus' text format.

    Args:
        study: the study's name, a label of every metric.
        clock: the loop's, for ages; by default the machine's.
        webhook: whose deliveries are counted; None where there is none.
    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(
        self, study: str, clock: Clock | None = None, webhook: Webhook | None = None
    ) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("metrics", "prometheus-client", "metrics") from None
        self._prometheus: Any = prometheus
        self.registry: Any = prometheus.CollectorRegistry()
        self._clock = clock or SystemClock()
        self._moments = Moments(math.nan, math.nan, {})

        def labelled(kind: Any, name: str, text: str) -> Any:
            metric = kind(f"hyperzero_{name}", text, ["study"], registry=self.registry)
            return metric.labels(study)

        gauge = prometheus.Gauge
        self._counters = {n: labelled(prometheus.Counter, n, t) for n, t in _COUNTERS.items()}
        self._gauges = {n: labelled(gauge, n, t) for n, t in _GAUGES.items()}
        moving = {n: labelled(gauge, n, t) for n, t in _MOVING.items()}
        moving["evidence_age_seconds"].set_function(self._evidence_age)
        moving["lease_left_seconds"].set_function(self._lease_left)
        self._success = gauge(
            "hyperzero_last_success_timestamp_seconds",
            "When each part last answered, in seconds since 1970.",
            ["study", "part"],
            registry=self.registry,
        )
        self._study = study
        if webhook is not None:
            counts = {
                "webhook_delivered": lambda: webhook.delivered,
                "webhook_failed": lambda: webhook.failed,
                "webhook_waiting": lambda: webhook.num_waiting,
            }
            for name, count in counts.items():
                labelled(gauge, name, _WEBHOOK[name]).set_function(count)

    def observe_study(self, state: Mapping[str, float], moments: Moments) -> None:
        """Take over what the journal says, and when each part last answered."""
        self._moments = moments
        for name, value in state.items():
            self._gauges[name].set(value)
        for part, moment in moments.successes.items():
            self._success.labels(self._study, part).set(moment)

    def _evidence_age(self) -> float:
        return self._clock.now() - self._moments.evidence

    def _lease_left(self) -> float:
        return self._moments.lease - self._clock.now()

    def observe(self, done: Round, best: Recommendation | None) -> None:
        """Count a round."""
        self._counters["rounds"].inc()
        self._counters["rounds_not_applied"].inc(not done.applied)
        self._counters["readings"].inc(done.rows)
        self._counters["remarks"].inc(len(done.notes))
        values: dict[str, float] = {
            "round": done.round,
            "round_seconds": done.seconds,
            "rounds_without_readings": done.rounds_without_readings,
        }
        if done.plan is not None:
            values |= {"arms": len(done.plan) - 1, "control_share": done.plan.control_share}
        values |= {k: v for k, v in done.exposure.items() if k in _GAUGES and v is not None}
        if best is not None:
            values["recommended_candidate"] = best.candidate_id
            values["recommended_prob_feasible"] = best.prob_feasible
            values["recommended_gain_lower"] = best.objective_lcb - best.objective_base
        for name, value in values.items():
            self._gauges[name].set(value)

    def serve(self, port: int, address: str = "127.0.0.1", health: Health | None = None) -> int:
        """Answer ``GET /metrics`` in a thread; returns the port (0: a free one).

        Args:
            port: to listen at.
            address: of this machine.
            health: answers ``/healthz`` and ``/readyz`` too.
        Raises:
            ConfigError: the address or the port cannot be used.
        """
        return listen(address, port, self._text, health)

    def _text(self) -> bytes:
        text: bytes = self._prometheus.generate_latest(self.registry)
        return text

    def write(self, path: Path) -> None:
        """Write the metrics to a file in one step, for a node exporter's collector.

        Raises:
            ConfigError: the file cannot be written, or holds something other than these metrics.
        """
        check_metrics_file(path)
        write_atomically(path, self._text())


def check_metrics_file(path: Path) -> None:
    """Refuse a file to which metrics cannot be written, or which holds something else.

    Raises:
        ConfigError: it is refused.
    """
    check_place(path, f"--metrics-file {path}", _METRICS_FILE)
