"""What ``bench.cuda`` measures, in the order of importance; needs torch and numpy alone.

A row prepares its inputs on a device and returns the call that is timed. Kernels are called as a
user calls them. BoTorch's rows come after ours, on the same device, where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch

import hyperzero_torch as hz
from bench.speed import given
from hyperzero_torch.stats import evidence, moments
from hyperzero_torch.surrogate import Surrogate
from hyperzero_torch.thompson import propose, select, select_paths

f32, f64 = torch.float32, torch.float64
Run = Callable[[], Any]


class Row(NamedTuple):
    """One line of the table.

    ``question`` has the sizes; ``who`` answers it; ``role`` is "ours", "peer" or "limit"; ``work``
    are the points, users or elements that one call goes over, and ``prepare`` makes the call.
    """

    question: str
    who: str
    role: str
    work: int
    prepare: Callable[[], Run]


class Sizes(NamedTuple):
    """Of the questions; ``scaled`` makes all of them smaller, for a quick check."""

    points: int = 1_000_000
    bucket: int = 1000
    candidates: int = 200_000
    users: int = 10_000_000
    selected: int = 10_000
    large: int = 50_000

    def scaled(self, scale: float) -> Sizes:
        """All sizes times ``scale``, 20 at least."""
        return Sizes(*(max(20, round(size * scale)) for size in self))


def rows(device: torch.device, sizes: Sizes) -> list[Row]:
    """Every row, the most important first."""
    n, points = sizes.bucket, sizes.points
    paths = f"1 joint draw, n = {n}, {given.METRICS} metrics, N = {points:,}"
    marginal = f"mean and variance, n = {n}, {given.METRICS} metrics, N = {points:,}"
    stream = f"streaming deltas, {sizes.candidates:,} candidates x 16 metrics, float64"
    values = f"raw values to moments, {sizes.users:,} users x 8 metrics, float32"
    drawn = f"selection, 1000 draws x {sizes.selected:,} candidates x 8 metrics"
    whole = f"a whole round, bucket of {n}, {given.METRICS} metrics, N = {points:,}"
    draws = 1000 * sizes.selected * 8
    kinds = (("float64", f64), ("mixed", f32))
    return [
        *(Row(paths, w, "ours", points, partial(_paths, device, sizes, t)) for w, t in kinds),
        *(Row(marginal, w, "ours", points, partial(_marginal, device, sizes, t)) for w, t in kinds),
        Row(stream, "copy", "limit", sizes.candidates, partial(_copy, device, sizes, 9)),
        Row(stream, "PyTorch", "ours", sizes.candidates, partial(_stream, device, sizes)),
        Row(values, "copy", "limit", sizes.users, partial(_copy_users, device, sizes)),
        Row(values, "PyTorch, two passes", "ours", sizes.users, partial(_moments, device, sizes)),
        Row(drawn, "drawing the normals", "limit", draws, partial(_normals, device, draws)),
        Row(drawn, "linear objective", "ours", draws, partial(_select, device, sizes)),
        *(Row(whole, w, "ours", 1, partial(_round, device, sizes, t)) for w, t in kinds),
        Row(
            f"exact Gaussian process, n = {sizes.large:,}, 1 metric: condition",
            *("float64", "ours", 1, partial(_condition, device, sizes.large)),
        ),
        Row(
            f"fit, n = {n}, {given.METRICS} metrics", "float64", "ours", 1, partial(_fit, device, n)
        ),
    ]


def peers(device: torch.device, sizes: Sizes) -> list[Row]:
    """BoTorch's rows; none where it is not installed."""
    try:
        import botorch  # noqa: F401
    except ImportError:
        return []
    n, few = sizes.bucket, max(1000, sizes.points // 20)
    shape = f"n = {n}, {given.METRICS} metrics, N = {sizes.points:,}"
    return [
        Row(
            f"1 joint draw, {shape}",
            *("BoTorch `draw_matheron_paths`", "peer", few, partial(_their_paths, device, n, few)),
        ),
        Row(
            f"mean and variance, {shape}",
            *("BoTorch `posterior(X)`", "peer", few, partial(_their_marginal, device, n, few)),
        ),
    ]


def growth(device: torch.device, scale: float) -> list[Row]:
    """Conditioning on more and more candidates, one metric."""
    sizes = [max(20, round(n * scale)) for n in (2000, 4000, 8000, 16_000, 32_000)]
    return [
        Row(
            "growth of condition, 1 metric", f"n = {n:,}", "ours", n, partial(_condition, device, n)
        )
        for n in sizes
    ]


def _points(device: torch.device, num: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(num, given.DIMS, dtype=f64, device=device).to(dtype)


def _paths(device: torch.device, sizes: Sizes, dtype: torch.dtype) -> Run:
    generator = torch.Generator(device).manual_seed(0)
    draw = given.ours(given.evidence(sizes.bucket, device)).paths(1, generator)
    x = _points(device, sizes.points, dtype)
    return lambda: torch.cat([draw(part) for part in x.split(draw.tile)], dim=1)


def _marginal(device: torch.device, sizes: Sizes, dtype: torch.dtype) -> Run:
    posterior = given.ours(given.evidence(sizes.bucket, device))
    x = _points(device, sizes.points, dtype)
    return lambda: posterior.marginal(x)


def _copy(device: torch.device, sizes: Sizes, arrays: int) -> Run:
    source = torch.rand(sizes.candidates * 16 * arrays // 2, dtype=f64, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _stream(device: torch.device, sizes: Sizes) -> Run:
    shape = {"size": (sizes.candidates, 16), "dtype": f64, "device": device}
    treatment = moments.Moments(
        torch.full(fill_value=500.0, **shape), 10 + torch.rand(**shape), 1e4 * torch.rand(**shape)
    )
    control = moments.Moments(*(field[:1] * 1 for field in treatment))
    state = evidence.init(sizes.candidates, 16, device=device)
    return lambda: evidence.stream(state, treatment, control)


def _copy_users(device: torch.device, sizes: Sizes) -> Run:
    source = torch.rand(sizes.users, 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _moments(device: torch.device, sizes: Sizes) -> Run:
    values = 100 + torch.rand(sizes.users, 8, device=device)
    arm = torch.randint(1000, (sizes.users,), device=device)
    return lambda: moments.summarise(values, arm, 1000)


def _normals(device: torch.device, num: int) -> Run:
    step = 2**22
    return lambda: [
        torch.randn(min(step, num - at), dtype=f64, device=device) for at in range(0, num, step)
    ]


@cache
def selection_problem() -> hz.Problem:
    """Eight metrics, two of them guardrails."""
    names = [f"metric_{i}" for i in range(8)]
    return hz.Problem(
        space=hz.SearchSpace([hz.Float("theta", 0.0, 1.0)]),
        base={"theta": 0.5},
        metrics=names,
        objective="metric_0 + 0.5 * metric_1",
        constraints=["metric_6 >= -1%", "metric_7 >= -2%"],
    )


def _select(device: torch.device, sizes: Sizes) -> Run:
    problem = selection_problem()
    generator = torch.Generator(device).manual_seed(0)
    mean = 0.01 * torch.randn(sizes.selected, 8, dtype=f64, device=device)
    var = torch.full_like(mean, 1e-5)
    return lambda: select(mean, var, problem, 1000, generator)


def _round(device: torch.device, sizes: Sizes, dtype: torch.dtype) -> Run:
    seen, problem = given.evidence(sizes.bucket, device), given.problem()
    generator = torch.Generator(device).manual_seed(0)
    before = given.Evidence(*(field[: max(10, sizes.bucket * 9 // 10)] for field in seen))
    start = Surrogate().fit(*before).hyperparameters

    def work() -> None:
        posterior = Surrogate(start).fit(*seen)
        select_paths(posterior.paths(1000, generator), seen.x, problem, 1.0)
        propose(posterior, problem, sizes.points, 8, generator, "joint", 4, dtype)

    return work


def _condition(device: torch.device, n: int) -> Run:
    seen = given.evidence(n, device)
    first = (seen.x, seen.mean[:, :1], seen.var[:, :1])
    return lambda: Surrogate().condition(*first)


def _fit(device: torch.device, n: int) -> Run:
    seen = given.evidence(n, device)
    return lambda: Surrogate().fit(*seen)


def _their_paths(device: torch.device, n: int, few: int) -> Run:
    from botorch.sampling.pathwise import draw_matheron_paths

    draw = draw_matheron_paths(given.botorch(given.evidence(n, device)), torch.Size([1]))
    x = _points(device, few, f64)
    return lambda: [draw(part) for part in x.split(4000)]


def _their_marginal(device: torch.device, n: int, few: int) -> Run:
    model = given.botorch(given.evidence(n, device))
    x = _points(device, few, f64)

    def work() -> None:
        for part in x.split(4000):
            posterior = model.posterior(part)
            _ = posterior.mean, posterior.variance

    return work
