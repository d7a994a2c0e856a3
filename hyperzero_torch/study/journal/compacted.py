"""What the evidence of a ``Compacted`` entry holds: arrays by name, and how they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import array_flaw, unpack_array

# Sizes: c candidates, m metrics, a arms served, h hours of the day. Types as NumPy's kinds.
EVIDENCE = {
    "candidate": ("i", "c"),
    "weight": ("f", "cm"),
    "mean": ("f", "cm"),
    "spread": ("f", "cm"),
    "num_rounds": ("i", "c"),
    "exposed_row": ("i", "a"),
    "exposed_round": ("i", "a"),
    "exposed_part": ("f", "am"),
    "users": ("f", "hm"),
    "hours": ("f", "hm"),
    "total": ("f", "hm"),
    "dispersion": ("f", "m"),
    "power": ("f", "m"),
    "power_rounds": ("i", "m"),
}
# What may be below 0; everything else is a number of something, an index or a precision.
_SIGNED = {"mean", "exposed_part", "total"}


def evidence_flaw(evidence: Any) -> str | None:
    """Why a value is no evidence of a compacted block; None where it is."""
    if not isinstance(evidence, Mapping) or set(evidence) != set(EVIDENCE):
        named = sorted(evidence) if isinstance(evidence, Mapping) else type(evidence).__name__
        return f"evidence holds {named!r:.80}, expected {sorted(EVIDENCE)}"
    size: dict[str, int] = {}
    for name, (kind, axes) in EVIDENCE.items():
        reason = array_flaw(evidence[name])
        if reason is not None:
            return f"{name}: {reason}"
        array = unpack_array(evidence[name])
        fits = array.dtype.kind == kind and array.ndim == len(axes)
        if not fits or any(size.setdefault(a, n) != n for a, n in zip(axes, array.shape)):
            return f"{name} has type {array.dtype} and shape {array.shape}, which does not fit"
        if name not in _SIGNED and (array < 0).any():
            return f"{name} has values below 0"
    ids, rows = unpack_array(evidence["candidate"]), unpack_array(evidence["exposed_row"])
    if (np.diff(ids) <= 0).any() or (rows >= len(ids)).any():
        return "candidates do not ascend, or arms name others"
    return None
