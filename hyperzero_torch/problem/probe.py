"""Objectives and constraints are called once when a problem is made, so that errors show then."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ProblemError
from .reach import refuse_unbreakable
from .terms import Constraint, Term

_SHAPE = (3, 5)


def zeros(num_metrics: int) -> Tensor:
    """The deltas of the base, ``(3, 5, metrics)``."""
    return torch.zeros(*_SHAPE, num_metrics, dtype=torch.float64)


def probe(
    terms: Sequence[Term],
    constraints: Sequence[str | Constraint],
    metrics: Sequence[str],
    level: Tensor,
) -> None:
    """Call every term of a new problem.

    Args:
        terms: the objective, then the constraints.
        constraints: as the user gave them.
        metrics: their names.
        level: the base's levels in the shape of ``zeros``, ones where they are not known.
    Raises:
        ProblemError: a term fails, returns another shape, is random, cannot be satisfied by the
            base, or cannot be broken.
    """
    zero = torch.zeros_like(level)
    small = _small(level)
    for term in terms:
        what = _name(term, terms)
        value = _called(term, small, level, what)
        with torch.no_grad():
            again = term(small, level)
        # Plans must be a function of the journal.
        if not torch.equal(value.nan_to_num(), again.nan_to_num()):
            raise ProblemError(
                f"{what} gives two values for the same deltas; a module with "
                "dropout or the like needs .eval() before it becomes part of a problem"
            )
    for constraint, term in zip(constraints, terms[1:]):
        slack = float(term(zero, level)[0, 0].detach())
        allowed = isinstance(constraint, Constraint) and constraint.may_exclude_base
        if not term.sees_levels and not allowed and not slack >= 0:  # NaN does not hold
            raise ProblemError(
                f"no base can satisfy the constraint {term.name!r}: the base's own deltas are "
                f"0, where its slack is {slack:g}. Check its sign (a guardrail on a loss of "
                "0.1 % reads '>= -0.1%'), or, to demand an improvement, pass "
                "hz.Constraint(..., may_exclude_base=True)"
            )
        refuse_unbreakable(constraint, term, metrics)


def probe_on(terms: Sequence[Term], level: Tensor) -> None:
    """Call every callable of a problem on a device.

    Args:
        terms: the objective, then the constraints, moved to the device.
        level: as for ``probe``, on the device.

    Raises:
        ProblemError: it fails there, or returns a tensor of another device.
    """
    small = _small(level)
    for term in terms:
        if term.expression is not None:
            continue
        instead = (
            "write it as an nn.Module that holds its tensors as parameters or buffers, which is "
            "copied to the device, or move them with .to(delta.device)"
        )
        what = f"{_name(term, terms)} does not work on {level.device}"
        try:
            with torch.no_grad():
                value = term(small, level)
        except Exception as error:
            raise ProblemError(f"{what}: {type(error).__name__}: {error}; {instead}") from error
        if value.device != small.device:
            raise ProblemError(f"{what}: it returned a tensor on {value.device}; {instead}")


def _called(term: Term, delta: Tensor, level: Tensor, what: str) -> Tensor:
    """The term's value; a callable that uses tensors of a card is called there from now on."""
    try:
        with torch.no_grad():
            value = term(delta, level)
    except Exception as error:
        on_card = _called_on_card(term, delta, level)
        if on_card is None:
            raise ProblemError(
                f"{what} fails on deltas of shape (3, 5, {delta.shape[-1]}): "
                f"{type(error).__name__}: {error}"
            ) from error
        value = on_card
    if tuple(value.shape) != _SHAPE:
        raise ProblemError(
            f"{what} must map (..., metrics) to (...): "
            f"expected {_SHAPE} from {tuple(delta.shape)}, got {tuple(value.shape)}"
        )
    return value


def _called_on_card(term: Term, delta: Tensor, level: Tensor) -> Tensor | None:
    """The value of a plain callable on the current card; None where it fails there, too."""
    if isinstance(term.function, str | nn.Module) or not torch.cuda.is_available():
        return None
    term.home = torch.empty(0, device="cuda").device
    try:
        with torch.no_grad():
            return term(delta, level)
    except Exception:  # the first error is reported
        term.home = None
        return None


def _small(level: Tensor) -> Tensor:
    """Small deltas in the shape of levels, on their device."""
    return torch.linspace(-0.01, 0.01, level.numel(), dtype=level.dtype).view_as(level).to(level)


def _name(term: Term, terms: Sequence[Term]) -> str:
    return f"{'objective' if term is terms[0] else 'constraint'} {term.name!r}"
