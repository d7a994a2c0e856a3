"""Privacy accounting: a ledger of releases, composed by an accountant.

Every release of noised sums is charged before it is made. The accountant (``dp-accounting``)
composes all releases, over rounds and packages, into one epsilon at the ledger's delta. A release
that would exceed the ledger's epsilon is refused.

Two accountants are available. ``"rdp"`` composes Renyi divergences, which for the discrete Gaussian
are bounded by the Gaussian's (Canonne, Kamath and Steinke, 2020). ``"pld"`` composes privacy loss
distributions of the continuous Gaussian: some per cent tighter, and practically exact for noise
that spans many steps of the grid, as here, but that step is not proved.

A ledger detects accidents, not a person who deletes it: keep it where it is backed up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ...errors import BudgetError, InputError, MissingExtraError, PackageError
from ...runtime.files import check_own, locked, write_atomically
from .. import checks
from . import canonical

SCHEMA = "hyperzero-privacy/1"
# The accountants overflow beyond these.
_MOST_NOISE, _MOST_TIMES = 1e100, 2**53
UNIT = "one user, added or removed, with at most the stated contributions to each release"
# Remaining part of a budget that counts as nothing: calibration leaves at most 1e-6, and the last
# hour of a year has five times as much as this.
_ROUNDING = 1e-5
_FIELDS = {"schema", "unit", "epsilon", "delta", "accountant", "releases", "sha256"}

Accountant: TypeAlias = Literal["rdp", "pld"]


class Release(NamedTuple):
    """``times`` Gaussian mechanisms whose noise is ``noise_multiplier`` times the sensitivity."""

    what: str
    noise_multiplier: float
    times: int
    at: str


class Budget:
    """A ledger of one population of users: its budget and its releases.

    Args:
        epsilon: of all releases together, above 0.
        delta: of all releases together, in (0, 1), well below one over the number of users.
        path: of the ledger, a JSON file that is created if missing; None keeps it in memory, for
            simulations.
        accountant: see above.
    Raises:
        MissingExtraError: dp-accounting is not installed.
        ConfigError: invalid numbers, or a ledger that cannot be written there.
        PackageError: a ledger that was changed, or that has another budget.
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        path: str | Path | None = None,
        accountant: Accountant = "rdp",
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
        _library()
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
        return self._epsilon((*self.releases, _checked("a plan", noise_multiplier, count)))

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
            (*before, *(_checked(what, noise_multiplier, count) for what in whats))
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
            made = [_checked(what, noise_multiplier, count) for what in whats]
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
        _checked("a plan", 1.0, count)
        before = self.releases
        spent = self._epsilon(before)
        if spent >= (1 - _ROUNDING) * self.epsilon:
            raise BudgetError(
                f"nothing is left of epsilon {self.epsilon:g} at delta {self.delta:g} but rounding "
                f"(less than {_ROUNDING:g} of it), which needs noise far larger than the data; "
                "release nothing more about these users"
            )
        dp = _library()

        def event(noise: float) -> Any:
            return _event((*before, Release("", noise, count, "")))

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
        accountant.compose(_event(releases))
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
        document = canonical.read(
            self.path, what, SCHEMA, _FIELDS, "restore it from a backup; what was spent is spent"
        )
        for name in ("epsilon", "delta", "accountant"):
            if document[name] != getattr(self, name):
                raise PackageError(
                    f"{what} has {name} {document[name]!r}, got {getattr(self, name)!r}; open it "
                    "with the values it was created with"
                )
        try:
            self._releases = tuple(
                _checked(str(r["what"]), r["noise_multiplier"], r["times"], str(r["at"]))
                for r in document["releases"]
            )
        except (TypeError, KeyError, InputError) as error:
            raise canonical.refused(what, f"its releases cannot be read ({error})") from None

    def _write(self, releases: Sequence[Release]) -> None:
        document = {
            "schema": SCHEMA,
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


def _is_there(path: Path) -> bool:
    """Whether a ledger exists; if it cannot be accessed, reading it reports why."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _checked(what: str, noise_multiplier: Any, count: Any, at: str | None = None) -> Release:
    number = checks.is_real(noise_multiplier) and checks.is_finite(noise_multiplier)
    if not number or not 0 < noise_multiplier <= _MOST_NOISE:
        raise InputError(
            f"a noise multiplier must lie above 0 and be at most {_MOST_NOISE:g}, got "
            f"{checks.brief(noise_multiplier)}"
        )
    if type(count) is not int or not 1 <= count <= _MOST_TIMES:
        raise InputError(
            f"expected a number of mechanisms >= 1 and below 2^53, got {checks.brief(count)}"
        )
    now = datetime.now(UTC).isoformat() if at is None else at
    return Release(what, float(noise_multiplier), count, now)


def _event(releases: Sequence[Release]) -> Any:
    """All releases as one event, grouped by noise: a year of hours is one composition."""
    dp = _library()
    times: dict[float, int] = {}
    for r in releases:
        times[r.noise_multiplier] = times.get(r.noise_multiplier, 0) + r.times
    return dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(z), count) for z, count in times.items()]
    )


def _library() -> Any:
    try:
        import dp_accounting
    except ImportError:
        raise MissingExtraError("a privacy budget", "dp-accounting", "privacy") from None
    return dp_accounting
