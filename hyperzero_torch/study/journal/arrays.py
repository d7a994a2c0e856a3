"""Arrays as plain JSON values, bit for bit, for what is too much for lists of numbers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Little-endian, whatever the machine.
_TYPES = ("<i8", "<f8", "<f4")


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
    """Why a value is no packed array of finite numbers; None where it is one."""
    if not isinstance(packed, Mapping) or packed.get("type") not in _TYPES:
        return f"{packed!r:.60} is no array"
    shape, data = packed.get("shape"), packed.get("data")
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(data, str):
        return f"an array of shape {shape!r:.60} is none"
    try:
        array = np.frombuffer(base64.b64decode(data, validate=True), packed["type"])
        array = array.reshape(shape)
    except (ValueError, binascii.Error) as error:
        return f"an array is damaged: {error}"
    return None if np.isfinite(array).all() else "an array holds numbers that are not finite"
