"""An expert's word over what was computed: pinned, forbidden or discounted, and written down."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from . import checks

#: A source, or one parameter of it: ``"north"`` or ``("north", "w_click")``.
Whom: TypeAlias = str | tuple[str, str]


class Ruling(NamedTuple):
    """One change: ``whom`` it concerns, what was done, and the similarity before and after."""

    whom: Whom
    kind: str
    before: float
    after: float


class Ruled(NamedTuple):
    """Similarities as they are to be used, in [0, 1]; NaN where nothing is known.

    ``similarity`` by source; ``by_parameter`` by source and parameter: how much of what the
    source says about that parameter is to be believed. ``rulings`` say what was changed.
    """

    similarity: dict[str, float]
    by_parameter: dict[str, dict[str, float]]
    rulings: tuple[Ruling, ...]


@dataclass(frozen=True)
class ExpertOverride:
    """What an expert says of sources, over what was computed.

    Args:
        pin: similarity is this, in [0, 1], whatever was computed; of a whole source, since what is
            pinned is its correlation with the target, which a single parameter does not have.
        forbid: similarity is 0.
        discount: what was computed is multiplied by this, in [0, 1].
        reason: for the audit trail.

    Who is forbidden or discounted is a source, or one parameter of a source, which stands over what
    holds for the source as a whole. A forbidden source is forbidden throughout.

    Raises:
        ConfigError: numbers outside [0, 1], a pin of a single parameter, or one whom two of these
            speak of.
    """

    pin: Mapping[Whom, float] = field(default_factory=dict)
    forbid: Collection[Whom] = ()
    discount: Mapping[Whom, float] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        flaws = checks.Flaws("this overrule")
        for kind in ("pin", "discount"):
            given = getattr(self, kind)
            if not isinstance(given, Mapping):
                flaws.add(f"{kind} must map sources to numbers, got {type(given).__name__}")
                continue
            for whom, value in given.items():
                if not checks.is_real(value) or not 0 <= value <= 1:
                    flaws.add(f"{kind} of {whom!r} must lie in [0, 1], got {checks.brief(value)}")
        if isinstance(self.forbid, str) or not isinstance(self.forbid, Collection):
            flaws.add(f"forbid must be a list of sources, got {self.forbid!r:.40}")
        if not isinstance(self.reason, str):
            flaws.add(f"reason must be text, got {self.reason!r:.40}")
        flaws.throw()
        said = [*self.pin, *self.forbid, *self.discount]
        for whom in said:
            pair = isinstance(whom, tuple) and len(whom) == 2 and all(map(_is_text, whom))
            if not _is_text(whom) and not pair:
                flaws.add(f"expected a source or (source, parameter), got {whom!r:.60}")
        if pinned := [whom for whom in self.pin if isinstance(whom, tuple)]:
            flaws.add(
                "a single parameter can be forbidden or discounted, not pinned: a pin is the "
                "correlation of a whole source with the target; pin the source, or discount "
                f"{checks.shown(pinned)}"
            )
        flaws.throw()
        for kind in ("pin", "discount"):
            told = {whom: float(value) for whom, value in getattr(self, kind).items()}
            object.__setattr__(self, kind, told)
        object.__setattr__(self, "forbid", tuple(self.forbid))
        if twice := sorted({str(whom) for whom in said if said.count(whom) > 1}):
            flaws.add(f"more than one word is said of {checks.shown(twice)}")
        for whom in said:
            if isinstance(whom, tuple) and whom[0] in self.forbid:
                flaws.add(f"{whom[0]!r} is forbidden throughout, so nothing is left of {whom!r}")
        flaws.throw()

    def silences(self, source: str) -> bool:
        """Whether nothing is left of a source."""
        return source in self.forbid or self.discount.get(source) == 0

    @property
    def words(self) -> str:
        """As a person says it; empty where nothing is said."""
        pins = [f"pin {called(whom)} = {value:g}" for whom, value in self.pin.items()]
        bans = [f"forbid {called(whom)}" for whom in self.forbid]
        rest = [f"discount {called(whom)} = {value:g}" for whom, value in self.discount.items()]
        return ", ".join([*pins, *bans, *rest])

    def rule(self, similarity: Mapping[str, float], parameters: Sequence[str]) -> Ruled:
        """What was computed, overruled.

        Args:
            similarity: by source, in [0, 1], NaN where it is not known.
            parameters: of the target.
        Raises:
            ConfigError: it speaks of a source or a parameter that is not there.
        """
        flaws = checks.Flaws("this overrule")
        for whom in (*self.pin, *self.forbid, *self.discount):
            source, parameter = (whom, None) if isinstance(whom, str) else whom
            if source not in similarity:
                flaws.add(f"there is no source {source!r}, only {checks.shown(similarity)}")
            elif parameter is not None and parameter not in parameters:
                flaws.add(f"there is no parameter {parameter!r}, only {checks.shown(parameters)}")
        flaws.throw()
        rulings: list[Ruling] = []
        whole = {name: self._ruled(name, value, rulings) for name, value in similarity.items()}
        parts = {
            name: {p: self._ruled((name, p), value, rulings) for p in parameters}
            for name, value in whole.items()
        }
        return Ruled(whole, parts, tuple(rulings))

    def _ruled(self, whom: Whom, before: float, rulings: list[Ruling]) -> float:
        if whom in self.pin:
            kind, after = "pinned", float(self.pin[whom])
        elif whom in self.forbid:
            kind, after = "forbidden", 0.0
        elif whom in self.discount:
            kind, after = "discounted", before * self.discount[whom]
        else:
            return before
        same = after == before or (math.isnan(after) and math.isnan(before))
        if not same or kind != "discounted":
            rulings.append(Ruling(whom, kind, before, after))
        return after


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def called(whom: Whom) -> str:
    """``"north"``, or ``"north:w_click"`` for one parameter of it."""
    return whom if isinstance(whom, str) else ":".join(whom)
