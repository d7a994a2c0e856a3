"""The record of the surrogate that a study was started with.

A study without it uses the package's own model. An earlier package would take the record for a
remark and plan with its own model, so it has a version of its own.
"""

from __future__ import annotations

from .record import DecisionTrace

SURROGATE = "surrogate"
#: Kinds that version 5 brought. Before, people could write remarks of these kinds.
SURROGATE_KINDS = frozenset({SURROGATE})


class SurrogateChosen(DecisionTrace):
    """``text`` names the surrogate for people, ``digest`` identifies all that its fits depend on.

    ``name`` is set where the package or a study file makes it by name; ``caveat``, since version 7,
    where there is something that its users must know.
    """

    kind = SURROGATE
    version = 7
    text: str
    digest: str
    name: str | None = None
    caveat: str | None = None
