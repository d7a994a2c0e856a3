"""Privacy accounting: a ledger of releases, composed by an accountant.

Every release of noised sums is charged before it is made. The accountant (``dp-accounting``)
composes all releases, over rounds and packages, into one epsilon at the ledger's delta. A release
that would exceed the ledger's epsilon is refused.

Two accountants are available. ``"rdp"`` composes Renyi divergences, which for the discrete Gaussian
are bounded by the Gaussian's (Canonne, Kamath and Steinke, 2020). ``"pld"`` composes privacy loss
distributions of the continuous Gaussian: some per cent tighter, and practically exact for noise
that spans many steps of the grid, as here, but that step is not proved.

A ledger belongs to one study and one population of users. It detects accidents; that a person has
deleted it, or restored an older copy, is detected by the study's journal (``releases``).
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ...errors import BudgetError, InputError, PackageError
from ...runtime.files import check_own, locked, write_atomically
from .. import checks
from . import canonical
from .accounting import Release, checked, library
from .accounting import event as composed

SCHEMA = "hyperzero-privacy/2"
_BEFORE = "hyperzero-privacy/1"  # without id and owner
UNIT = "one user, added or removed, with at most the stated contributions to each release"
# Remaining part of a budget that counts as nothing: calibration leaves at most 1e-6, and the last
# hour of a year has five times as much as this.
_ROUNDING = 1e-5
_FIELDS_BEFORE = {"schema", "unit", "epsilon", "delta", "accountant", "releases", "sha256"}
_FIELDS = _FIELDS_BEFORE | {"id", "study", "population"}

Accountant: TypeAlias = Literal["rdp", "pld"]


class Owner(NamedTuple):
    """The study and the population of users that a ledger is about."""

    study: str
    population: str


class Budget:
    """A ledger of one population of users: its budget and its releases.

    Args:
        epsilon: of all releases together, above 0.
        delta: of all releases together, in (0, 1), well below one over the number of users.
        path: of the ledger, a JSON file that is created if missing; None keeps it in memory, for
            simulations.
        accountant: see above.
        owner: to which a ledger is bound when it is written; None for simulations, and to read one.
    Raises:
        MissingExtraError: dp-accounting is not installed.
        ConfigError: invalid numbers, or a ledger that cannot be written there.
        PackageError: a ledger that was changed, or that has another budget or owner.
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        path: str | Path | None = None,
        accountant: Accountant = "rdp",
        owner: Owner | None = None,
    ) -> None:
        flaws = checks.Flaws("this privacy budget")
        checks.floats(flaws, "budget", {"epsilon": epsilon, "delta": delta})
        flaws.throw()
        if not epsilon > 0 or not 0 < delta < 1:
            flaws.add(f"expected epsilon > 0 and 0 < delta < 1, got {epsilon} and {delta}")
        if accountant not in ("rdp", "pld"):
            flaws.add(f"accountant must be 'rdp' or 'pld', got {accountant!r:.40}")
        flaws.throw()
        self.epsilon, self.delta = float(epsilon), float(delta)
        self.accountant: Accountant = accountant
        self.path = None if path is None else canonical.as_path(path, "a privacy ledger")
        self._releases: tuple[Release, ...] = ()
        self._owner, self._bound_to = owner, owner
        #: Tells this ledger from every other one.
        self.id = secrets.token_hex(8)
        library()
        if self.path is not None:
            check_own(self.path, "the privacy ledger")
            with locked(self.path):
                if _is_there(self.path):
                    self._sync()
                else:
                    self._write(())

    @property
    def releases(self) -> tuple[Release, ...]:
        """All releases charged by any process, in order."""
        self._sync()
        return self._releases

    def spent(self) -> float:
        """Epsilon of all releases so far, at the ledger's delta; 0 before the first."""
        return self._epsilon(self.releases)

    def would_be(self, noise_multiplier: float, count: int = 1) -> float:
        """Epsilon after ``count`` more mechanisms of this noise."""
        return self._epsilon((*self.releases, checked("a plan", noise_multiplier, count)))

    def check(self, whats: Sequence[str], noise_multiplier: float, count: int = 1) -> float:
        """Epsilon after these releases, if they can all be made; nothing is written.

        Args:
            whats: their names. A name is used once: a second draw of noise has to be paid again.
            noise_multiplier: standard deviation of the noise over the L2 sensitivity, of each.
            count: of such mechanisms in each.
        Raises:
            BudgetError: a release was made before, or the budget does not suffice.
            InputError: an invalid name, noise or number of mechanisms.
        """
        for what in whats:
            if not isinstance(what, str) or not what.strip():
                raise InputError(f"a release needs a name, got {checks.brief(what)}")
        if len(set(whats)) < len(whats) or not whats:
            raise InputError(f"expected names of releases, each once, got {checks.shown(whats)}")
        before = self.releases
        released = {release.what for release in before}
        if again := [what for what in whats if what in released]:
            raise BudgetError(
                f"{checks.shown(again)} were released before; use what was released then, or "
                "release under a new name, which costs as much again"
            )
        after = self._epsilon(
            (*before, *(checked(what, noise_multiplier, count) for what in whats))
        )
        if after > self.epsilon:
            raise BudgetError(
                f"the privacy budget does not suffice for {len(whats)} releases: epsilon would go "
                f"from {self._epsilon(before):.4g} to {after:.4g}, allowed is {self.epsilon:g} at "
                f"delta {self.delta:g}; release fewer, or with more noise. The smallest sufficient "
                "noise is used on the command line without --noise, and in Python it is "
                "Budget.noise_multiplier_for"
            )
        return after

    def charge_all(self, whats: Sequence[str], noise_multiplier: float, count: int = 1) -> float:
        """Record several releases in one step, before they are made: all of them or none.

        Args:
            whats, noise_multiplier, count: as for ``check``.
        Returns:
            Epsilon spent, these releases included.
        Raises:
            BudgetError, InputError: as for ``check``; nothing is written.
        """
        with contextlib.nullcontext() if self.path is None else locked(self.path):
            after = self.check(whats, noise_multiplier, count)
            if self._owner is None and self._bound_to is not None:
                raise PackageError(
                    f"the privacy ledger {str(self.path)!r} is about {self._bound_to.population!r} "
                    f"of study {self._bound_to.study!r}; open it with this owner to charge it"
                )
            made = [checked(what, noise_multiplier, count) for what in whats]
            self._write((*self.releases, *made))
        return after

    def charge(self, what: str, noise_multiplier: float, count: int = 1) -> float:
        """Record one release, before it is made; see ``charge_all``."""
        return self.charge_all([what], noise_multiplier, count)

    def noise_multiplier_for(self, count: int) -> float:
        """The smallest noise with which ``count`` more mechanisms fit into the remaining budget.

        Raises:
            BudgetError: nothing remains, apart from rounding.
        """
        checked("a plan", 1.0, count)
        before = self.releases
        spent = self._epsilon(before)
        if spent >= (1 - _ROUNDING) * self.epsilon:
            raise BudgetError(
                f"nothing is left of epsilon {self.epsilon:g} at delta {self.delta:g} but rounding "
                f"(less than {_ROUNDING:g} of it), which needs noise far larger than the data; "
                "release nothing more about these users"
            )
        dp = library()

        def event(noise: float) -> Any:
            return composed((*before, Release("", noise, count, "")))

        # Start slightly below the answer: for far too little noise PLD runs out of memory.
        low = math.sqrt(count)
        while self._epsilon((*before, Release("", low, count, ""))) <= self.epsilon:
            low /= 2
        bracket = dp.LowerEndpointAndGuess(low, 2 * low)
        noise = float(
            dp.calibrate_dp_mechanism(self._fresh, event, self.epsilon, self.delta, bracket)
        )
        while self._epsilon((*before, Release("", noise, count, ""))) > self.epsilon:
            noise *= 1 + 1e-5  # calibration may err on either side within its tolerance
        return noise

    def statement(self) -> dict[str, Any]:
        """The ledger's totals as plain values, for ``package.export(privacy=...)``."""
        releases = self.releases
        return {
            "unit": UNIT,
            "epsilon": self._epsilon(releases),
            "delta": self.delta,
            "accountant": self.accountant,
            "mechanisms": sum(r.times for r in releases),
        }

    def _epsilon(self, releases: Sequence[Release]) -> float:
        if not releases:
            return 0.0
        accountant = self._fresh()
        accountant.compose(composed(releases))
        return float(accountant.get_epsilon(self.delta))

    def _fresh(self) -> Any:
        if self.accountant == "rdp":
            from dp_accounting.rdp import RdpAccountant

            return RdpAccountant()
        from dp_accounting.pld import PLDAccountant

        return PLDAccountant()

    def _sync(self) -> None:
        if self.path is None:
            return
        what = f"privacy ledger {str(self.path)!r}"
        document = _read(self.path, what)
        for name in ("epsilon", "delta", "accountant"):
            if document[name] != getattr(self, name):
                raise PackageError(
                    f"{what} has {name} {document[name]!r}, got {getattr(self, name)!r}; open it "
                    "with the values it was created with"
                )
        self._check_owner(document, what)
        try:
            self._releases = tuple(
                checked(str(r["what"]), r["noise_multiplier"], r["times"], str(r["at"]))
                for r in document["releases"]
            )
        except (TypeError, KeyError, InputError) as error:
            raise canonical.refused(what, f"its releases cannot be read ({error})") from None

    def _check_owner(self, document: Mapping[str, Any], what: str) -> None:
        """Take over the ledger's id and owner; refuse another owner than ours."""
        self.id = str(document["id"] or self.id)
        if document["study"] is None:
            return  # bound when it is charged
        self._bound_to = Owner(str(document["study"]), str(document["population"]))
        if self._owner is not None and self._owner != self._bound_to:
            raise PackageError(
                f"{what} is about {self._bound_to.population!r} of study "
                f"{self._bound_to.study!r}, not {self._owner.population!r} of study "
                f"{self._owner.study!r}; every study and population has a ledger of its own"
            )

    def _write(self, releases: Sequence[Release]) -> None:
        document = {
            "schema": SCHEMA,
            "id": self.id,
            "study": None if self._bound_to is None else self._bound_to.study,
            "population": None if self._bound_to is None else self._bound_to.population,
            "unit": UNIT,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "releases": [r._asdict() for r in releases],
        }
        if self.path is not None:
            text = canonical.text(canonical.sealed(document))
            write_atomically(self.path, text, private=True)
        self._releases = tuple(releases)


def _read(path: Path, what: str) -> dict[str, Any]:
    """A ledger's content; one of the earlier schema has no owner yet."""
    again = "restore it from a backup; what was spent is spent"
    document = canonical.read(path, what, (SCHEMA, _BEFORE), None, again)
    expected = _FIELDS if document["schema"] == SCHEMA else _FIELDS_BEFORE
    if set(document) != expected:
        raise canonical.refused(what, f"its fields are {sorted(document)}; {again}")
    return {"id": None, "study": None, "population": None} | document


def _is_there(path: Path) -> bool:
    """Whether a ledger exists; if it cannot be accessed, reading it reports why."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
