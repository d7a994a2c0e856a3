"""The house's docstrings as Griffe reads them.

Its Google style wants an empty line above a section; ours follow each other without one.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"\n(?=(?:Args|Returns|Raises|Warns|Yields|Source):)")


class HouseSections(griffe.Extension):
    """Puts the empty lines there."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of every object that has a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = spaced(obj.docstring.value)


def spaced(docstring: str) -> str:
    """A docstring with an empty line above every section."""
    return _SECTION.sub("\n\n", docstring)
