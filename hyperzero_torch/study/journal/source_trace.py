"""The records about other domains: what a study learns from, and what it must not learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictInt

from .record import DecisionTrace

#: Kinds about other domains: a source, and an expert's override.
SOURCE, OVERRULED = "source", "overruled"
SOURCE_WITHDRAWN, SOURCE_REFUSED, RELEASED = "source withdrawn", "source refused", "private release"
#: Kinds that version 6 brought. Before, people could write remarks of these kinds.
KINDS_OF_6 = frozenset({SOURCE_WITHDRAWN})


class SourceAdded(DecisionTrace):
    """The evidence of another domain, and its fingerprint."""

    kind = SOURCE
    source: Mapping[str, Any]
    fingerprint: str


class SourcesOverridden(DecisionTrace):
    """An expert's rules for sources; the latest are in force."""

    kind = OVERRULED
    pin: Mapping[str, Any]
    forbid: tuple[Any, ...]
    discount: Any
    reason: str = Field("", alias="why")


class SourceWithdrawn(DecisionTrace):
    """The evidence of a source no longer counts: its package, or the key of it, was revoked."""

    kind = SOURCE_WITHDRAWN
    version = 6
    name: str
    sha256: str = ""


class SourceRefused(DecisionTrace):
    """A package of a source was not learned from; the evidence from before stays."""

    kind = SOURCE_REFUSED
    name: str
    sha256: str = ""


class PrivateRelease(DecisionTrace):
    """Evidence was released with noise, and charged to a ledger, which had ``releases`` then.

    ``ledger`` is the id of the ledger. A ledger with another id, or with fewer releases, is not the
    one that knows what was spent.
    """

    kind = RELEASED
    ledger: str
    population: str
    releases: StrictInt = Field(ge=0)
    epsilon: float = Field(ge=0)
