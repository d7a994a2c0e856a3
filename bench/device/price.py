"""The rows of ``bench.cuda`` at full size without a card: launches, bytes moved, peak memory.

    python -m bench.device.price [--results bench/results]

Every operation runs on fake tensors, which have shapes and no values, so nothing is computed and
nothing is timed. Bytes are those that an operation reads and writes, each once, whatever a cache
holds; peak memory is that of live tensors, without what libraries take beside them. A fit is left
out: its steps depend on values.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.device import guard

ROOT = Path(__file__).parents[2]
FILE = "device_price.json"
# Memory that is made and not written to, or that is there already.
_FREE = {"detach", "lift_fresh", "alias", "empty", "empty_like", "empty_strided", "new_empty"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        guard.load(guard.build(Path(folder)))
    prices = price()
    (options.results / FILE).write_text(json.dumps(prices, indent=1) + "\n")
    print(table(options.results))


def table(results: Path = ROOT / "bench/results") -> str:
    """One line per row."""
    prices = json.loads((results / FILE).read_text())
    lines = ["| work | who | launches | GB moved | GiB at the peak |", "|" + " --- |" * 5]
    for row in prices:
        moved, peak = row["bytes"] / 1e9, row["peak"] / 2**30
        cells = (f"{row['launches']:,}", f"{moved:,.1f}", f"{peak:.2f}")
        lines.append(f"| {row['question']} | {row['who']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def price() -> list[dict[str, Any]]:
    """Every row of ours whose steps do not depend on values."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from bench.device import rows
    from bench.device.card import CARD, present

    prices = []
    rows.selection_problem()  # it is tried on real deltas when it is made
    with present(), _without_reading():
        for row in rows.rows(CARD, rows.Sizes()):
            if row.role != "ours" or row.question.startswith(("fit", "a whole round")):
                continue
            with FakeTensorMode(allow_non_fake_inputs=True), _meter() as meter, torch.no_grad():
                run = row.prepare()
                meter.start()
                run()
            prices.append(
                {"question": row.question, "who": row.who}
                | {"launches": meter.launches, "bytes": meter.bytes, "peak": meter.peak}
            )
    return prices


@contextlib.contextmanager
def _without_reading() -> Iterator[None]:
    """Fake tensors have no values: what reads them to check a result takes it for right."""
    import torch

    from hyperzero_torch.stats import moments
    from hyperzero_torch.surrogate import conditioned, standardise

    def cholesky(matrix: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cholesky_ex(matrix)[0]

    def checked(x: Any, mean: Any, var: Any, shared: Any) -> Any:
        return x, mean, var

    real = torch.tensor

    def tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
        made = real(data, dtype=dtype)  # a constant would be made on a card that is not there
        if device is None:
            return made
        return torch.empty(tuple(made.shape), dtype=made.dtype, device=device)

    with contextlib.ExitStack() as undo:
        for place, name, value in (
            (torch, "tensor", tensor),
            (conditioned.factors, "cholesky", cholesky),
            (standardise, "_check", checked),
            (moments, "check_ids", lambda *_: None),
        ):
            undo.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, value)
        yield


def _meter() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Meter(TorchDispatchMode):
        """Counts operations on the card, their bytes, and the memory of live tensors."""

        def __init__(self) -> None:
            super().__init__()
            self.live = 0
            self.start()

        def start(self) -> None:
            self.launches, self.bytes, self.peak = 0, 0, self.live

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            outs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
            if not any(t.device.type == "cuda" for t in outs):
                return result
            name = func._schema.name.removeprefix("aten::")
            views = name != "_to_copy" and any(
                a.alias_info is not None and not a.alias_info.is_write
                for a in func._schema.arguments
            )
            if views:
                return result
            if not func._schema.is_mutable:
                for out in outs:
                    self._made(out)
            if name not in _FREE:
                ins = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
                self.launches += 1
                self.bytes += sum(map(_bytes, [*ins, *outs]))
            return result

        def _made(self, out: torch.Tensor) -> None:
            storage = out.untyped_storage()
            size = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, size)

        def _gone(self, size: int) -> None:
            self.live -= size

    return Meter()


def _bytes(tensor: Any) -> int:
    """Of a tensor's own elements; an expanded one is read once."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride()):
        size *= length if stride else 1
    return int(size)


if __name__ == "__main__":
    main()
