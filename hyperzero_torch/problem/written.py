"""Problems from plain values and texts, as a journal holds them.

A callable is not in a journal. It is borrowed from another problem that has the same term.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from ..errors import ProblemError
from .expressions import parse_constraint, parse_objective
from .parameters import Parameter
from .problem import Problem
from .space import SearchSpace
from .terms import Constraint, Objective, Source

_COMPARISON = re.compile(r"^(.*)(?:>=|<=)\s*\S+\s*$", re.S)


def texts_of(problem: Problem) -> tuple[str | None, ...]:
    """The text of each term, the objective first; None for a callable."""
    return tuple(t.function if isinstance(t.function, str) else None for t in problem.terms)


def stored(problem: Problem) -> dict[str, Any]:
    """``Problem.spec()`` with the text of each term, for the header of a study."""
    return problem.spec() | {"texts": list(texts_of(problem))}


def stored_texts(spec: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The text of each term of a header; guessed where it was written before headers had them."""
    texts = spec.get("texts")
    return guessed_texts(spec) if texts is None else tuple(texts)


def restored_alone(spec: Mapping[str, Any], texts: Sequence[str | None], is_sure: bool) -> Problem:
    """The problem of a specification whose terms are all texts.

    Args:
        spec: of ``Problem.spec()``.
        texts: the objective's, then the constraints'; None for a callable.
        is_sure: False where the texts were guessed; then a text that could be the name of a
            function is refused too.
    Raises:
        ProblemError: a term is a callable, or may be one.
    """
    for (name, *_), text in zip(spec["terms"], texts):
        if text is None:
            raise ProblemError(f"{name!r} is a callable, which the journal does not hold")
        if not is_sure and text.isidentifier():
            raise ProblemError(
                f"{name!r} may be a callable of this name: the study is from before journals said "
                "which it is"
            )
    return restored(spec, texts)


def guessed_texts(spec: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The same for a problem of which only ``Problem.spec()`` is known: names that are texts."""
    metrics = tuple(spec["metrics"])
    return tuple(_guessed(metrics, i == 0, *term) for i, term in enumerate(spec.get("terms", ())))


def space_of(spec: Mapping[str, Any]) -> SearchSpace:
    """The search space of a specification."""
    kinds = TypeAdapter(list[Parameter]).validate_python(spec["parameters"])
    return SearchSpace(kinds, spec.get("theta_constraints", ()))


def restored(
    spec: Mapping[str, Any], texts: Sequence[str | None], lenders: Sequence[Problem] = ()
) -> Problem:
    """The problem of a specification, with the texts of its terms.

    Args:
        spec: of ``Problem.spec()``.
        texts: the objective's, then the constraints'; None for a callable.
        lenders: problems whose terms stand in where the text is None and the identity is the same.
    Raises:
        ProblemError: a callable that no lender has.
    """
    lent = {tuple(t.identity()): t for problem in lenders for t in problem.terms}
    terms: list[tuple[Sequence[Any], Source]] = []
    for identity, text in zip(spec["terms"], texts):
        term = lent.get(tuple(identity))
        function = text if text is not None else None if term is None else term.function
        if function is None:
            raise ProblemError(
                f"{identity[0]!r} is a callable, which the journal does not hold; give the problem "
                "with it"
            )
        terms.append((identity, function))
    (name, on, *_), function = terms[0]
    levels = spec.get("base_levels")
    return Problem(
        space=space_of(spec),
        base=spec["base"],
        metrics=spec["metrics"],
        objective=Objective(function, on=on, name=name),
        constraints=[_constraint(function, *identity) for identity, function in terms[1:]],
        base_levels=levels,
    )


def _constraint(function: Any, name: str, on: Any, sign: float, bound: float) -> Constraint:
    # What was accepted once is accepted again: it may be a demand that the base does not meet.
    if isinstance(function, str) and _compares(function):
        return Constraint(function, name=name, may_exclude_base=True)
    bounds = {"at_least" if sign > 0 else "at_most": bound}
    return Constraint(function, on=on, name=name, may_exclude_base=True, **bounds)


def _compares(text: str) -> bool:
    return any(symbol in re.sub(r"`[^`]*`", "", text) for symbol in (">=", "<="))


def _guessed(
    metrics: tuple[str, ...], is_objective: bool, name: str, on: str, sign: float, bound: float
) -> str | None:
    if on != "delta":
        return None
    try:
        if is_objective:
            parse_objective(name, metrics)
            return name
        if (sign, bound) == (1.0, 0.0):
            parse_constraint(name, metrics)
            return name
        written = _COMPARISON.match(name)
        if written is None:
            return None
        text = written[1].strip()
        parse_objective(text, metrics)
    except ProblemError:
        return None
    return text
