"""A table in a variant of an Unleash feature, over Unleash's Admin API.

    GET  /api/admin/projects/P/features/F/environments/E/strategies
    POST or PUT of a strategy for everybody, with one variant whose payload is the table as JSON

The application reads the variant's payload and assigns users by it: Unleash's own weights are whole
thousandths, too coarse for the shares of a plan.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ...study.config.monitoring import check_url
from .files import to_json

_VARIANT = "hyperzero-table"
_MOST_BYTES = 64 * 2**20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class UnleashFeature:
    """A strategy of one feature in one environment; the feature must exist, and be enabled.

    There is no lock between the look at what is served and the write: run one loop per study.

    Args:
        url: Unleash's address, such as ``https://unleash.example.com``.
        token: of the Admin API, with the right to change the feature's strategies; no message and
            no repr shows it.
        feature: the feature's name; a feature of its own, without other strategies.
        project: its project.
        environment: where it is served.
        timeout: seconds for each call.
    Raises:
        ConfigError: an argument that cannot be used.
    Source: Unleash's OpenAPI document, "Features": get, add and update a strategy.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        feature: str = "value-model",
        project: str = "default",
        environment: str = "production",
        timeout: float = 10.0,
    ) -> None:
        check_url(url, "Unleash's address")
        names = {"token": token, "feature": feature, "project": project, "environment": environment}
        for what, value in names.items():
            if not isinstance(value, str) or not value.strip() or not value.isprintable():
                raise ConfigError(f"Unleash: the {what} is a text that is not empty, in one line")
        if not 0 < timeout <= 300:
            raise ConfigError(f"Unleash: timeout is from 0 to 300 seconds, got {timeout!r}")
        self.feature, self.environment, self._timeout = feature, environment, timeout
        self._token = token
        parts = ("projects", project, "features", feature, "environments", environment)
        path = "/".join(urllib.parse.quote(part, safe="") for part in parts)
        self._url = f"{url.rstrip('/')}/api/admin/{path}/strategies"
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __str__(self) -> str:
        return f"feature {self.feature!r:.100} of Unleash in {self.environment!r:.100}"

    def read(self) -> Mapping[str, Any] | None:
        """The payload of our variant; None where the feature has no strategy yet.

        Raises:
            ConfigError: Unleash does not answer, or the feature belongs to others.
        """
        return self._find()[1]

    def write(self, table: Mapping[str, Any]) -> None:
        """Replace our strategy, or add it.

        Raises:
            ConfigError: Unleash does not answer, or refuses.
        """
        payload = {"type": "json", "value": to_json(table).strip()}
        variant = {"name": _VARIANT, "weight": 1000, "weightType": "variable"}
        strategy = {
            "name": "flexibleRollout",
            "constraints": [],
            "parameters": {"rollout": "100", "stickiness": "default", "groupId": self.feature},
            "variants": [{**variant, "stickiness": "default", "payload": payload}],
        }
        identity, there = self._find()
        if there is not None and there == json.loads(payload["value"]):
            return
        if identity is None:
            self._call("POST", self._url, strategy)
        else:
            place = f"{self._url}/{urllib.parse.quote(identity, safe='')}"
            self._call("PUT", place, strategy)

    def _find(self) -> tuple[str | None, Mapping[str, Any] | None]:
        """The id of our strategy and its table; None for both where there is none."""
        strategies = self._call("GET", self._url)
        if strategies == []:
            return None, None
        try:
            (strategy,) = strategies
            (variant,) = strategy["variants"]
            table = json.loads(variant["payload"]["value"])
            is_ours = variant["name"] == _VARIANT and isinstance(table, dict)
            identity = strategy["id"]
        except (TypeError, ValueError, KeyError):
            is_ours = False
        if not is_ours or not isinstance(identity, str):
            raise ConfigError(
                f"{self} has strategies of others, which would serve something else; nothing was "
                "changed: name a feature of its own"
            )
        return identity, table

    def _call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        head = {"Authorization": self._token, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, head, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                text = answer.read(_MOST_BYTES)
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            error.close()
            why = {401: "the token is refused", 403: "the token lacks the right"}.get(error.code)
            why = why or {404: "there is no such feature or environment"}.get(error.code, "")
            raise ConfigError(
                f"{self}: HTTP status {error.code}{': ' if why else ''}{why}; what is served is "
                "unchanged"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"{self} cannot be reached ({type(error).__name__}: {reason})"
            ) from None
