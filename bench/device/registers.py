"""The fused kernels compiled for Hopper (sm_90) without a card: registers, spills, shared memory.

    python -m bench.device.registers [--results bench/results]

Triton has to be installed, which brings the assembler with it. Nothing is run. Each kernel is
compiled at the blocks that the library chooses.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = "device_registers.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)  # what is interpreted cannot be compiled
    (options.results / FILE).write_text(json.dumps(registers(), indent=1) + "\n")
    print(table(options.results))


def table(results: Path = ROOT / "bench/results") -> str:
    """One line per kernel and dtype."""
    lines = [
        "| kernel | dtype | registers a thread | spilled bytes | shared memory, KiB |",
        "|" + " --- |" * 5,
    ]
    rows = json.loads((results / FILE).read_text())
    lines += [
        f"| {row['kernel']} | {row['dtype']} | {row['registers']} | {row['spilled']} "
        f"| {row['shared'] / 1024:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def registers() -> list[dict[str, Any]]:
    """Every kernel in both dtypes."""
    return [
        {"kernel": name, "dtype": dtype, **_compiled(kernel, dtype, blocks)}
        for dtype in ("float32", "float64")
        for name, kernel, blocks in _kernels(dtype)
    ]


def _kernels(dtype: str) -> Iterator[tuple[str, Any, dict[str, int]]]:
    """Name, kernel and blocks."""
    import torch

    from hyperzero_torch.runtime.fused import covariances, moments

    kind = getattr(torch, dtype)
    for dims, paths in ((4, 1), (4, 8), (20, 1)):
        plural = "" if paths == 1 else "s"
        name = f"{paths} path{plural}, {dims} parameters"
        yield name, covariances.paths_kernel, covariances.path_blocks(kind, dims, paths)
    for dims in (4, 20):
        name = f"mean and variance, {dims} parameters"
        yield name, covariances.explained_kernel, covariances.explained_blocks(kind, dims)
    yield "streaming update", moments.stream_kernel, {"block": moments._BLOCK}


_NUMBERS = {
    "num_points", "n", "waves", "num_paths", "x_row", "x_col", "size", "metrics",
}  # fmt: skip


def _compiled(kernel: Any, dtype: str, blocks: dict[str, int]) -> dict[str, int]:
    """What the assembler says about one kernel; what spills is on the stack or local."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    options = {k: v for k, v in blocks.items() if k not in names}
    constants = {k: v for k, v in blocks.items() if k in names}
    pointer = {"float32": "*fp32", "float64": "*fp64"}[dtype]
    signature = {
        name: "constexpr" if name in constants else "i32" if name in _NUMBERS else pointer
        for name in names
    }
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature=signature, constexprs=places)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _output(tools / "cuobjdump", "--dump-resource-usage", cubin)
    held = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if held is None:
        raise RuntimeError(f"cuobjdump names no registers: {usage}")
    return {
        "registers": int(held[1]),
        "spilled": int(held[2]) + int(held[3]),
        "shared": int(compiled.metadata.shared),
    }


def _output(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
