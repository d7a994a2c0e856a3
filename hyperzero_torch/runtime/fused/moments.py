"""Triton kernels that go over evidence once."""

import torch
from torch import Tensor

from ...errors import MissingExtraError

try:
    import triton
    import triton.language as tl
except ImportError:
    raise MissingExtraError("a fused kernel", "triton", "fused") from None

_BLOCK = 1024


@triton.jit
def stream_kernel(
    weight, pooled, spread, count, mean, m2, slope, sign, scale, error,
    size, metrics, block: tl.constexpr,
):  # fmt: skip
    """One element of ``stats.evidence.stream_at_once`` a lane."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = at < size
    metric = at % metrics
    w = tl.load(weight + at, live, 0.0)
    c = tl.load(count + at, live, 0.0)
    x = tl.load(mean + at, live, 0.0)
    squares = tl.load(m2 + at, live, 0.0)
    before = tl.load(pooled + at, live, 0.0)
    total = w + c
    pairs = c * (c - 1.0)
    reciprocal = 1.0 / (total * pairs)
    var = squares * total * reciprocal * tl.load(scale + metric, live, 0.0)
    var += x * x * tl.load(error + metric, live, 0.0)
    delta = x * tl.load(slope + metric, live, 0.0) - tl.load(sign + metric, live, 0.0)
    step = (delta - before) * (c * pairs * reciprocal)
    # What is not evidence changes nothing, so it is not written.
    valid = live & (c > 1.0) & (squares >= 0.0) & (var < float("inf"))
    tl.store(weight + at, total, valid)
    tl.store(pooled + at, before + step, valid)
    tl.store(spread + at, tl.load(spread + at, live, 0.0) + c * c * var, valid)


def stream(
    moments: tuple[Tensor, Tensor, Tensor],
    control: tuple[Tensor, Tensor, Tensor, Tensor],
    state: tuple[Tensor, Tensor, Tensor],
) -> None:
    """See the package."""
    size = state[0].numel()
    if not size:
        return
    fields = (t.contiguous() for t in (*moments, *control))
    with torch.cuda.device_of(state[0]):
        stream_kernel[(triton.cdiv(size, _BLOCK),)](
            *state, *fields, size, state[0].shape[1], block=_BLOCK
        )
