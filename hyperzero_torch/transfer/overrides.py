"""An expert's override of sources: pinned, forbidden or discounted, and recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from . import checks

#: A source, or one parameter of it: ``"north"`` or ``("north", "w_click")``.
Subject: TypeAlias = str | tuple[str, str]


@dataclass(frozen=True)
class ExpertOverride:
    """What an expert lays down about sources, over what was computed.

    Args:
        pin: the similarity is this value, in [0, 1]. Only a whole source can be pinned: the value
            is its correlation with the target, which a single parameter does not have.
        forbid: the similarity is 0.
        discount: the computed similarity is multiplied by this factor, in [0, 1].
        reason: for the audit trail.

    A subject of ``forbid`` or ``discount`` is a source, or one parameter of a source, which takes
    precedence over the source as a whole. A forbidden source is forbidden throughout.

    Raises:
        ConfigError: numbers outside [0, 1], a pin of a single parameter, or a subject that is named
            more than once.
    """

    pin: Mapping[Subject, float] = field(default_factory=dict)
    forbid: Collection[Subject] = ()
    discount: Mapping[Subject, float] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        flaws = checks.Flaws("this override")
        for kind in ("pin", "discount"):
            given = getattr(self, kind)
            if not isinstance(given, Mapping):
                flaws.add(f"{kind} must map sources to numbers, got {type(given).__name__}")
                continue
            for subject, value in given.items():
                if not checks.is_real(value) or not 0 <= value <= 1:
                    flaws.add(
                        f"{kind} of {subject!r} must lie in [0, 1], got {checks.brief(value)}"
                    )
        if isinstance(self.forbid, str) or not isinstance(self.forbid, Collection):
            flaws.add(f"forbid must be a list of sources, got {self.forbid!r:.40}")
        if not isinstance(self.reason, str):
            flaws.add(f"reason must be text, got {self.reason!r:.40}")
        flaws.throw()
        subjects = self.subjects
        for subject in subjects:
            pair = isinstance(subject, tuple) and len(subject) == 2 and all(map(_is_text, subject))
            if not _is_text(subject) and not pair:
                flaws.add(f"expected a source or (source, parameter), got {subject!r:.60}")
        if pinned := [subject for subject in self.pin if isinstance(subject, tuple)]:
            flaws.add(
                "a single parameter can be forbidden or discounted, not pinned: a pin is the "
                "correlation of a whole source with the target; pin the source, or discount "
                f"{checks.shown(pinned)}"
            )
        flaws.throw()
        for kind in ("pin", "discount"):
            values = {subject: float(value) for subject, value in getattr(self, kind).items()}
            object.__setattr__(self, kind, values)
        object.__setattr__(self, "forbid", tuple(self.forbid))
        if twice := sorted({str(s) for s in subjects if subjects.count(s) > 1}):
            flaws.add(f"named more than once: {checks.shown(twice)}; name each source once")
        for subject in subjects:
            if isinstance(subject, tuple) and subject[0] in self.forbid:
                flaws.add(f"{subject[0]!r} is forbidden as a whole, so {subject!r} has no effect")
        flaws.throw()

    @property
    def subjects(self) -> list[Subject]:
        """All that it names."""
        return [*self.pin, *self.forbid, *self.discount]

    def excludes(self, source: str) -> bool:
        """Whether a source does not count at all."""
        return source in self.forbid or self.discount.get(source) == 0

    @property
    def summary(self) -> str:
        """One line for people; empty where nothing is overridden."""
        pins = [f"pin {label(subject)} = {value:g}" for subject, value in self.pin.items()]
        bans = [f"forbid {label(subject)}" for subject in self.forbid]
        rest = [
            f"discount {label(subject)} = {value:g}" for subject, value in self.discount.items()
        ]
        return ", ".join([*pins, *bans, *rest])

    def check(self, sources: Collection[str], parameters: Collection[str]) -> None:
        """Refuse subjects that do not exist.

        Raises:
            ConfigError: names every subject that is not among them.
        """
        flaws = checks.Flaws("this override")
        for subject in self.subjects:
            source, parameter = (subject, None) if isinstance(subject, str) else subject
            if source not in sources:
                flaws.add(f"there is no source {source!r}, only {checks.shown(sources)}")
            elif parameter is not None and parameter not in parameters:
                flaws.add(f"there is no parameter {parameter!r}, only {checks.shown(parameters)}")
        flaws.throw()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def label(subject: Subject) -> str:
    """``"north"``, or ``"north:w_click"`` for one parameter of it."""
    return subject if isinstance(subject, str) else ":".join(subject)
