"""Monitoring of a running study: where its metrics are served, and what is sent to a webhook."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ...errors import ConfigError
from .base import Config

Event: TypeAlias = Literal[
    "stopped", "suspect", "excluded", "drift", "quarantined", "missing", "not_served", "no_plan",
    "launch", "switch", "error",
]  # fmt: skip
#: Events of a study file, in the order of this list.
EVENTS: tuple[Event, ...] = Event.__args__  # type: ignore[attr-defined]
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class MonitoringConfig(Config):
    """Where ``/metrics``, ``/healthz`` and ``/readyz`` are answered."""

    address: str = Field(default="127.0.0.1", min_length=1)
    """Address or host name of this machine to listen at; 0.0.0.0 or :: for all of them. Nothing
    there asks for a password."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """Port; 0 for a free one. None: only where ``hyperzero run --metrics-port`` names one."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if not _HOST.fullmatch(value):
                raise ConfigError(
                    f"address must be an IP address or a host name, got {value!r:.60}"
                ) from None
        return value


class AlertsConfig(Config):
    """What is sent to a webhook when something happens."""

    webhook: str | None = Field(default=None, repr=False)  # its path may be a secret
    """URL that takes a POST of JSON, http or https."""
    webhook_env: str | None = Field(default=None, min_length=1)
    """Environment variable with this URL, so that the study file holds no secret."""
    format: Literal["both", "slack", "pagerduty"] = "both"
    """Body: ``slack`` has ``text`` alone, ``pagerduty`` an event of its Events API v2, ``both`` all
    of these fields, for relays."""
    routing_key_env: str | None = Field(default=None, min_length=1)
    """Environment variable with PagerDuty's ``routing_key``."""
    events: tuple[Event, ...] = EVENTS
    """Events that are sent."""
    attempts: int = Field(default=5, ge=1, le=20)
    """Calls in all for one alert."""
    timeout: float = Field(default=10.0, gt=0, le=300)
    """Seconds that each call may take."""

    def model_post_init(self, _: Any) -> None:
        """Require exactly one place for the URL, and one that can be called."""
        if (self.webhook is None) == (self.webhook_env is None):
            raise ConfigError("alerts: name either webhook (a URL) or webhook_env (a variable)")
        if self.webhook is not None:
            check_url(self.webhook, "alerts: webhook")


class UnleashConfig(Config):
    """A feature of Unleash that carries the table of assignments; ``live.flag`` is its name."""

    url: str = Field(min_length=1, repr=False)
    """Unleash's address, such as ``https://unleash.example.com``."""
    token_env: str = Field(min_length=1)
    """Environment variable with a token of the Admin API, so that the study file holds no
    secret."""
    project: str = Field(default="default", min_length=1)
    """The feature's project."""
    environment: str = Field(default="production", min_length=1)
    """Where the feature is served."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        return check_url(value, "unleash: url")


def check_url(url: str, what: str) -> str:
    """The URL of a webhook. No message repeats it, since its path may be a secret.

    Raises:
        ConfigError: it is not a URL of http or https with a host.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_valid = is_valid and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or any(ord(sign) <= 32 or ord(sign) > 126 for sign in url):
        raise ConfigError(f"{what} must be a URL that begins with https:// or http://, with a host")
    return url
