"""How much privacy has been spent: a ledger of releases, added up by an accountant.

Every release of noised sums is charged before it is made. The accountant (``dp-accounting``)
composes all of them, over rounds and packages alike, into one epsilon at the ledger's delta; a
release that would take it over the ledger's epsilon is refused.

Two accountants are offered. ``"rdp"`` composes Renyi divergences, which for the discrete Gaussian
are bounded by the Gaussian's (Canonne, Kamath and Steinke, 2020). ``"pld"`` composes whole privacy
loss distributions of the continuous Gaussian: tighter by some per cent, and as good as exact for
noise that spans many steps of the grid, as here, but that step is not proved.

A ledger finds accidents, not a person who deletes it: keep it where it is backed up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ...errors import BudgetError, InputError, MissingExtraError, PackageError
from ...runtime.files import locked, write_atomically
from .. import checks
from . import canonical

SCHEMA = "hyperzero-privacy/1"
# Beyond these the accountants overflow.
_MOST_NOISE, _MOST_TIMES = 1e100, 2**53
UNIT = "one user, added or removed, with at most the stated contributions to each release"
# Of the budget: what calibration leaves by its tolerance, at most 1e-6, is not worth a release. The
# last of a year's hours has five times as much as this.
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
    """A ledger of one population of users: what may be spent, and what has been.

    Args:
        epsilon: of all releases together, above 0.
        delta: of all releases together, in (0, 1), well below one over the number of users.
        path: of the ledger, a JSON file that is made where there is none; None keeps it in memory,
            for simulations.
        accountant: see above.
    Raises:
        MissingExtraError: dp-accounting is not installed.
        ConfigError: numbers that cannot be, or a ledger that cannot be written there.
        PackageError: a ledger that was changed, or of another budget.
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
            flaws.add(f"epsilon > 0 and 0 < delta < 1, got {epsilon} and {delta}")
        if accountant not in ("rdp", "pld"):
            flaws.add(f"accountant is 'rdp' or 'pld', got {accountant!r:.40}")
        flaws.throw()
        self.epsilon, self.delta = float(epsilon), float(delta)
        self.accountant: Accountant = accountant
        self.path = None if path is None else canonical.as_path(path, "a privacy ledger")
        self._releases: tuple[Release, ...] = ()
        _library()
        if self.path is not None:
            with locked(self.path):
                if _is_there(self.path):
                    self._sync()
                else:
                    self._write(())

    @property
    def releases(self) -> tuple[Release, ...]:
        """All that was charged, by whichever process, in order."""
        if self.path is not None:
            self._sync()
        return self._releases

    def spent(self) -> float:
        """Epsilon of all releases so far, at the ledger's delta; 0 before the first."""
        return self._epsilon(self.releases)

    def would_be(self, noise_multiplier: float, count: int = 1) -> float:
        """Epsilon after ``count`` more mechanisms of this noise."""
        return self._epsilon((*self.releases, _checked("a plan", noise_multiplier, count)))

    def check(self, whats: Sequence[str], noise_multiplier: float) -> float:
        """Epsilon after these releases, if they can all be made; nothing is written.

        Args:
            whats: their names, one mechanism each.
            noise_multiplier: of each.
        Raises:
            BudgetError: one was released before, or they do not fit into what is left.
        """
        for what in whats:
            _check_name(what)
        if len(set(whats)) < len(whats) or not whats:
            raise InputError(f"expected names of releases, each once, got {checks.shown(whats)}")
        before = self.releases
        known = {release.what for release in before}
        if again := [what for what in whats if what in known]:
            raise BudgetError(
                f"{checks.shown(again)} were released before; use what was released then, or "
                "release under a new name, which costs as much again"
            )
        planned = _checked("a plan", noise_multiplier, len(whats))
        after = self._epsilon((*before, planned))
        if after > self.epsilon:
            raise BudgetError(
                f"the privacy budget does not suffice for {len(whats)} releases: epsilon would be "
                f"{after:.4g}, allowed is {self.epsilon:g}; release fewer, or with more noise: the "
                "least that fits is taken on the command line where --noise is left out, and is "
                "Budget.noise_multiplier_for in Python"
            )
        return after

    def charge_all(self, whats: Sequence[str], noise_multiplier: float) -> float:
        """Write down several releases in one step, before they are made: all of them or none.

        Args:
            whats, noise_multiplier: as of ``check``.
        Returns:
            Epsilon spent, these releases included.
        Raises:
            BudgetError: as ``check`` does; nothing is written.
        """
        with contextlib.nullcontext() if self.path is None else locked(self.path):
            after = self.check(whats, noise_multiplier)
            made = [_checked(what, noise_multiplier, 1) for what in whats]
            self._write((*self.releases, *made))
        return after

    def charge(self, what: str, noise_multiplier: float, count: int = 1) -> float:
        """Write down a release, before it is made.

        Args:
            what: it is, a name that is used once: what was released is released, and a second
                draw of noise for it would have to be paid again.
            noise_multiplier: standard deviation of the noise over the L2 sensitivity.
            count: of such mechanisms in it.
        Returns:
            Epsilon spent, this release included.
        Raises:
            BudgetError: it would exceed the budget, or is charged already; nothing is written.
            InputError: a name, a noise or a number of mechanisms that cannot be.
        """
        _check_name(what)
        release = _checked(what, noise_multiplier, count)
        with contextlib.nullcontext() if self.path is None else locked(self.path):
            before = self.releases
            if any(r.what == what for r in before):
                raise BudgetError(
                    f"{what!r} was released before; use what was released then, or charge it under "
                    "a new name"
                )
            after = self._epsilon((*before, release))
            if after > self.epsilon:
                raise BudgetError(
                    f"the privacy budget is spent: {what!r} would take epsilon from "
                    f"{self._epsilon(before):.4g} to {after:.4g}, allowed is {self.epsilon:g} at "
                    f"delta {self.delta:g}; release less, or with more noise"
                )
            self._write((*before, release))
        return after

    def noise_multiplier_for(self, count: int) -> float:
        """The least noise with which ``count`` more mechanisms fit into what is left.

        Raises:
            BudgetError: nothing is left, but for rounding.
        """
        _checked("a plan", 1.0, count)
        before = self.releases
        spent = self._epsilon(before)
        if spent >= (1 - _ROUNDING) * self.epsilon:
            raise BudgetError(
                f"nothing is left of epsilon {self.epsilon:g} at delta {self.delta:g} but rounding "
                f"(less than {_ROUNDING:g} of it), and noise that fits into that would drown "
                "everything; release nothing more of these users"
            )
        dp = _library()

        def event(noise: float) -> Any:
            return _event((*before, Release("", noise, count, "")))

        # Too little noise, but not by much: of far too little, PLD would need all memory there is.
        low = math.sqrt(count)
        while self._epsilon((*before, Release("", low, count, ""))) <= self.epsilon:
            low /= 2
        found = dp.calibrate_dp_mechanism(
            self._fresh, event, self.epsilon, self.delta, dp.LowerEndpointAndGuess(low, 2 * low)
        )
        noise = float(found)
        while self._epsilon((*before, Release("", noise, count, ""))) > self.epsilon:
            noise *= 1 + 1e-5  # calibration is exact to its tolerance, on either side
        return noise

    def statement(self) -> dict[str, Any]:
        """What a package says of its noise: plain values for ``package.export(privacy=...)``."""
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
        what = f"privacy ledger {str(self.path)!r}"
        assert self.path is not None
        document = canonical.read(
            self.path, what, SCHEMA, _FIELDS, "restore it from a backup; what was spent is spent"
        )
        for name in ("epsilon", "delta", "accountant"):
            if document[name] != getattr(self, name):
                raise PackageError(
                    f"{what} has {name} {document[name]!r}, got {getattr(self, name)!r}; open it "
                    "as it was made, a budget is not changed"
                )
        try:
            found = tuple(
                _checked(str(r["what"]), r["noise_multiplier"], r["times"], str(r["at"]))
                for r in document["releases"]
            )
        except (TypeError, KeyError, InputError) as error:
            raise canonical.refused(what, f"its releases cannot be read ({error})") from None
        self._releases = found

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
            write_atomically(self.path, canonical.text(canonical.sealed(document)))
        self._releases = tuple(releases)


def _is_there(path: Path) -> bool:
    """Whether a ledger is there; one that cannot be looked at is, and reading it says why."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _check_name(what: Any) -> None:
    if not isinstance(what, str) or not what.strip():
        raise InputError(f"a release has a name, got {checks.brief(what)}")


def _checked(what: str, noise_multiplier: Any, count: Any, at: str | None = None) -> Release:
    number = checks.is_real(noise_multiplier) and checks.is_finite(noise_multiplier)
    if not number or not 0 < noise_multiplier <= _MOST_NOISE:
        raise InputError(
            f"a noise multiplier is a number above 0, at most {_MOST_NOISE:g}, got "
            f"{checks.brief(noise_multiplier)}"
        )
    if type(count) is not int or not 1 <= count <= _MOST_TIMES:
        raise InputError(
            f"expected a number of mechanisms from 1 on, below 2^53, got {checks.brief(count)}"
        )
    now = datetime.now(UTC).isoformat() if at is None else at
    return Release(what, float(noise_multiplier), count, now)


def _event(releases: Sequence[Release]) -> Any:
    """All releases as one; alike ones together, so that a year of hours is one composition."""
    dp = _library()
    alike: dict[float, int] = {}
    for r in releases:
        alike[r.noise_multiplier] = alike.get(r.noise_multiplier, 0) + r.times
    return dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(z), count) for z, count in alike.items()]
    )


def _library() -> Any:
    try:
        import dp_accounting
    except ImportError:
        raise MissingExtraError("a privacy budget", "dp-accounting", "privacy") from None
    return dp_accounting
