"""What differs between two problems, in sentences: what a running study may change, and what not.

Both are given as ``Problem.spec()``, plain JSON values, so that a problem of which only the journal
knows can be compared. Goals are the objective, the guardrails, the bounds of parameters, the
options of a Choice, the constraints on theta and the base levels. Parameters, their kinds and
scales, the base and the metrics are what a study's evidence rests on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .options import is_among, same_option

_BOUND = re.compile(r"^(.*)(>=|<=)\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*$", re.S)
_NEW_STUDY = "start another study for it, which may learn from this one (sources)"


class Difference(NamedTuple):
    """Sentences on what differs, each led by the key of ``Problem.spec()``.

    ``goals`` may change while a study runs. ``fixed`` may not.
    """

    goals: tuple[str, ...]
    fixed: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.goals or self.fixed)


class Guardrail(NamedTuple):
    """A constraint as a journal has it: ``sign * (value - bound) >= 0``."""

    name: str
    value: str
    sign: float
    bound: float


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """What differs between two specifications; equal where both are empty.

    Options of a Choice are compared as sets: their places are the study's own.
    """
    goals: list[str] = []
    fixed = [*_metrics(before, after), *_parameters(before, after, goals)]
    if not fixed and not _same_values(before.get("base"), after.get("base")):
        fixed.append(
            f"base: the study has {before.get('base')}, the problem {after.get('base')}; deltas "
            f"are measured against the base, so {_NEW_STUDY}"
        )
    goals[:0] = [*_objective(before, after), *_guardrails(before, after)]
    goals += _theta_constraints(before, after)
    if before.get("base_levels") != after.get("base_levels"):
        goals.append(f"base_levels: {_levels(before)} before, {_levels(after)} from here on")
    return Difference(tuple(goals), tuple(fixed))


def changed_guardrails(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Names of constraints of ``before`` that ``after`` does not have as they were.

    Where base levels changed, those that may see levels are among them.
    """
    terms, kept = list(before.get("terms", ()))[1:], list(after.get("terms", ()))[1:]
    gone = {str(term[0]) for term in terms if term not in kept}
    if before.get("base_levels") != after.get("base_levels"):
        # A name of one's own does not show whether the text behind it sees levels.
        gone |= {n for n, on, *_ in terms if on != "delta" or "level" in n or not _BOUND.match(n)}
    return gone


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = list(before.get("metrics", ())), list(after.get("metrics", ()))
    if old == new:
        return
    if added := [name for name in new if name not in old]:
        yield (
            f"metrics: {added} were never collected in this study, which has {old}; a goal can "
            f"only use metrics of which there are readings, so {_NEW_STUDY}"
        )
    elif removed := [name for name in old if name not in new]:
        yield (
            f"metrics: {removed} are missing, the study collects {old}; keep them in the list: a "
            "metric that no goal uses does no harm"
        )
    else:
        yield f"metrics: the order is the study's, {old}; got {new}"


def _parameters(
    before: Mapping[str, Any], after: Mapping[str, Any], goals: list[str]
) -> Iterable[str]:
    old = {p["name"]: p for p in before.get("parameters", ())}
    new = {p["name"]: p for p in after.get("parameters", ())}
    added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
    if added or removed:
        what = [f"{added} are new"] if added else []
        what += [f"{removed} are missing"] if removed else []
        yield (
            f"parameters: {' and '.join(what)}, the study tunes {list(old)}; its evidence is on "
            f"these, so {_NEW_STUDY}"
        )
        return
    if list(old) != list(new):
        yield f"parameters: the order is the study's, {list(old)}; got {list(new)}"
        return
    for name, was in old.items():
        becomes = new[name]
        if was["kind"] != becomes["kind"]:
            yield (
                f"parameters: {name!r} was of kind {was['kind']!r} and is {becomes['kind']!r}; "
                f"{_NEW_STUDY}"
            )
        elif was.get("log") != becomes.get("log"):
            yield (
                f"parameters: {name!r} has log={was.get('log')} in the study and "
                f"log={becomes.get('log')} in the problem; the scale is the study's, so keep it, "
                f"or {_NEW_STUDY}"
            )
        elif was["kind"] == "choice":
            goals += _options(name, was["options"], becomes["options"])
        elif (was["low"], was["high"]) != (becomes["low"], becomes["high"]):
            goals.append(_bounds(name, was, becomes))


def _bounds(name: str, was: Mapping[str, Any], becomes: Mapping[str, Any]) -> str:
    narrower = becomes["low"] >= was["low"] and becomes["high"] <= was["high"]
    wider = becomes["low"] <= was["low"] and becomes["high"] >= was["high"]
    how = "narrower" if narrower else "wider" if wider else "moved"
    return (
        f"parameters: the bounds of {name!r} are {how}: [{was['low']}, {was['high']}] before, "
        f"[{becomes['low']}, {becomes['high']}] from here on"
    )


def _options(name: str, was: Sequence[Any], becomes: Sequence[Any]) -> Iterable[str]:
    if added := [o for o in becomes if not is_among(o, was)]:
        yield f"parameters: {name!r} has the new options {added}"
    if removed := [o for o in was if not is_among(o, becomes)]:
        yield f"parameters: the options {removed} of {name!r} are not served any more"


def _objective(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    was, becomes = (_objective_term(spec) for spec in (before, after))
    if was == becomes:
        return
    if was[0] != becomes[0]:
        yield f"objective: {was[0]!r} before, {becomes[0]!r} from here on"
    else:
        yield f"objective: {was[0]!r} was given {was[1]!r} before, {becomes[1]!r} from here on"


def _objective_term(spec: Mapping[str, Any]) -> list[Any]:
    terms = spec.get("terms")
    return list(terms[0]) if terms else [spec.get("objective"), "delta", 1.0, 0.0]


def _guardrails(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    terms = [list(spec.get("terms", ()))[1:] for spec in (before, after)]
    if terms[0] == terms[1]:
        return
    old, new = ([_guardrail(*t) for t in ts if t not in other] for ts, other in
                zip(terms, reversed(terms)))  # fmt: skip
    if not old and not new:
        yield "constraints: the guardrails are listed in another order"
    left = list(new)
    for was in old:
        match = next((g for g in left if (g.value, g.sign) == (was.value, was.sign)), None)
        if match is None:
            yield f"constraints: the guardrail {was.name!r} is removed"
            continue
        left.remove(match)
        change = (match.bound - was.bound) * was.sign
        how = "loosened" if change < 0 else "tightened" if change > 0 else "written anew"
        yield (f"constraints: the guardrail {was.name!r} is {how}: {_bound_of(match)} from here on")
    for becomes in left:
        yield f"constraints: the guardrail {becomes.name!r} is added"


def _bound_of(guardrail: Guardrail) -> str:
    return f"{guardrail.name!r}" if _BOUND.match(guardrail.name) else f"{guardrail.bound:g}"


def _guardrail(name: str, on: str, sign: float, bound: float) -> Guardrail:
    """A constraint's term with its bound; one in a comparison is read from its text."""
    written = _BOUND.match(name)
    if written is None or ">=" in written[1] or "<=" in written[1]:
        return Guardrail(name, f"{name} on {on}", sign, bound)
    value = f"{' '.join(written[1].split())} on {on}"
    if (sign, bound) != (1.0, 0.0):  # the name only shows the bound, rounded
        return Guardrail(name, value, sign, bound)
    number = float(written[3]) / (100.0 if written[4] else 1.0)
    return Guardrail(name, value, 1.0 if written[2] == ">=" else -1.0, number)


def _theta_constraints(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = (list(spec.get("theta_constraints", ())) for spec in (before, after))
    for text in (t for t in old if t not in new):
        yield f"theta_constraints: {text!r} is removed"
    for text in (t for t in new if t not in old):
        yield f"theta_constraints: {text!r} is added"
    if old != new and sorted(old) == sorted(new):
        yield "theta_constraints: the constraints are listed in another order"


def _levels(spec: Mapping[str, Any]) -> str:
    levels = spec.get("base_levels")
    return "estimated from the control" if levels is None else str(levels)


def _same_values(a: Any, b: Any) -> bool:
    if not isinstance(a, Mapping) or not isinstance(b, Mapping) or set(a) != set(b):
        return bool(a == b)
    return all(same_option(a[name], b[name]) for name in a)
