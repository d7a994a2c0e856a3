"""Plans as flagd flag definitions.

    updater = FlagdUpdater("flags.json")                      # in the job that calls ask()
    updater.apply(tuner.ask())

``client.py`` has what an application reads them with.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from ...errors import ConfigError, InputError
from ...runtime.files import locked
from ...study.history import CONTROL
from ...study.plan import Plan
from .checks import check_plan
from .fence import Terms, check_apply, check_withdraw, checked_terms, read_stamp
from .files import checked_path, read_object, replace_file, to_json

#: The largest sum of weights that flagd's ``fractional`` accepts: MaxInt32.
MAX_TOTAL_WEIGHT = 2**31 - 1

_CONTROL_VARIANT = "control"
# Seconds since 1970, which flagd and its providers put into every evaluation.
_TIMESTAMP = "$flagd.timestamp"
_STATES = ("ENABLED", "DISABLED")


class FlagdUpdater:
    """Writes plans into a flagd flag definition file.

    The flag is an object flag with one variant per arm, ``{"candidate": id, "round": r,
    "parameters": {...}}``. Users are hashed by flag, round and targeting key, so each round assigns
    them anew. The control is the default variant: users without a targeting key get it, those
    outside the experiment, and everybody where targeting fails.

    Who takes part is decided by a hash of the flag and the targeting key alone. A larger
    ``experiment_share`` keeps those who took part before and adds others; the hash for the arm is
    independent of it.

    Shares become integer weights that sum to 2**31 - 1, the largest sum that flagd accepts, by
    largest remainders, which minimise the largest error for a given sum. flagd serves weight W of T
    to the hashes h of 32 bits with ``(h * T) >> 32`` in a range of W numbers. So a served share
    differs from the planned one by less than 1 / (2**31 - 1) + 2**-32 < 7e-10. Shares below that
    may not be served at all.

    A flag that is written on behalf of a study (``on_behalf_of``; the live loop does so) carries a
    stamp in its ``metadata``: study, epoch, round, salt, ``valid_from`` and ``valid_until`` in
    seconds since 1970. Its variants name study and epoch too, for the log of exposures. flagd knows
    the time (``$flagd.timestamp``): outside of the lease it serves the default, the control, with
    nobody running. Such a flag is never replaced by an older plan, nor by one of another study or
    another journal of the study.

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
        self._terms: Terms | None = None

    def on_behalf_of(self, terms: Terms) -> Self:
        """The same flag for one study and one lease."""
        other = copy.copy(self)
        other._terms = terms
        return other

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again does not touch the file.

        Raises:
            InputError: the plan cannot be served.
            FencedError: a later plan is served, or one of another study or journal.
            ConfigError: the file cannot be read or written, or is not a flag definition; it is
                unchanged.
        """
        check_plan(plan)
        with locked(self.path):
            document = self._read()
            _check_references(plan, document.get("$evaluators", {}))
            there = document["flags"].get(self.flag, {})
            stamp = read_stamp(there.get("metadata"))
            check_apply(self._where(), stamp, _served_round(there), plan, self._terms)
            self._write(document, _flag(plan, self.flag, self._terms))

    def withdraw(self) -> None:
        """Serve the control alone, outside any round.

        Without the flag it does nothing, except on behalf of a study whose terms name the control.

        Raises:
            FencedError: the flag serves another study.
            ConfigError: the file cannot be read or written, or is not a flag definition; it is
                unchanged.
        """
        with locked(self.path):
            document = self._read()
            there, control = None, None if self._terms is None else self._terms.control
            if self.flag in document["flags"]:
                there = read_stamp(document["flags"][self.flag].get("metadata"))
                check_withdraw(self._where(), there, self._terms)
            elif control is None:
                return
            if self._terms is not None:
                there = self._terms.withdrawn(there, self.flag)
            self._withdraw(document, there)

    def owner(self) -> dict[str, Any] | None:
        """The stamp of what is served; None where there is none.

        Raises:
            ConfigError: the file cannot be read, or is not a flag definition.
        """
        return read_stamp(self._read()["flags"].get(self.flag, {}).get("metadata"))

    def take_over(self) -> None:
        """Withdraw whatever is served, and serve this study's plans from now on.

        Raises:
            ConfigError: as for ``withdraw``, or there are no terms.
        """
        terms = checked_terms(self._terms)
        with locked(self.path):
            document = self._read()
            if self.flag in document["flags"]:
                self._withdraw(document, terms.empty_stamp(self.flag))

    def _withdraw(self, document: dict[str, Any], stamp: dict[str, Any] | None) -> None:
        terms, flag = self._terms, document["flags"].get(self.flag)
        if flag is None:
            terms = checked_terms(terms)
            whose = {"study": terms.study, "epoch": terms.epoch}
            control = {"candidate": CONTROL, **whose, "parameters": dict(terms.control or {})}
        else:
            control = flag["variants"].get(_CONTROL_VARIANT)
        if not isinstance(control, dict):
            raise ConfigError(
                f"{str(self.path)!r}: flag {self.flag!r} has no variant "
                f"{_CONTROL_VARIANT!r} to serve, so it belongs to others: name another flag"
            )
        variants = {_CONTROL_VARIANT: {**control, "round": None}}
        self._write(document, _frame(variants, stamp))

    def _where(self) -> str:
        return f"flag {self.flag!r:.100} in {str(self.path)!r}"

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


def _flag(plan: Plan, key: str, terms: Terms | None) -> dict[str, Any]:
    stamp = None if terms is None else terms.stamp(plan, key)
    whose: dict[str, Any] = {} if terms is None else {"study": terms.study, "epoch": terms.epoch}
    if terms is not None and terms.valid_until is not None:
        whose |= {"valid_from": terms.valid_from, "valid_until": terms.valid_until}
    names = [_CONTROL_VARIANT if c == CONTROL else f"candidate-{c}" for c in plan.candidate_ids]
    variants = {
        name: {"candidate": candidate, "round": plan.round, **whose, "parameters": dict(parameters)}
        for name, candidate, parameters in zip(names, plan.candidate_ids, plan.parameters)
    }
    user = {"var": "targetingKey"}
    served = [[name, weight] for name, weight in zip(names, weights(plan.shares)) if weight]
    split = {"fractional": [{"cat": [f"{key}/{plan.round}/", user]}, *served]}
    # Users without a key would all fall into one bucket, hence into one arm.
    conditions: list[dict[str, Any]] = [user]
    if terms is not None and terms.valid_until is not None:
        now = {"var": _TIMESTAMP}
        conditions += [{">=": [now, terms.valid_from]}, {"<": [now, terms.valid_until]}]
    if plan.experiment_share < 1:
        conditions.append(_takes_part(key, user, plan.experiment_share))
    condition = user if len(conditions) == 1 else {"and": conditions}
    return _frame(variants, stamp) | {"targeting": {"if": [condition, split]}}


def _served_round(flag: Mapping[str, Any]) -> int | None:
    """The round of a plan that an earlier version wrote; None for other flags."""
    control = flag.get("variants", {}).get(_CONTROL_VARIANT)
    number = control.get("round") if isinstance(control, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _takes_part(key: str, user: dict[str, Any], share: float) -> dict[str, Any]:
    """Whether a user takes part, the same in every round; others get the default variant."""
    inside, outside = weights([share, 1 - share])
    buckets = [{"cat": [f"{key}/experiment/", user]}, ["in", inside], ["out", outside]]
    return {"==": [{"fractional": buckets}, "in"]}


def _frame(variants: dict[str, Any], stamp: dict[str, Any] | None) -> dict[str, Any]:
    metadata = {} if stamp is None else {"metadata": stamp}
    frame = {"state": "ENABLED", "variants": variants, "defaultVariant": _CONTROL_VARIANT}
    return frame | metadata


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
