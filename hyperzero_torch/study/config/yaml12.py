"""YAML as version 1.2 reads it, on PyYAML, which by itself reads version 1.1.

    plain value      here (1.2)      PyYAML (1.1)
    1e-4             0.0001          the text '1e-4'
    on, NO, yes      texts           True, False, True
    12:30            a text          750, in base 60
    010              a text          8, in base 8
    1_000, 0b11      texts           1000, 3
    2026-01-31       a text          a date
    a key twice      an error        the later value

Plain values follow the core schema (YAML 1.2.2, chapter 10.3), with one exception: a number with
leading zeros is a text, because such values are codes and not quantities. JSON has no such numbers
either.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_BOOL = r"true|True|TRUE|false|False|FALSE"
_NULL = r"~|null|Null|NULL|"
_INT = r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
# An alias stands for a whole part of the document, and a part may hold aliases again: a file of a
# few lines could stand for more values than any memory holds. Study files need a few hundred.
_MOST_VALUES = 100_000
_MERGE = "<<"  # left to the application by version 1.2, and kept for files that use it
# Each with the characters that such a value may begin with; ints first, an int matches both.
_RESOLVERS: tuple[tuple[str, str, list[str]], ...] = (
    ("bool", _BOOL, list("tTfF")),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", _MERGE, ["<"]),
)


class _Loader(yaml.SafeLoader):
    """Resolves plain values as version 1.2 does, and refuses a key that stands twice."""

    def get_single_node(self) -> yaml.Node | None:
        """The document, refused where its aliases stand for too many values."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node, {}, set())
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, before keys are merged into it."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"the key {key.value!r} stands in line {lines[key.tag, key.value]} already; "
                    "keep one of the two",
                    key.start_mark,
                )
            lines[key.tag, key.value] = line
        return node


def _count(node: yaml.Node, counted: dict[int, int], within: set[int]) -> int:
    """The number of values that a node stands for, with all aliases replaced.

    Every node is visited once, however often it is named.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in within:
        raise yaml.composer.ComposerError(
            None, None, "a part contains an alias of itself; write it without", node.start_mark
        )
    if id(node) not in counted:
        within.add(id(node))
        parts = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        counted[id(node)] = 1 + sum(_count(part, counted, within) for part in parts)
        within.remove(id(node))
    if counted[id(node)] > _MOST_VALUES:
        raise yaml.composer.ComposerError(
            None,
            None,
            f"with its aliases the document stands for more than {_MOST_VALUES:,} values; write "
            "it without aliases",
            node.start_mark,
        )
    return counted[id(node)]


class _Dumper(yaml.SafeDumper):
    """Quotes a text that version 1.1 or version 1.2 would read as something else."""


_Loader.yaml_implicit_resolvers = {}  # none of version 1.1
for _name, _pattern, _starts in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _starts)


def read_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: it is not YAML, a mapping names a key twice, or its aliases stand for too
            many values.
        ValueError: a number with more digits than Python reads.
        RecursionError: nested too deep.
    """
    return yaml.load(text, _Loader)


def write_yaml(value: Any) -> str:
    """Plain values as YAML with the same value under versions 1.1 and 1.2, numbers excepted."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
