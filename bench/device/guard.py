"""Builds and loads ``guard.cpp``; this file imports no torch, since the guard is loaded before it.

python -m bench.device.guard FOLDER      builds FOLDER/guard.so and prints its path
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path


class NoCompilerError(RuntimeError):
    """The guard cannot be built here."""


def build(folder: Path) -> Path:
    """The library, built with the machine's C++ compiler.

    Raises:
        NoCompilerError: there is no g++, or it cannot build against this PyTorch; says why.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoCompilerError("the simulated card needs g++, and there is none on this machine")
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise NoCompilerError("the simulated card needs PyTorch, and it is not installed")
    torch = Path(spec.origin).parent
    include, library = torch / "include", folder / "guard.so"
    source = Path(__file__).with_suffix(".cpp")
    command = [
        *(compiler, "-O0", "-shared", "-fPIC", "-std=c++20", str(source), "-o", str(library)),
        *(f"-I{include}", f"-I{include}/torch/csrc/api/include"),
        *(f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-lc10", "-ltorch_cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoCompilerError(f"g++ cannot build the simulated card: {done.stderr[-2000:]}")
    return library


def load(library: Path) -> None:
    """Load the library into this process.

    Raises:
        RuntimeError: torch is imported already; then it is too late.
    """
    if "torch" in sys.modules:
        raise RuntimeError("torch is imported already; load the guard of the simulated card first")
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
