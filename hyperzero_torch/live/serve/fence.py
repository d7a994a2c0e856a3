"""Which study, which journal and which round a platform serves, and until when.

A plan in the flags is stamped. A writer compares its own stamp with the one that is there, under
the lock of the file: an older plan never replaces a newer one, whoever was paused, killed or
restored from a backup, and one flag serves one study. When the lease of a plan has run out, the
flags serve the control by themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ...errors import ConfigError, FencedError
from ...problem.parameters import Value
from ...study.plan import Plan
from .checks import Updater

#: Version of the stamps.
SCHEMA = 1
#: ``Assignment.reason`` of everybody while no plan is in force.
LEASE_OVER = "the lease of the plan has run out"
LEASE_AHEAD = "the lease of the plan has not begun"
_TAKE_OVER = "hyperzero take-over"
# In the stamp of what was withdrawn: the entries that the decision rests on, and the last round
# that it is about. flagd takes plain numbers and texts only.
_SEEN, _UNTIL = "withdrawn_seen", "withdrawn_until"


@dataclass(frozen=True)
class Terms:
    """On whose behalf a plan is served, and for how long.

    Args:
        study: the study's name.
        epoch: the id of its journal, see ``Study.epoch``.
        valid_from: seconds since 1970 (UTC) from which the plan may be served; None for no lease.
        valid_until: seconds since 1970 from which it may not be served any more.
        follows: the studies, with their epochs, that this one succeeds; it takes over their flags.
        seen: number of the journal's entries on which this writer's decision rests.
        last_round: the last round that it knew of; -1 for none.
        control: the control's parameters, to serve before any plan was; None where unknown.
    Raises:
        ConfigError: an empty name or epoch, or a lease that ends before it begins.
    """

    study: str
    epoch: str
    valid_from: float | None = None
    valid_until: float | None = None
    follows: tuple[tuple[str, str], ...] = ()
    seen: int = 0
    last_round: int = -1
    control: Mapping[str, Value] | None = None

    def __post_init__(self) -> None:
        for name in ("study", "epoch"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{name} must be a text that is not empty, got {value!r:.60}")
        lease = (self.valid_from, self.valid_until)
        if lease == (None, None):
            return
        begin, end = (t if isinstance(t, int | float) else math.nan for t in lease)
        if not -math.inf < begin < end < math.inf:
            raise ConfigError(
                "valid_from and valid_until are seconds since 1970, the first before the second, "
                f"got {lease}"
            )

    def stamp(self, plan: Plan, salt: str) -> dict[str, Any]:
        """What is written beside a plan, as plain texts and numbers."""
        lease = {}
        if self.valid_until is not None:
            lease = {"valid_from": self.valid_from, "valid_until": self.valid_until}
        return {
            "schema": SCHEMA,
            "study": self.study,
            "epoch": self.epoch,
            "round": plan.round,
            "plan": digest(plan),
            "salt": salt,
            **lease,
        }

    def withdrawn(self, there: Mapping[str, Any] | None, salt: str) -> dict[str, Any]:
        """The stamp of what is served, once it is withdrawn on this study's behalf.

        It says what the decision rests on: a process that was paused or hung before it is not to
        serve the plan afterwards, the study's first plan too.

        Args:
            there: the stamp of what is served; None where there is none.
            salt: of the flag or the table.
        """
        there = self.empty_stamp(salt) if there is None else there
        if (self.study, self.epoch) != (there["study"], there["epoch"]):
            return dict(there)
        now = {_SEEN: self.seen, _UNTIL: max(self.last_round, there["round"])}
        return {**there, **{name: max(now[name], there.get(name, -1)) for name in now}}

    def empty_stamp(self, salt: str) -> dict[str, Any]:
        """The stamp of a study that serves the control, and has not served any plan."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "epoch": self.epoch,
            "round": -1,
            "plan": "",
            "salt": salt,
        }


def checked_terms(terms: Terms | None) -> Terms:
    """The terms; ``ConfigError`` where an updater has none."""
    if terms is None:
        raise ConfigError("only a study takes flags over: call updater.on_behalf_of(terms) first")
    return terms


class Fenced(Updater, Protocol):
    """A platform on behalf of one study."""

    def take_over(self) -> None:
        """Withdraw whatever is served, and serve this study's plans from now on."""
        ...


@runtime_checkable
class StudyUpdater(Protocol):
    """An updater that can tell studies apart; others serve whatever they are given."""

    def on_behalf_of(self, terms: Terms) -> Fenced:
        """The same platform for one study and one lease."""
        ...

    def owner(self) -> dict[str, Any] | None:
        """The stamp of what is served; None where there is none."""
        ...


def on_behalf_of(updater: Updater, terms: Terms | None) -> Updater:
    """The updater for a study, where it can tell studies apart and there are terms."""
    if terms is None or not isinstance(updater, StudyUpdater):
        return updater
    return updater.on_behalf_of(terms)


def digest(plan: Plan) -> str:
    """Identifies what a plan serves: its arms, their shares and parameters."""
    served = {
        "arms": [list(plan.candidate_ids), list(plan.shares), [dict(p) for p in plan.parameters]],
        "experiment_share": plan.experiment_share,
    }
    text = json.dumps(served, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check_apply(
    where: str,
    there: Mapping[str, Any] | None,
    served_round: int | None,
    plan: Plan,
    terms: Terms | None,
) -> None:
    """Refuse to replace what is served by a plan that is older, or of another study or journal.

    Args:
        where: the file and the flag, for the message.
        there: the stamp of what is served; None where it has none.
        served_round: the round of a plan without a stamp, of an earlier version of the package.
        plan: the new one.
        terms: on whose behalf; None for a caller without a study.
    Raises:
        FencedError: it is refused; the message says what is served and what to do.
    """
    if there is None:
        if terms is not None and served_round is not None and served_round > plan.round:
            raise _older(where, f"round {served_round}", plan.round)
        return
    _check_owner(where, there, terms)
    last = there["round"]
    if last > plan.round:
        raise _older(where, in_words(there), plan.round)
    is_ours = terms is not None and (terms.study, terms.epoch) == (there["study"], there["epoch"])
    is_held = is_ours and plan.round <= there.get(_UNTIL, -1)
    if is_held and terms is not None and terms.seen < there.get(_SEEN, 0):
        raise FencedError(
            f"{where} was withdrawn by a decision that this process had not read when it was to "
            f"serve round {plan.round}: it had read {terms.seen} of {there[_SEEN]} entries. "
            "Nothing was written; the next round follows the journal"
        )
    if is_ours and last == plan.round and there["plan"] != digest(plan):
        raise FencedError(
            f"{where} serves another plan of round {last} of study {there['study']!r}: this "
            "journal was restored from a backup, or two journals serve one flag. Nothing was "
            f"written; wait for the next round, or, if this journal is right, run '{_TAKE_OVER}'"
        )


def check_withdraw(where: str, there: Mapping[str, Any] | None, terms: Terms | None) -> None:
    """Refuse to withdraw the plan of another study. That of another journal of the study may be:
    the control is what is served when in doubt.

    Raises:
        FencedError: it is refused.
    """
    if there is None or terms is None or there["study"] == terms.study:
        return
    _check_owner(where, there, terms)


def read_stamp(value: object) -> dict[str, Any] | None:
    """A stamp as it was written; None where a flag or a table has none, or one of others."""
    if not isinstance(value, Mapping) or "epoch" not in value:
        return None
    kinds: dict[str, type | tuple[type, ...]] = {
        "schema": int, "study": str, "epoch": str, "round": int, "plan": str,
    }  # fmt: skip
    numbers = (value.get(name, 0) for name in (_SEEN, _UNTIL))
    is_whole = all(isinstance(value.get(name), kind) for name, kind in kinds.items())
    if not is_whole or not all(isinstance(number, int) for number in numbers):
        raise ConfigError(
            "what is served has a stamp that cannot be read; a newer hyperzero-torch may have "
            f"written it. Nothing was written: use that version, or run '{_TAKE_OVER}'"
        )
    return dict(value)


def why_not_in_force(stamp: object, now: float) -> str | None:
    """Why a plan may not be served at this time; None where it may.

    Args:
        stamp: anything with ``valid_from`` and ``valid_until``; a plan without them has no end.
        now: seconds since 1970.
    """
    if not isinstance(stamp, Mapping) or stamp.get("valid_until") is None:
        return None
    lease = (stamp.get("valid_from"), stamp["valid_until"])
    begin, end = (t if isinstance(t, int | float) else math.nan for t in lease)
    if now < begin:
        return LEASE_AHEAD
    return None if begin <= now < end else LEASE_OVER  # also where a number is none


def is_withdrawn(stamp: Mapping[str, Any]) -> bool:
    """Whether the control alone is served because somebody decided so."""
    until = stamp.get(_UNTIL)
    return isinstance(until, int) and until >= stamp["round"]


def in_words(stamp: Mapping[str, Any]) -> str:
    """What a stamp says, for messages."""
    return f"round {stamp['round']} of study {stamp['study']!r:.100} (epoch {stamp['epoch']:.40})"


def _check_owner(where: str, there: Mapping[str, Any], terms: Terms | None) -> None:
    if terms is None:
        raise FencedError(
            f"{where} serves {in_words(there)}, and this caller names no study; nothing was "
            "written. Name another file or flag, or the study, by updater.on_behalf_of(terms)"
        )
    owner = (there["study"], there["epoch"])
    if owner == (terms.study, terms.epoch) or owner in terms.follows:
        return
    if there["study"] != terms.study:
        raise FencedError(
            f"{where} serves {in_words(there)}; study {terms.study!r} cannot use it too. Nothing "
            "was written: name another file or another 'flag' in the study file, or, if the other "
            f"study has ended, run '{_TAKE_OVER}'"
        )
    raise FencedError(
        f"{where} serves {in_words(there)}, and this journal of the study has the epoch "
        f"{terms.epoch}: the study was begun anew, or its flags were taken over. Nothing was "
        f"written: restore the journal that they belong to, or, if this one is right, run "
        f"'{_TAKE_OVER}'"
    )


def _older(where: str, served: str, round_: int) -> FencedError:
    return FencedError(
        f"{where} serves {served}; the plan of round {round_} is older and was not written. Stop "
        "the process that serves old rounds. If the journal was restored from a backup, later "
        f"rounds are served as they come; to go on at once, run '{_TAKE_OVER}'"
    )
