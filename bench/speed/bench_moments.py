"""Ten million users into a thousand arms: count, mean and variance of eight metrics."""

from __future__ import annotations

import pytest
import torch

from hyperzero_torch.runtime import native
from hyperzero_torch.stats import moments

from .conftest import Timed

METRICS, ARMS = 8, 1000


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def values(request: pytest.FixtureRequest):
    users = max(1, round(10_000_000 * request.config.getoption("--scale")))
    generator = torch.Generator().manual_seed(0)
    values = 100 + torch.randn(users, METRICS, dtype=request.param, generator=generator)
    arm = torch.randint(ARMS, (users,), generator=generator)
    device = request.config.getoption("--device")
    return values.to(device), arm.to(device)


@pytest.mark.parametrize("who", ["copy", "C kernel", "PyTorch, two passes", "polars", "pandas"])
def bench_moments(timed: Timed, monkeypatch, values, who):
    value, arm = values
    question = (
        f"raw values to moments, {len(arm):,} users x {METRICS} metrics, {str(value.dtype)[6:]}"
    )
    if who == "copy":
        target = torch.empty_like(value)
        timed(question, who, "limit", len(arm), lambda: target.copy_(value))
        return
    if who in ("C kernel", "polars", "pandas"):
        timed.only_on_cpu()
    if who in ("polars", "pandas"):
        module = pytest.importorskip(who)
        columns = {f"m{i}": value[:, i].contiguous().numpy() for i in range(METRICS)}
        frame = module.DataFrame({"arm": arm.numpy(), **columns})
        if who == "pandas":
            run = lambda: frame.groupby("arm").agg(["count", "mean", "var"])  # noqa: E731
        else:
            pl = module
            asked = [
                f for m in columns for f in (pl.col(m).mean(), pl.col(m).var().name.suffix("_v"))
            ]
            run = lambda: frame.group_by("arm").agg(pl.len(), *asked)  # noqa: E731
        timed(question, who, "peer", len(arm), run, 3)
        return
    monkeypatch.setattr(native, "LEAST_WORK", 0 if who == "C kernel" else 10**18)
    timed(question, who, "ours", len(arm), lambda: moments.summarise(value, arm, ARMS), 3)
