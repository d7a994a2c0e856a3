"""Joint draws over many points: pathwise conditioning, against BoTorch's."""

from __future__ import annotations

import pytest
import torch

from . import given
from .conftest import Timed

N, BUCKET = 1_000_000, 1000


@pytest.mark.parametrize("paths", [1, 8])
@pytest.mark.parametrize("who", ["float64", "mixed", "BoTorch"])
def bench_paths(timed: Timed, who, paths):
    """BoTorch over a twentieth of the points, in chunks of 1000, where it was fastest of 300, 1000,
    4000 and 20,000; its rate does not depend on how many chunks there are."""
    points = timed.size(N)
    seen = given.evidence(BUCKET, timed.device)
    draws = "1 joint draw" if paths == 1 else f"{paths} joint draws"
    question = f"{draws}, n = {BUCKET}, {given.METRICS} metrics, N = {points:,}"
    with torch.no_grad():
        if who == "BoTorch":
            pytest.importorskip("botorch")
            from botorch.sampling.pathwise import draw_matheron_paths

            few = max(1000, points // 20)
            x = torch.rand(few, given.DIMS, dtype=torch.float64, device=timed.device)
            draw = draw_matheron_paths(given.botorch(seen), torch.Size([paths]))
            run = lambda: [draw(part) for part in x.split(1000)]  # noqa: E731
            timed(question, "BoTorch `draw_matheron_paths`", "peer", len(x), run, 3)
            return
        generator = timed.generator()
        draw = given.ours(seen).paths(paths, generator)
        dtype = torch.float64 if who == "float64" else torch.float32
        x = torch.rand(
            points, given.DIMS, generator=generator, dtype=torch.float64, device=timed.device
        ).to(dtype)
        timed(question, who, "ours", points, lambda: draw(x), 3)
        if who == "mixed":
            few = x[:20_000].double()
            spread = draw.posterior.marginal(few)[1].sqrt()
            off = ((draw(x[:20_000]) - draw(few)).abs() / spread).max()
            timed.benchmark.extra_info["largest error, posterior std"] = float(off)
