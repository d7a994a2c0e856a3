"""Whether Triton's kernels work on a card; Triton is imported here first, and only for a card."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import torch

from ...errors import ConfigError

_LOG = logging.getLogger(__name__)
#: Set to 0, this variable turns the kernels off.
VARIABLE = "HYPERZERO_FUSED"
#: The oldest version that the kernels are tested with.
OLDEST = (3, 6)


@functools.cache
def works(device: torch.device) -> bool:
    """Whether the kernels compile and run on one element; where they do not, why is logged once.

    Triton compiles a kernel where it is first called, which needs a C compiler and a card that
    Triton knows.

    Raises:
        ConfigError: ``HYPERZERO_FUSED`` is neither 0 nor 1.
    """
    wanted = os.environ.get(VARIABLE, "1")
    if wanted not in ("0", "1"):
        raise ConfigError(
            f"{VARIABLE} must be 1 (fused kernels where they work) or 0 (none), got {wanted!r}"
        )
    if wanted == "0":
        return False
    try:
        require()
        _try(device)
    except Exception as error:  # Triton's errors have no common class
        _LOG.warning("no fused kernels on %s (%s): the slower PyTorch code is used", device, error)
        return False
    return True


def require() -> None:
    """Raise ``ImportError`` unless a Triton is there that the kernels are written for."""
    if importlib.util.find_spec("triton") is None:
        raise ImportError("Triton is not installed")
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ImportError(f"Triton {oldest} or newer is needed, this is {triton.__version__}")


def _try(device: torch.device) -> None:
    """Each kernel on one element, in float64, which needs most registers and shared memory."""
    from .covariances import explained, paths
    from .moments import stream

    def unit(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.float64, device=device)

    at, matrix = unit(1, 1, 1), unit(1, 1)
    state = (unit(1, 1), unit(1, 1), unit(1, 1))
    stream((2 * matrix, matrix, matrix), (matrix, matrix, matrix, matrix), state)
    value = paths(matrix, matrix, at, at, matrix, 0 * unit(1, 1, 2))
    squares = explained(matrix, matrix, at, 2 * matrix, at, matrix)
    results = torch.stack([t.flatten()[0] for t in (state[0], value, *squares)])
    if results.tolist() != [3, 1, 2, 4]:
        raise RuntimeError("a first run of the kernels gave wrong results")
