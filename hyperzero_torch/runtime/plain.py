"""Texts of data without characters that a terminal or a reader of logs would obey."""

from __future__ import annotations

import unicodedata

# Control characters, and those that reverse the order in which a text is shown.
_CATEGORIES = ("Cc", "Cf", "Zl", "Zp", "Cs")
# Format characters that names of many languages and emoji need.
_HARMLESS = "\u200c\u200d\u00ad"


def plain(text: str, keep: str = "\n\t") -> str:
    """The text with control characters written as escapes, such as ``\\x1b``.

    Args:
        text: of a name, an id or a reason.
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign in keep or sign in _HARMLESS or unicodedata.category(sign) not in _CATEGORIES
        else sign.encode("unicode_escape").decode()
        for sign in text
    )
