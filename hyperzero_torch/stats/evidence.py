"""The evidence about each candidate: its deltas pooled over rounds.

    mean = sum_t w_t mean_t / sum_t w_t        var = sum_t w_t^2 var_t / (sum_t w_t)^2

with the arm's users as weights (Eq. 3.2), or any other weights that do not depend on the deltas.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..runtime import fused, native
from ..runtime.memory import require
from .delta import ControlTerms, Delta, control_terms
from .groups import check_ids
from .moments import Moments

# Elements of one tile of ``stream``: its temporaries stay in the processor's cache.
_TILE_ELEMENTS = 2**15
# Passes of PyTorch over an element in ``stream``.
_OPERATIONS = 16


class EvidenceState(NamedTuple):
    """Running sums, each ``(candidates, metrics)``.

    ``weight`` = sum w, ``mean`` = weighted mean (0 before the first), ``spread`` = sum w^2 var.
    """

    weight: Tensor
    mean: Tensor
    spread: Tensor


def init(
    num_candidates: int,
    num_metrics: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> EvidenceState:
    """No evidence: the identity of ``merge``.

    Raises:
        ShapeError: sizes that are not whole numbers, or below 0.
        SizeError: it would not fit into memory.
    """
    sizes = (num_candidates, num_metrics)
    if any(isinstance(s, bool) or not isinstance(s, int | torch.SymInt) or s < 0 for s in sizes):
        raise ShapeError(
            "num_candidates and num_metrics must be whole numbers of 0 or more, got "
            f"{num_candidates!r} and {num_metrics!r}"
        )
    require(
        3 * num_candidates * num_metrics * dtype.itemsize,
        torch.device(device),
        f"evidence of {num_metrics} metrics about {num_candidates} candidates",
        "keep fewer candidates, or float32",
    )
    zero = torch.zeros(num_candidates, num_metrics, dtype=dtype, device=device)
    return EvidenceState(zero, zero.clone(), zero.clone())


def merge(a: EvidenceState, b: EvidenceState) -> EvidenceState:
    """Pool two disjoint sets of evidence about the same candidates, ``(candidates, metrics)``."""
    weight = a.weight + b.weight
    share = torch.where(weight > 0, b.weight / weight, 0.0)
    return EvidenceState(weight, a.mean + (b.mean - a.mean) * share, a.spread + b.spread)


def summarise(
    candidates: Tensor, delta: Delta, weight: Tensor, num_candidates: int
) -> EvidenceState:
    """The evidence in one batch of deltas; a candidate may occur any number of times.

    Args:
        candidates: ``(arms,)``, indices in ``[0, num_candidates)``.
        delta: ``(arms, metrics)``; a NaN is no evidence.
        weight: ``(arms,)`` or ``(arms, metrics)``, positive.
        num_candidates: rows of the result.
    """
    check_ids(candidates, num_candidates, "candidates")
    if weight.ndim == delta.mean.ndim - 1:
        weight = weight.unsqueeze(-1)
    valid = delta.mean.isfinite() & delta.var.isfinite()
    weight = torch.where(valid, weight.to(delta.mean.dtype), 0.0)
    zero = delta.mean.new_zeros(num_candidates, delta.mean.shape[-1])
    total = zero.index_add(0, candidates, weight)
    product = torch.where(valid, weight * delta.mean, 0.0)
    spread = torch.where(valid, weight.square() * delta.var, 0.0)
    mean = zero.index_add(0, candidates, product) / torch.where(total > 0, total, 1.0)
    return EvidenceState(total, mean, zero.index_add(0, candidates, spread))


def pool(state: EvidenceState, candidates: Tensor, delta: Delta, weight: Tensor) -> EvidenceState:
    """The evidence with a batch of deltas pooled in: ``merge`` with ``summarise`` of it.

    In C where the bucket is large and on the CPU. Arguments as in ``summarise``.

    Raises:
        ShapeError: an index out of range, unless ``torch.compile`` traces this.
    """
    num = len(state.weight)
    # On a card ``summarise`` checks. C would write anywhere.
    if candidates.device.type == "cpu" and candidates.numel() and not torch.compiler.is_compiling():
        low, high = map(int, torch.aminmax(candidates))
        if low < 0 or high >= num:
            raise ShapeError(f"candidate ids must lie in [0, {num}), got {low} to {high}")
    users = weight.to(delta.mean.dtype)
    users = users.unsqueeze(-1) if users.ndim == 1 else users
    if not native.usable(_OPERATIONS * state.weight.numel(), *state, *delta, users):
        return merge(state, summarise(candidates, delta, weight, num))
    pooled = EvidenceState(*(field.contiguous().clone() for field in state))
    native.update(candidates, *delta, users, pooled)
    return pooled


def stream(state: EvidenceState, treatment: Moments, control: Moments) -> None:
    """Pool one round of a whole bucket into ``state``, in place: row i is candidate i.

    The same as ``summarise`` of ``delta.ratio`` with the users as weights, then ``merge``, in one
    pass over memory: in C where the bucket is large and on the CPU, by Triton on a card, tile by
    tile in PyTorch elsewhere, as one expression under ``torch.compile``. A candidate that was not
    served has a count of 0; it keeps its evidence, as does one whose delta cannot be computed.

    Args:
        state: each field ``(candidates, metrics)``; overwritten.
        treatment: Moments, each field ``(candidates, metrics)``, in the metric's unit.
        control: Moments, each field ``(metrics,)`` or ``(1, metrics)``, of the same round.
    Raises:
        ShapeError: shapes, dtypes or devices do not fit.
    Source: HYPERZERO (KDD'25) Eq. 3.2, corrected as in ``delta``.
    """
    _check_stream(state, treatment, control)
    terms = control_terms(Moments(*(field.reshape(1, -1) for field in control)))
    in_order = all(t.is_contiguous() for t in state)
    if in_order and fused.usable(*state, *treatment, *terms):
        fused.stream(treatment, terms, state)
    elif torch.compiler.is_compiling() or state.weight.device.type != "cpu":
        stream_at_once(state, treatment, terms)
    elif in_order and native.usable(_OPERATIONS * state.weight.numel(), *state, *treatment, *terms):
        native.stream(Moments(*(field.contiguous() for field in treatment)), terms, state)
    else:
        _stream_in_tiles(state, treatment, terms)


def stream_at_once(state: EvidenceState, treatment: Moments, control: ControlTerms) -> None:
    """The definition of ``stream``, by ``control_terms``; one pass where a compiler fuses it."""
    (weight, pooled, spread), (count, mean, m2) = state, treatment
    total, pairs = weight + count, count * (count - 1)
    reciprocal = 1 / (total * pairs)  # a single division
    var = m2 * total * reciprocal * control.scale + mean * mean * control.error
    step = (mean * control.slope - control.sign - pooled) * (count * pairs * reciprocal)
    valid = (count > 1) & (m2 >= 0) & (var < torch.inf)
    pooled_ = torch.where(valid, pooled + step, pooled)
    spread_ = torch.where(valid, spread + count * count * var, spread)
    weight.copy_(torch.where(valid, total, weight))
    pooled.copy_(pooled_)
    spread.copy_(spread_)


def _stream_in_tiles(state: EvidenceState, treatment: Moments, control: ControlTerms) -> None:
    """As few operations as possible, on tiles that stay in the cache."""
    rows, metrics = state.weight.shape
    tile = max(1, _TILE_ELEMENTS // max(1, metrics))
    minus_sign = -control.sign
    error = control.error.sqrt()  # not squared yet: in float32 the product may be large
    scratch = state.weight.new_empty(3, min(tile, rows), metrics)
    for start in range(0, rows, tile):
        part = slice(start, start + tile)
        weight, pooled, spread = (field[part] for field in state)
        count, mean, m2 = (field[part] for field in treatment)
        step, var, share = scratch[:, : len(weight)]
        torch.sub(count, 1, out=var)
        torch.div(count, var, out=var).mul_(m2).mul_(control.scale)
        torch.mul(mean, error, out=step).mul_(count)
        var.add_(step.square_())  # times count^2
        invalid = ((count > 1) & (m2 >= 0) & (var < torch.inf)).logical_not_()
        torch.addcmul(minus_sign, mean, control.slope, out=step).sub_(pooled)
        served = count.masked_fill(invalid, 0.0)
        weight.add_(served)
        torch.div(served, weight, out=share)
        pooled.add_(step.mul_(share).masked_fill_(invalid, 0.0))
        spread.add_(var.masked_fill_(invalid, 0.0))


def _check_stream(state: EvidenceState, treatment: Moments, control: Moments) -> None:
    shape, like = state.weight.shape, state.weight
    same_shape = all(f.shape == shape for f in (*state, *treatment))
    control_fits = all(f.shape in (shape[1:], (1, *shape[1:])) for f in control)
    if state.weight.ndim != 2 or not same_shape or not control_fits:
        raise ShapeError(
            "stream expects state and treatment (candidates, metrics) and control (metrics,), got "
            f"{tuple(shape)}, {tuple(treatment.mean.shape)} and {tuple(control.mean.shape)}"
        )
    every = (*state, *treatment, *control)
    if any((f.dtype, f.device) != (like.dtype, like.device) for f in every):
        raise ShapeError(
            f"stream expects {like.dtype} on {like.device} throughout, as the state's weight is; "
            f"got {sorted({f'{f.dtype} on {f.device}' for f in every})}"
        )


class Evidence(nn.Module):
    """Evidence as buffers of a module: moves with ``.to``, saves with ``state_dict``.

    Args:
        num_candidates: rows; candidate ids are the indices.
        num_metrics: columns.
        dtype: float64 unless memory forces float32.
        device: of the buffers.

    ``.mean`` and ``.var`` are NaN where ``.weight`` is 0.
    """

    weight: Tensor
    pooled: Tensor
    spread: Tensor

    def __init__(
        self,
        num_candidates: int,
        num_metrics: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        state = init(num_candidates, num_metrics, dtype, device)
        self.register_buffer("weight", state.weight)
        self.register_buffer("pooled", state.mean)
        self.register_buffer("spread", state.spread)

    @property
    def state(self) -> EvidenceState:
        """The running sums, for the pure functions of this file."""
        return EvidenceState(self.weight, self.pooled, self.spread)

    @property
    def mean(self) -> Tensor:
        """Pooled delta, ``(candidates, metrics)``; NaN where there is no evidence."""
        return torch.where(self.weight > 0, self.pooled, torch.nan)

    @property
    def var(self) -> Tensor:
        """Variance of ``mean``, ``(candidates, metrics)``; NaN where there is no evidence."""
        return torch.where(self.weight > 0, self.spread / self.weight.square(), torch.nan)

    @property
    def num_candidates(self) -> int:
        """Rows."""
        return self.weight.shape[0]

    def stream(self, treatment: Moments, control: Moments) -> None:
        """Pool one round of the whole bucket in, row i being candidate i; see ``stream``.

        The buffers are overwritten, so a ``state_dict()`` taken before sees it too: copy it first.
        """
        stream(self.state, treatment, control)

    def update(self, candidates: Tensor, delta: Delta, weight: Tensor) -> None:
        """Pool a batch of deltas in; a NaN delta is no evidence and changes nothing.

        Args:
            candidates: ``(arms,)`` candidate ids, repeats allowed.
            delta: ``(arms, metrics)``, fractions.
            weight: ``(arms,)`` or ``(arms, metrics)``, e.g. the arm's users.
        Raises:
            ShapeError: shapes, dtypes or devices do not fit.
        """
        expected = (candidates.shape[0] if candidates.ndim == 1 else -1, self.weight.shape[1])
        shapes = [tuple(delta.mean.shape), tuple(delta.var.shape)]
        fits = tuple(weight.shape) in (expected, expected[:1])
        if candidates.ndim != 1 or shapes != [expected] * 2 or not fits:
            raise ShapeError(
                "update expects candidates (arms,), delta (arms, metrics) and weight (arms,) or "
                f"(arms, metrics) with {self.weight.shape[1]} metrics, got "
                f"{tuple(candidates.shape)}, {shapes[0]}, {shapes[1]} and {tuple(weight.shape)}"
            )
        if candidates.is_floating_point() and candidates.numel():
            raise ShapeError(f"candidate ids must be integers, got {candidates.dtype}")
        tensors = (delta.mean, delta.var, candidates, weight)
        if any(t.device != self.weight.device for t in tensors):
            raise ShapeError(
                f"the evidence is on {self.weight.device}, the update on "
                f"{[str(t.device) for t in tensors]}; move one with .to(device)"
            )
        delta = Delta(delta.mean.to(self.weight.dtype), delta.var.to(self.weight.dtype))
        self.weight, self.pooled, self.spread = pool(self.state, candidates.long(), delta, weight)
