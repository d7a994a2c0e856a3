"""Compiles ``kernels.c`` with the machine's own C compiler, once per machine and user."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

_LOG = logging.getLogger(__name__)
_SOURCES = ("kernels.c", "by_type.h")
# Floating-point operations keep their order, except where the sources allow another (omp simd).
_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC", "-shared")
# For this machine's processor, by whichever flag the compiler knows.
_MACHINE = ("-march=native", "-mcpu=native", "")
_TIMEOUT_SECONDS = 60


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler that builds them.

    They are kept in the user's cache folder, under a name that changes with the sources, the
    compiler and the processor. The variable ``CC`` names the compiler; empty turns kernels off.
    """
    try:
        kernels = load()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _LOG.debug("no compiled kernels (%s): the slower PyTorch code is used", error)
        return None
    for kind in ("f64", "f32"):
        kernels[f"summarise_{kind}"].restype = ctypes.c_int64
    return kernels


def load() -> ctypes.CDLL:
    """The kernels from the cache folder, where they are built first if they are not there.

    Where there is no such folder they are built for this process alone.

    Raises:
        OSError, ValueError, subprocess.SubprocessError: there is no compiler, or it fails.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        raise FileNotFoundError(f"no C compiler {' '.join(compiler)!r}; name one in CC")
    here = Path(__file__).parent
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, timeout=_TIMEOUT_SECONDS
    )
    made_by = (compiler, version.stdout, _FLAGS, _MACHINE, _processor())
    key = hashlib.sha256(repr(made_by).encode())
    for name in _SOURCES:
        key.update((here / name).read_bytes())
    folder = _cache()
    if folder is None:  # nowhere to keep them
        with tempfile.TemporaryDirectory() as scratch:
            return ctypes.CDLL(str(_build(compiler, here, Path(scratch))))
    path = folder / f"kernels_{key.hexdigest()[:16]}.so"
    if os.path.lexists(path) and not _is_ours(path):
        _LOG.warning("%s belongs to others, or others may change it: it is not used", path)
        with tempfile.TemporaryDirectory() as scratch:
            return ctypes.CDLL(str(_build(compiler, here, Path(scratch))))
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = _build(compiler, here, Path(scratch))
            with built.open("rb") as file:
                os.fsync(file.fileno())
            built.chmod(0o700)
            os.replace(built, path)  # atomic, also where two processes build at once
    return ctypes.CDLL(str(path))


def _build(compiler: list[str], here: Path, scratch: Path) -> Path:
    to = scratch / "kernels.so"
    message = b""
    for machine in _MACHINE:
        flags = [*_FLAGS, *([machine] if machine else [])]
        done = subprocess.run(
            [*compiler, *flags, str(here / _SOURCES[0]), "-o", str(to)],
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
        )
        if done.returncode == 0:
            return to
        message = done.stderr
    raise OSError(f"{compiler[0]} failed: {message.decode(errors='replace')[:500]}")


def _cache() -> Path | None:
    """The user's own folder, which nobody else can write to; None where there is none."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = folder / "hyperzero_torch"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):  # read-only, or a user without a home
        return None
    if not _is_ours(folder):
        _LOG.warning("the cache folder %s belongs to others, or others may write to it", folder)
        return None
    return folder if os.access(folder, os.W_OK) else None


def _is_ours(path: Path) -> bool:
    """Whether a file or a folder is this user's, no link, and nobody else may change it.

    The code in it runs in this process with all its rights.
    """
    if not hasattr(os, "geteuid"):  # not a POSIX system
        return True
    status = path.lstat()
    is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_plain and not shared and status.st_uid == os.geteuid()


def _processor() -> str:
    """The processor that the code is built for: machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return repr((platform.machine(), platform.processor(), sorted(facts)))
