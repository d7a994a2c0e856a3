"""An expert's override of sources: pinned, forbidden or discounted, and recorded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..errors import ConfigError
from ..study.config.base import Config
from . import checks

#: A source, or one parameter of it: ``"north"`` or ``("north", "w_click")``.
Subject: TypeAlias = str | tuple[str, str]


def _part(value: object) -> float:
    if not checks.is_real(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ConfigError("must be a number in [0, 1]")
    return float(value)  # type: ignore[arg-type]


#: A real number of Python or NumPy in [0, 1].
Part: TypeAlias = Annotated[float, BeforeValidator(_part)]


class ExpertOverride(Config):
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

    pin: dict[Subject, Part] = Field(default_factory=dict)
    forbid: tuple[Subject, ...] = ()
    discount: dict[Subject, Part] = Field(default_factory=dict)
    reason: str = ""

    @field_validator("pin")
    @classmethod
    def _whole_sources(cls, pin: dict[Subject, float]) -> dict[Subject, float]:
        if parts := [subject for subject in pin if isinstance(subject, tuple)]:
            raise ConfigError(
                "a single parameter can be forbidden or discounted, not pinned: a pin is the "
                "correlation of a whole source with the target; pin the source, or discount "
                f"{checks.shown(parts)}"
            )
        return pin

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        subjects = self.subjects
        if twice := sorted({str(s) for s in subjects if subjects.count(s) > 1}):
            raise ConfigError(f"named more than once: {checks.shown(twice)}; name each source once")
        for subject in subjects:
            if isinstance(subject, tuple) and subject[0] in self.forbid:
                raise ConfigError(
                    f"{subject[0]!r} is forbidden as a whole, so {subject!r} has no effect"
                )
        return self

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


def label(subject: Subject) -> str:
    """``"north"``, or ``"north:w_click"`` for one parameter of it."""
    return subject if isinstance(subject, str) else ":".join(subject)
