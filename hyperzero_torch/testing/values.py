"""Values that are hard to store or to pass on, and how the laws compare values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from ..problem.parameters import Value

#: Floats that are lost in text, in four bytes, or by treating -0.0 as 0.0.
HARD_FLOATS = (
    0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1.7976931348623157e308,
    0.1 + 0.2, 1 / 3, 2.0**53, 2.0**53 + 2, -1e-300, 1.0, 16777217.0, 123456.789e-9,
)  # fmt: skip
#: Names that break quoting, encodings or SQL.
HARD_NAMES = (
    "Größe", "点击率", "🙂 d'accord", "O'Brien; DROP TABLE studies; --", 'a"b`c', "%s {x} :y ?",
    "a\nb\tc", " ", "null", "true", "1", "e\u0301", "\u00e9", "\u2028", "x" * 3000,
)  # fmt: skip
#: Parameter values that templates, markup, references and number formats change.
HARD_VALUES: tuple[Value, ...] = (
    0.0, -0.0, 5e-324, 1e-05, 1e308, 0.1 + 0.2, 1 / 3, 1.0, 1, 0, -7, 2**53 + 1, 2**63, True, False,
    "", "0", "null", "true", "1e-05", "\x00", "\ud800", "\u2028",
)  # fmt: skip
#: Texts that templates, markup and references change.
HARD_TEXTS = (
    'a"b\'c`d', "\\", "{{", "{{targetingKey}}", "${HOME}", "%s {0} {x}", "$ref", "$flagd.flagKey",
    '{"var": "targetingKey"}', '"}, "state": "DISABLED", {"', "</script><script>alert(1)</script>",
    "<!--", "Größe", "点击率", "🙂", "e\u0301", "a\nb\r\tc", " ", "var", "fractional", "__proto__",
    "w" * 20_000,
)  # fmt: skip


def bits(value: Any) -> Any:
    """A value to compare exactly: -0.0 differs from 0.0, and 1, 1.0 and True from each other."""
    if isinstance(value, Mapping):
        return {key: bits(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(bits(v) for v in value)
    return type(value), struct.pack("<d", value) if isinstance(value, float) else value


def assert_raises(kind: type[Exception], call: Callable[[], object], what: str = "") -> Exception:
    """The error that a call raises; fails if it raises none of this kind."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}{what}, the call returned {result!r:.200}")
