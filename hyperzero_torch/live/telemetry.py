"""What operators of a running loop see: JSON log lines, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtraError
from ..runtime.files import write_atomically
from ..runtime.places import Kind, check_place
from ..runtime.plain import plain
from ..tuner.recommend import Recommendation
from .round import Round

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

        def labelled(kind: Any, name: str, text: str) -> Any:
            metric = kind(f"hyperzero_{name}", text, ["study"], registry=self.registry)
            return metric.labels(study)

        self._counters = {n: labelled(prometheus.Counter, n, t) for n, t in _COUNTERS.items()}
        self._gauges = {n: labelled(prometheus.Gauge, n, t) for n, t in _GAUGES.items()}

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

    def serve(self, port: int) -> int:
        """Answer ``GET /metrics`` on localhost in a thread; returns the port (0: a free one).

        Raises:
            ConfigError: the port cannot be used.
        """
        try:
            server, _ = self._prometheus.start_http_server(
                port, addr="127.0.0.1", registry=self.registry
            )
        except (OSError, OverflowError) as error:
            raise ConfigError(f"metrics cannot be served on port {port}: {error}") from None
        return int(server.server_port)

    def write(self, path: Path) -> None:
        """Write the metrics to a file in one step, for a node exporter's collector.

        Raises:
            ConfigError: the file cannot be written, or holds something other than these metrics.
        """
        check_metrics_file(path)
        write_atomically(path, self._prometheus.generate_latest(self.registry))


def check_metrics_file(path: Path) -> None:
    """Refuse a file to which metrics cannot be written, or which holds something else.

    Raises:
        ConfigError: it is refused.
    """
    check_place(path, f"--metrics-file {path}", _METRICS_FILE)
