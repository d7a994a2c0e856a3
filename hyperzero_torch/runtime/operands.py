"""Which tensors a kernel can read by their addresses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

#: The dtypes that kernels are written for.
DTYPES = frozenset((torch.float64, torch.float32))


def plain(*tensors: Tensor) -> bool:
    """Whether all are of one device and dtype, float64 or float32, and have memory of their own.

    False under autograd, ``torch.compile`` or ``vmap``, and for fake tensors.
    """
    if torch.compiler.is_compiling():
        return False
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) != 1 or not dtypes <= DTYPES:
        return False
    if any(t.device != tensors[0].device for t in tensors):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    # A tangent: the tensor takes part in forward differentiation.
    if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):  # type: ignore[no-untyped-call]
        return False
    try:
        for t in tensors:
            t.data_ptr()
    except RuntimeError:  # no storage of its own: inside vmap, or fake
        return False
    return True
