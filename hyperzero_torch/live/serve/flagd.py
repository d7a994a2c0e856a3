"""Plans as flagd flag definitions, and the client that gives an application its parameters.

    updater = FlagdUpdater("flags.json")                      # in the job that calls ask()
    updater.apply(tuner.ask())

    with ThetaClient.open("flags.json", base) as client:      # in the application
        served = client.assign(user)                          # .candidate .round .parameters

Only the client needs the extra ``flags``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError, MissingExtraError
from ...problem.parameters import Value
from ...runtime.files import locked
from ...study.history import CONTROL
from ...study.plan import Plan
from ..users import UserId, user_key
from .files import checked_path, read_object, replace_file, to_json
from .updater import PLANNED, Assignment, check_plan

#: The largest sum of weights that flagd's ``fractional`` accepts: MaxInt32.
MAX_TOTAL_WEIGHT = 2**31 - 1

_CONTROL_VARIANT = "control"
_STATES = ("ENABLED", "DISABLED")
_domains = itertools.count()


class FlagdUpdater:
    """Writes plans into a flagd flag definition file.

    The flag is an object flag with one variant per arm, ``{"candidate": id, "round": r,
    "parameters": {...}}``. Users are hashed by flag, round and targeting key, so each round assigns
    them anew. The control is the default variant: users without a targeting key get it, and so does
    everybody where targeting fails.

    Shares become integer weights that sum to 2**31 - 1, the largest sum that flagd accepts, by
    largest remainders, which minimise the largest error for a given sum. flagd serves weight W of T
    to the hashes h of 32 bits with ``(h * T) >> 32`` in a range of W numbers. So a served share
    differs from the planned one by less than 1 / (2**31 - 1) + 2**-32 < 7e-10. Shares below that
    may not be served at all.

    Other flags in the file, ``$evaluators`` and metadata are kept; the flag of this name is
    replaced. An application that reads the flag without ``ThetaClient`` must log an exposure only
    where OpenFeature's reason is ``TARGETING_MATCH``: defaults are not part of the experiment.

    Args:
        path: the definition, JSON, in a folder that exists; its permissions are kept.
        flag: the flag's key.
    Raises:
        ConfigError: the path is empty or YAML, or the key is empty.
    Source: flagd's documents "Fractional Operation" and "High-Precision Fractional Bucketing".
    """

    def __init__(self, path: str | Path, *, flag: str = "value-model") -> None:
        self.path = checked_path(path)
        if self.path.suffix.lower() in (".yaml", ".yml"):
            raise ConfigError(
                f"{str(path)!r}: definitions are written as JSON, and YAML reads some JSON numbers "
                "as texts (1e-05); name a .json file"
            )
        if not isinstance(flag, str) or not flag:
            raise ConfigError(f"a flag's key is a text that is not empty, got {flag!r}")
        self.flag = flag

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again does not touch the file.

        Raises:
            InputError: the plan cannot be served.
            ConfigError: the file cannot be read or written, or is not a flag definition; it is
                unchanged.
        """
        check_plan(plan)
        with locked(self.path):
            document = self._read()
            _check_references(plan, document.get("$evaluators", {}))
            self._write(document, _flag(plan, self.flag))

    def withdraw(self) -> None:
        """Serve the control alone, outside any round; without the flag it does nothing.

        Raises:
            ConfigError: the file cannot be read or written, or is not a flag definition; it is
                unchanged.
        """
        with locked(self.path):
            document = self._read()
            if self.flag not in document["flags"]:
                return
            control = document["flags"][self.flag]["variants"].get(_CONTROL_VARIANT)
            if not isinstance(control, dict):
                raise ConfigError(
                    f"{str(self.path)!r}: flag {self.flag!r} has no variant "
                    f"{_CONTROL_VARIANT!r} to serve, so it belongs to others: name another flag"
                )
            variants = {_CONTROL_VARIANT: {**control, "round": None}}
            self._write(document, _frame(variants))

    def _read(self) -> dict[str, Any]:
        """The file's definition, or an empty one where there is no file yet."""
        if not self.path.exists():
            return {"flags": {}}
        document = read_object(self.path)
        fault = _fault_of(document)
        if fault:
            raise ConfigError(
                f"{str(self.path)!r} is not a flagd definition: {fault}; it was not changed: "
                "repair it, or name another file"
            )
        return document

    def _write(self, document: dict[str, Any], flag: dict[str, Any]) -> None:
        flags = {**document["flags"], self.flag: flag}
        replace_file(self.path, to_json({**document, "flags": flags}))


def weights(shares: Sequence[float], total: int = MAX_TOTAL_WEIGHT) -> list[int]:
    """Whole weights that sum to ``total``, by largest remainders.

    No other whole weights of this sum have a smaller largest error, which is below
    ``(1 - 1 / arms) / total``. A share of 0 has the weight 0.

    Args:
        shares: not negative, with a sum above 0; they are scaled to the sum 1.
    Source: Hamilton's method; Balinski and Young (1982), Fair Representation.
    """
    exact = [Fraction(share) for share in shares]
    scale = total / sum(exact)
    quotas = [share * scale for share in exact]
    whole = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (whole[i] - quotas[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def _flag(plan: Plan, key: str) -> dict[str, Any]:
    names = [_CONTROL_VARIANT if c == CONTROL else f"candidate-{c}" for c in plan.candidate_ids]
    variants = {
        name: {"candidate": candidate, "round": plan.round, "parameters": dict(parameters)}
        for name, candidate, parameters in zip(names, plan.candidate_ids, plan.parameters)
    }
    user = {"var": "targetingKey"}
    served = [[name, weight] for name, weight in zip(names, weights(plan.shares)) if weight]
    split = {"fractional": [{"cat": [f"{key}/{plan.round}/", user]}, *served]}
    # Users without a key would all fall into one bucket, hence into one arm.
    return _frame(variants) | {"targeting": {"if": [user, split]}}


def _frame(variants: dict[str, Any]) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": variants, "defaultVariant": _CONTROL_VARIANT}


def _fault_of(document: Mapping[str, Any]) -> str | None:
    """Why flagd's provider cannot read a definition; None where it can.

    One flag that it cannot read makes it refuse the whole file.
    """
    flags = document.get("flags")
    if not isinstance(flags, dict):
        return 'it has no object "flags"'
    for field in ("metadata", "$evaluators"):
        if not isinstance(document.get(field, {}), dict):
            return f'its "{field}" is not an object'
    for key, flag in flags.items():
        if not isinstance(flag, dict):
            return f"flag {key[:80]!r} is not an object"
        if flag.get("state") not in _STATES:
            return f'flag {key[:80]!r} has no "state" among {_STATES}'
        if not isinstance(flag.get("variants"), dict) or not flag["variants"]:
            return f'flag {key[:80]!r} has no "variants"'
    return None


def _check_references(plan: Plan, evaluators: Mapping[str, Any]) -> None:
    """Refuse references: flagd replaces ``"$ref": "name"`` by an evaluator, in variants too."""
    for candidate, parameters in zip(plan.candidate_ids, plan.parameters):
        value = parameters.get("$ref")
        if isinstance(value, str) and value in evaluators:
            raise InputError(
                f"candidate {candidate}: flagd would read the parameter '$ref' = {value[:80]!r} as "
                "a reference to an evaluator of this file; rename the parameter or the evaluator"
            )


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
    Raises:
        MissingExtraError: OpenFeature is not installed.
    """

    def __init__(
        self, client: Any, base: Mapping[str, Value], *, flag: str = "value-model"
    ) -> None:
        try:
            from openfeature.evaluation_context import EvaluationContext
        except ImportError:
            raise MissingExtraError("the flag client", "openfeature-sdk", "flags") from None
        self._client: Any = client
        self._context: Any = EvaluationContext
        self._base = dict(base)
        self._flag = flag
        self._domain: str | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        base: Mapping[str, Value],
        *,
        flag: str = "value-model",
        poll_seconds: float = 0.5,
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
        client = cls(api.get_client(domain), base, flag=flag)
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
        details = self._client.get_object_details(self._flag, {}, self._context(user_key(user)))
        if details.reason != "TARGETING_MATCH":
            why = details.error_code or details.reason
            return self._fallback(str(getattr(why, "value", why)))
        value = details.value
        candidate, number, parameters = value["candidate"], value["round"], value["parameters"]
        if not isinstance(candidate, int) or not isinstance(number, int):
            return self._fallback("the variant does not come from a plan")
        if parameters.keys() != self._base.keys():
            return self._fallback("the variant sets other parameters than base")
        return Assignment(candidate, number, dict(parameters), PLANNED)

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
