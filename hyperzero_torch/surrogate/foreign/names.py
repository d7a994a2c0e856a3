"""Names under which a study file states its surrogate."""

from __future__ import annotations

import re

from ...errors import ConfigError

DEFAULT, ENSEMBLE, MULTITASK, SAAS = "matern", "ensemble", "multitask", "saas"
#: ``matern`` is the package's own model.
NAMES = (
    *(DEFAULT, "rbf", "additive", "linear+matern", "quadratic+matern"),
    *(MULTITASK, ENSEMBLE, SAAS),
)
#: Names whose models are fitted within seconds, the default left out.
QUICK = ("rbf", "additive", "linear+matern", "quadratic+matern", MULTITASK, ENSEMBLE)
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(name: str) -> bool:
    """Whether it is ``"module:function"``."""
    return _REFERENCE.fullmatch(name) is not None


def names_in_words() -> str:
    """What a text may be, for messages."""
    return f"a name ({', '.join(NAMES)}) or 'module:function'"


def as_name(name: str) -> str:
    """A name or reference, checked.

    Raises:
        ConfigError: it is neither.
    """
    if name not in NAMES and not is_reference(name):
        raise ConfigError(f"surrogate {name!r} is not known; use {names_in_words()}")
    return name


def as_reference(name: str, what: str) -> str:
    """A reference, checked.

    Raises:
        ConfigError: it is none.
    """
    if not is_reference(name):
        raise ConfigError(
            f"{what} {name!r} is not understood; write 'module:function', or 'journal-url#study' "
            "for the mean of another study"
        )
    return name
