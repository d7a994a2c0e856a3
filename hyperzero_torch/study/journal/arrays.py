"""Arrays as plain JSON values, bit for bit, and the arrays that a ``Compacted`` entry holds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Little-endian on every machine.
_TYPES = ("<i8", "<f8", "<f4")

#: Kind (as NumPy's) and axes of each array in ``Compacted.evidence``: c candidates, m metrics,
#: a arms served, h hours of the day. ``exposed_*`` are control loadings, ``power`` is the round
#: precision.
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
#: Arrays that are there only where they are needed: ``waiting`` are the sums (s) of hours that have
#: no delta yet, as ``stats.windows.Sums``.
OPTIONAL_EVIDENCE = {"waiting": ("f", "scm")}
# Arrays that may be below 0; all others are counts, indices or precisions.
_SIGNED = {"mean", "exposed_part", "total", "waiting"}


def pack_array(array: NDArray[Any]) -> dict[str, Any]:
    """An array of int64, float64 or float32 as its type, its shape and its bytes in base64."""
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    data = base64.b64encode(array.tobytes()).decode()
    return {"type": array.dtype.str, "shape": list(array.shape), "data": data}


def unpack_array(packed: Mapping[str, Any]) -> NDArray[Any]:
    """The array that ``pack_array`` packed, in the machine's own byte order."""
    array = np.frombuffer(base64.b64decode(packed["data"]), packed["type"])
    return array.reshape(packed["shape"]).astype(array.dtype.newbyteorder("="))


def array_flaw(packed: Any) -> str | None:
    """Why a value is not a packed array of finite numbers; None where it is one."""
    if not isinstance(packed, Mapping) or packed.get("type") not in _TYPES:
        return f"{packed!r:.60} is not an array"
    shape, data = packed.get("shape"), packed.get("data")
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(data, str):
        return f"an array has the shape {shape!r:.60}, or no data"
    try:
        array = np.frombuffer(base64.b64decode(data, validate=True), packed["type"])
        array = array.reshape(shape)
    except (ValueError, binascii.Error) as error:
        return f"an array is damaged: {error}"
    return None if np.isfinite(array).all() else "an array holds numbers that are not finite"


def evidence_flaw(evidence: Any) -> str | None:
    """Why a value is not the evidence of a compacted block; None where it is."""
    optional = set(OPTIONAL_EVIDENCE)
    if not isinstance(evidence, Mapping) or set(evidence) - optional != set(EVIDENCE):
        named = sorted(evidence) if isinstance(evidence, Mapping) else type(evidence).__name__
        return f"evidence holds {named!r:.80}, expected {sorted(EVIDENCE)}"
    size: dict[str, int] = {}
    for name, (kind, axes) in (EVIDENCE | OPTIONAL_EVIDENCE).items():
        if name not in evidence:
            continue
        reason = array_flaw(evidence[name])
        if reason is not None:
            return f"{name}: {reason}"
        array = unpack_array(evidence[name])
        fits = array.dtype.kind == kind and array.ndim == len(axes)
        if not fits or any(size.setdefault(a, n) != n for a, n in zip(axes, array.shape)):
            return (
                f"{name} has type {array.dtype} and shape {array.shape}, expected kind {kind!r} "
                f"and axes {axes!r} with {size}"
            )
        if name not in _SIGNED and (array < 0).any():
            return f"{name} has values below 0"
    ids, rows = unpack_array(evidence["candidate"]), unpack_array(evidence["exposed_row"])
    if (np.diff(ids) <= 0).any() or (rows >= len(ids)).any():
        return "candidates do not ascend, or arms refer to missing candidates"
    return None
