"""Writes ``docs/reference/study_file.md`` from the models that read a study file.

python docs/study_file.py
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
import types
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hyperzero_torch.problem.parameters import Choice, Float, Int
from hyperzero_torch.study.config.exposure import HarmBudget
from hyperzero_torch.study.config.monitoring import AlertsConfig, MonitoringConfig, UnleashConfig
from hyperzero_torch.study.config.study import (
    LiveConfig,
    MetricConfig,
    RescaledConfig,
    SourceConfig,
    StudyConfig,
)
from hyperzero_torch.study.config.tuner import TunerConfig

PAGE = Path(__file__).parent / "reference" / "study_file.md"
SECTIONS: dict[type[BaseModel], str] = {
    StudyConfig: "The file",
    TunerConfig: "traffic",
    HarmBudget: "traffic.harm_budget",
    LiveConfig: "live",
    MetricConfig: "live.metrics",
    UnleashConfig: "live.unleash",
    MonitoringConfig: "live.monitoring",
    AlertsConfig: "live.alerts",
    SourceConfig: "sources",
    RescaledConfig: "sources.map",
}
_PARAMETERS = {
    Float: "a number from `low` to `high`; with `log: true` uniform in its logarithm",
    Int: "a whole number from `low` to `high`, both included",
    Choice: "one of `options`, all of one type",
}
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_SIGNS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
_HEAD = """# Study file

Every key that a study file may have, made from the models that read it
(`python docs/study_file.py`; a test holds it to them). The file is YAML 1.2 or JSON. An unknown key
is refused, with its place and the key that was meant. How it is used:
[A cron job](../how-to/cron.md), [the live loop](../how-to/live.md).
"""


def text() -> str:
    """The page."""
    parts = [_HEAD]
    for model, title in SECTIONS.items():
        name = title if model is StudyConfig else f"`{title}`"
        intro = " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())
        parts.append(f"## {name}\n\n{_plain(intro)}\n")
        parts.append(_table(model))
        if model is StudyConfig:
            parts.append(_parameters())
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    described = descriptions(model)
    rows = ["| key | what it takes | default | |", "| --- | --- | --- | --- |"]
    for name, info in model.model_fields.items():
        what = f"{words(info.annotation)}{_bounds(info)}".replace("|", "or")
        says = _plain(described.get(name, "")).replace("|", "or")
        rows.append(f"| `{name}` | {what} | {_default(info)} | {says} |")
    return "\n".join(rows) + "\n"


def _parameters() -> str:
    lines = ["### `parameters`\n", "| `kind` | keys | |", "| --- | --- | --- |"]
    for kind, what in _PARAMETERS.items():
        fields = [name for name in inspect.signature(kind).parameters if name != "kind"]
        keys = ", ".join(f"`{name}`" for name in fields)
        default = inspect.signature(kind).parameters["kind"].default
        lines.append(f"| `{default}` | {keys} | {what} |")
    return "\n".join(lines) + "\n"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The texts below a model's fields, as its source has them."""
    found_texts: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (issubclass(owner, BaseModel) and owner.__module__.startswith("hyperzero_torch")):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                target, value = field.target, below.value
                if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                    found_texts[target.id] = " ".join(str(value.value).split())
    return found_texts


def words(annotation: Any) -> str:
    """What a type takes, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if annotation is datetime:
        return "date"
    if annotation in SECTIONS:
        return f"[`{SECTIONS[annotation]}`](#{_anchor(SECTIONS[annotation])})"
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        if set(parts) & {Float, Int, Choice}:
            return "[parameter](#parameters)"
        if set(parts) == set(_WORDS):
            return "number, text, true or false"
        shown = [words(part) for part in parts if part is not type(None)]
        return " or ".join(shown) + (" or null" if type(None) in parts else "")
    if origin is tuple and get_origin(parts[0]) is tuple:  # kept as pairs, written as names
        return f"names with {words(get_args(parts[0])[1])}"
    if origin is tuple:
        return f"list of {words(parts[0])}"
    if origin is dict:
        return f"names with {words(parts[1])}"
    if hasattr(annotation, "__metadata__"):
        return words(parts[0])
    return str(getattr(annotation, "__name__", annotation))


def _bounds(info: FieldInfo) -> str:
    limits = []
    for limit in info.metadata:
        if isinstance(limit, MinLen):
            limits.append("not empty")
        elif type(limit) in _SIGNS:
            sign, name = _SIGNS[type(limit)]
            limits.append(f"{sign} {getattr(limit, name):,}")
    return f", {', '.join(limits)}" if limits else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | dict):
        return "all" if value else "none"
    return f"`{value}`"


def _plain(described: str) -> str:
    return re.sub(r"\bNone\b", "null", described.replace("``", "`"))


def _anchor(title: str) -> str:
    return title.lower().replace(".", "")


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
