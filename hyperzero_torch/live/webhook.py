"""Alerts sent to a webhook, beside the loop: however the webhook fails, no round waits for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..runtime.plain import plain
from ..study.config.monitoring import AlertsConfig, check_url
from .events import SEVERITIES, Alert

log = logging.getLogger(__name__)

# Alerts that wait for the webhook; later ones are dropped, and counted.
_MAX_WAITING = 256
_FIRST_WAIT, _WAIT_FACTOR, _LONGEST_WAIT = 1.0, 4.0, 300.0
# Answers after which another try may succeed, besides all of the server's own faults.
_TRY_AGAIN = (408, 425, 429)
_LONGEST_TEXT = 2000


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET, and carry the alert to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """Sends alerts one by one, in a thread of its own.

    Args:
        url: takes a POST of JSON.
        format: of the body, see ``AlertsConfig``.
        routing_key: PagerDuty's; None where there is none.
        attempts: calls in all for one alert.
        timeout: seconds that each call may take.
        first_wait: seconds before the second call; each further wait is four times as long.
    """

    def __init__(
        self,
        url: str,
        format: str = "both",
        routing_key: str | None = None,
        attempts: int = 5,
        timeout: float = 10.0,
        first_wait: float = _FIRST_WAIT,
    ) -> None:
        self._url, self._format, self._routing_key = url, format, routing_key
        self._attempts, self._timeout, self._first_wait = attempts, timeout, first_wait
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._waiting: queue.Queue[Alert | None] = queue.Queue(_MAX_WAITING)
        self._closing = threading.Event()
        self.delivered = self.failed = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, config: AlertsConfig, environment: Mapping[str, str] = os.environ) -> Webhook:
        """The webhook of a study file.

        Raises:
            ConfigError: a variable of the environment is missing, or its URL cannot be used.
        """
        url, routing_key = secrets_of(config, environment)
        return cls(url, config.format, routing_key, config.attempts, config.timeout)

    def send(self, alert: Alert) -> None:
        """Take an alert for delivery, at once; one too many is dropped and counts as failed."""
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            self.failed += 1
            log.warning("webhook: %d alerts wait; one was dropped", _MAX_WAITING)

    @property
    def num_waiting(self) -> int:
        """Alerts that are neither delivered nor given up, about."""
        return self._waiting.qsize()

    def close(self, seconds: float = 5.0) -> None:
        """Deliver what waits, for so many seconds at most; what is left counts as failed."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._closing.set()  # ends a wait between two calls
        if self._thread.is_alive():
            self._thread.join(0.2)
        while not self._waiting.empty():
            try:
                self.failed += self._waiting.get_nowait() is not None
            except queue.Empty:  # the thread has just taken it
                break

    def _work(self) -> None:
        while (alert := self._waiting.get()) is not None:
            try:
                why = self._deliver(alert)
            except Exception as error:  # whatever it is, later alerts are still delivered
                why = f"{type(error).__name__}: {error}"
            if why is None:
                self.delivered += 1
            else:
                self.failed += 1
                # The host only: the path of a webhook is its password.
                host = urlsplit(self._url).hostname
                names = (alert.event, host)
                log.warning("webhook: alert %r was not delivered to %s: %s", *names, plain(why))
            if self._closing.is_set():
                return

    def _deliver(self, alert: Alert) -> str | None:
        """Why an alert could not be delivered; None where it was."""
        body = json.dumps(body_of(alert, self._format, self._routing_key)).encode()
        wait, why = self._first_wait, ""
        for attempt in range(1, self._attempts + 1):
            again, why = self._post(body)
            if not why:
                return None
            if not again or attempt == self._attempts or self._closing.wait(wait):
                break
            wait = min(_WAIT_FACTOR * wait, _LONGEST_WAIT)
        return f"{why} ({'once' if attempt == 1 else f'{attempt} times'})"

    def _post(self, body: bytes) -> tuple[bool, str]:
        """Whether another try may succeed, and why this one did not; "" where it did."""
        head = {"Content-Type": "application/json", "User-Agent": "hyperzero-torch"}
        try:
            request = urllib.request.Request(self._url, body, head, method="POST")
            with self._opener.open(request, timeout=self._timeout) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code >= 500 or error.code in _TRY_AGAIN, f"HTTP status {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            return True, f"{type(error).__name__}: {reason}"
        return False, ""


def secrets_of(
    config: AlertsConfig, environment: Mapping[str, str] = os.environ
) -> tuple[str, str | None]:
    """The URL and PagerDuty's routing key, None where there is none.

    Raises:
        ConfigError: a variable of the environment is missing, or its URL cannot be used.
    """
    url, key = config.webhook, config.routing_key_env
    if url is None:
        url = _variable(environment, config.webhook_env, "webhook_env")
        check_url(url, f"alerts: the variable {config.webhook_env}")
    return url, None if key is None else _variable(environment, key, "routing_key_env")


def body_of(alert: Alert, format: str = "both", routing_key: str | None = None) -> dict[str, Any]:
    """What is posted: ``text`` for Slack, an event of PagerDuty's Events API v2, or both.

    Args:
        alert: the event.
        format: ``"slack"``, ``"pagerduty"`` or ``"both"``.
        routing_key: PagerDuty's.
    """
    text = plain(alert.text, keep="\n\t")[:_LONGEST_TEXT]
    slack = {"text": f"[{alert.study}] {alert.event}: {text}"}
    if format == "slack":
        return slack
    severity = SEVERITIES[alert.event]
    facts = {"event": alert.event, "study": alert.study, "round": alert.round, **alert.facts}
    event = {
        "event_action": "trigger",
        "dedup_key": alert.key,
        "client": "hyperzero-torch",
        "payload": {
            "summary": slack["text"][:1024],  # PagerDuty's limit
            "source": alert.study,
            "severity": severity,
            "component": "hyperzero",
            "class": alert.event,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "custom_details": facts,
        },
    }
    if routing_key is not None:
        event["routing_key"] = routing_key
    return event if format == "pagerduty" else slack | event


def _variable(environment: Mapping[str, str], name: str | None, option: str) -> str:
    value = environment.get(name or "", "")
    if not value:
        raise ConfigError(
            f"alerts: {option} names the environment variable {name}, which is not set; set it "
            "where the loop runs"
        )
    return value
