"""Full precision of float32 matrix products, whatever the program has set.

``torch.set_float32_matmul_precision("high")`` lets PyTorch round the factors to TF32 or bfloat16,
here as well. A posterior's sums cancel, so that error is a large part of its standard deviation.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_lock = threading.Lock()
_holders = 0
_before: tuple[str | None, list[str]] = (None, [])


@contextlib.contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Within, products of float32 keep their 24 bits; afterwards the setting is as it was.

    The setting is the process's own: other threads have full precision meanwhile. Nothing is
    changed for other dtypes than float32, nor in a compiled graph, which has the program's setting.
    """
    global _holders, _before
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        yield
        return
    with _lock:
        if not _holders:
            _before = _setting()
            _make_full()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _restore(_before)


def _backends() -> list[Any]:
    """Where each backend keeps a setting of its own; nowhere before PyTorch 2.9."""
    if not hasattr(torch.backends, "fp32_precision"):
        return []
    return [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]


def _setting() -> tuple[str | None, list[str]]:
    """The common setting, and those of the backends."""
    try:
        common = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for a backend alone, which PyTorch calls a mix
        common = None
    return common, [backend.fp32_precision for backend in _backends()]


def _make_full() -> None:
    common, _ = _setting()
    if common not in (None, "highest"):
        torch.set_float32_matmul_precision("highest")
    for backend in _backends():
        if backend.fp32_precision not in ("none", "ieee"):
            backend.fp32_precision = "ieee"


def _restore(setting: tuple[str | None, list[str]]) -> None:
    common, own = setting
    if common is not None and common != _setting()[0]:
        torch.set_float32_matmul_precision(common)
    for backend, value in zip(_backends(), own):
        if backend.fp32_precision != value:
            backend.fp32_precision = value
