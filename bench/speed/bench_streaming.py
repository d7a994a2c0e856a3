"""Updating a bucket's evidence with one hour's deltas, against copying the same bytes."""

from __future__ import annotations

import pytest
import torch

from hyperzero_torch.runtime import native
from hyperzero_torch.stats import evidence
from hyperzero_torch.stats.delta import Delta
from hyperzero_torch.stats.moments import Moments

from .conftest import Timed

METRICS = 16


def moments(
    rows: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[Moments, Moments]:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    treatment = Moments(
        (rand(rows, METRICS) * 1000).floor(), 10 + rand(rows, METRICS), 1e4 * rand(rows, METRICS)
    )
    control = Moments(1e4 + rand(METRICS), 10 + rand(METRICS), 1e6 * rand(METRICS))
    return (
        Moments(*(field.to(device, dtype) for field in treatment)),
        Moments(*(field.to(device, dtype) for field in control)),
    )


@pytest.mark.parametrize("rows", [100_000, 200_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("who", ["copy", "C kernel", "PyTorch, in tiles", "torch.compile"])
def bench_streaming(timed: Timed, monkeypatch, who, dtype, rows):
    rows = timed.size(rows)
    question = f"streaming deltas, {rows:,} candidates x {METRICS} metrics, {str(dtype)[6:]}"
    if who == "copy":  # six arrays are read and three written, in all nine times their size
        source = torch.rand(rows * METRICS * 9 // 2, dtype=dtype, device=timed.device)
        target = torch.empty_like(source)
        timed(question, who, "limit", rows, lambda: target.copy_(source), 21)
        return
    if who == "C kernel":
        timed.only_on_cpu()
    treatment, control = moments(rows, dtype, timed.device)
    state = evidence.init(rows, METRICS, dtype, timed.device)
    run = evidence.stream
    monkeypatch.setattr(native, "LEAST_WORK", 0 if who == "C kernel" else 10**18)
    if who == "torch.compile":
        run = torch.compile(run, fullgraph=True)
    timed(question, who, "ours", rows, lambda: run(state, treatment, control), 21)


@pytest.mark.parametrize("ids", ["each once", "repeated"])
@pytest.mark.parametrize("who", ["copy", "C kernel", "PyTorch"])
def bench_update(timed: Timed, monkeypatch, who, ids):
    """``Evidence.update`` with one delta in twenty missing, against copying the same bytes."""
    rows = timed.size(100_000)
    question = f"Evidence.update, {rows:,} candidates x {METRICS} metrics, {ids}, float64"
    store = evidence.Evidence(rows, METRICS, device=timed.device)
    if who == "copy":  # five arrays are read and three written, in all eight times their size
        source = torch.rand(rows * METRICS * 4, dtype=torch.float64, device=timed.device)
        target = torch.empty_like(source)
        timed(question, who, "limit", rows, lambda: target.copy_(source), 21)
        return
    if who == "C kernel":
        timed.only_on_cpu()
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, rows, METRICS, generator=generator, dtype=torch.float64)
    mean = values[0].masked_fill(values[2] < 0.05, torch.nan).to(timed.device)
    lift = Delta(mean, values[1].to(timed.device))
    order = torch.arange(rows)
    if ids == "repeated":
        order = torch.randint(rows, (rows,), generator=generator)
    order, users = order.to(timed.device), values[1, :, 0].to(timed.device) + 1
    monkeypatch.setattr(native, "LEAST_WORK", 0 if who == "C kernel" else 10**18)
    timed(question, who, "ours", rows, lambda: store.update(order, lift, users), 21)
