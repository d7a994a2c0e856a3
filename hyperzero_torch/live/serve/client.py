"""The client that gives an application its parameters; it needs the extra ``flags``.

with ThetaClient.open("flags.json", base) as client:
    served = client.assign(user)                          # .candidate .round .parameters
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError, MissingExtraError
from ...problem.parameters import Value
from ...study.history import CONTROL
from ..users import UserId, user_key
from .fence import why_not_in_force
from .updater import OUTSIDE, PLANNED, Assignment

_domains = itertools.count()


class ThetaClient:
    """Gives an application the parameters of a user.

    Once open it never raises and never waits. Where anything fails, the user gets the control with
    the ``base`` parameters and takes no part in the round (``round`` is None).

    ``open`` reads a definition file in this process, through OpenFeature and flagd's provider,
    which looks for changes every ``poll_seconds`` in a thread. Where a server forks its workers,
    open the client in each worker. For a flagd server, or a provider of your own, wrap its client:
    ``ThetaClient(openfeature.api.get_client(), base)``.

    Args:
        client: an OpenFeature client.
        base: the control's parameters, which are also the fallback. A variant that does not set
            exactly these parameters is not served.
        flag: the flag's key.
        now: tells the time, in seconds since 1970: a plan whose lease has run out is not served,
            whatever the provider knows of time.
    Raises:
        MissingExtraError: OpenFeature is not installed.
    """

    def __init__(
        self,
        client: Any,
        base: Mapping[str, Value],
        *,
        flag: str = "value-model",
        now: Callable[[], float] = time.time,
    ) -> None:
        try:
            from openfeature.evaluation_context import EvaluationContext
        except ImportError:
            raise MissingExtraError("the flag client", "openfeature-sdk", "flags") from None
        self._client: Any = client
        self._context: Any = EvaluationContext
        self._base = dict(base)
        self._flag = flag
        self._now = now
        self._domain: str | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        base: Mapping[str, Value],
        *,
        flag: str = "value-model",
        poll_seconds: float = 0.5,
        now: Callable[[], float] = time.time,
    ) -> ThetaClient:
        """A client of a definition file, which may be written later.

        Raises:
            MissingExtraError: OpenFeature or flagd's provider is not installed.
            ConfigError: ``poll_seconds`` is not at least a millisecond and at most a day.
        """
        if not 0.001 <= poll_seconds <= 86400.0:
            raise ConfigError(f"poll_seconds must be from 0.001 to 86400, got {poll_seconds!r}")
        try:
            from openfeature import api
            from openfeature.contrib.provider.flagd import FlagdProvider
            from openfeature.contrib.provider.flagd.config import ResolverType
            from openfeature.exception import OpenFeatureError
        except ImportError:
            raise MissingExtraError(
                "the flag client", "openfeature-provider-flagd", "flags"
            ) from None
        provider = FlagdProvider(
            resolver_type=ResolverType.FILE,
            offline_flag_source_path=str(path),
            deadline_ms=round(poll_seconds * 1000),  # in file mode this is the polling interval
        )
        # A domain of its own leaves the application's providers alone.
        domain = f"hyperzero-torch-{next(_domains)}"
        with contextlib.suppress(OpenFeatureError):  # no valid file yet: it goes on polling
            api.set_provider_and_wait(provider, domain)
        client = cls(api.get_client(domain), base, flag=flag, now=now)
        client._domain = domain
        return client

    def assign(self, user: UserId | None) -> Assignment:
        """Candidate, round and parameters of a user; they stay the same during a round.

        A user is a text, a whole number of any type or a UUID: 17, ``Decimal("17")`` and ``"17"``
        are one user.
        """
        try:
            return self._assign(user)
        except Exception as error:
            return self._fallback(f"{type(error).__name__}: {error}")

    def _assign(self, user: UserId | None) -> Assignment:
        if user is None or user == "":
            return self._fallback("no user")
        key = user_key(user)
        key.encode()  # a text that cannot be hashed would be taken for a user outside
        details = self._details(key)
        if details.reason == "DEFAULT":  # its targeting is sound, and chose no arm
            parameters = details.value["parameters"]
            if parameters.keys() != self._base.keys():
                return self._fallback("the variant sets other parameters than base")
            why = why_not_in_force(details.value, self._now()) or OUTSIDE
            return Assignment(CONTROL, None, dict(parameters), why)
        if details.reason != "TARGETING_MATCH":
            why = details.error_code or details.reason
            return self._fallback(str(getattr(why, "value", why)))
        value = details.value
        candidate, number, parameters = value["candidate"], value["round"], value["parameters"]
        if not isinstance(candidate, int) or not isinstance(number, int):
            return self._fallback("the variant does not come from a plan")
        why_not = why_not_in_force(value, self._now())
        if why_not is not None:
            return self._fallback(why_not)
        if parameters.keys() != self._base.keys():
            return self._fallback("the variant sets other parameters than base")
        study, epoch = value.get("study"), value.get("epoch")
        return Assignment(candidate, number, dict(parameters), PLANNED, study, epoch)

    def served_round(self) -> int | None:
        """The round of the plan that is served; None where there is none, it is withdrawn, or its
        lease has run out."""
        try:
            value = self._details("").value
            number = value["round"]
            if why_not_in_force(value, self._now()) is not None:
                return None
        except Exception:
            return None
        return number if isinstance(number, int) else None

    def _details(self, key: str) -> Any:
        return self._client.get_object_details(self._flag, {}, self._context(key))

    def _fallback(self, reason: str) -> Assignment:
        return Assignment(CONTROL, None, dict(self._base), reason)

    def close(self) -> None:
        """Stop polling the file; ``assign`` gives the control from now on."""
        if self._domain is None:
            return
        from openfeature import api
        from openfeature.provider.no_op_provider import NoOpProvider

        api.set_provider(NoOpProvider(), self._domain)
        self._domain = None

    def __enter__(self) -> ThetaClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
