"""A small study that learns from packages of other domains, and one source that misleads it."""

from datetime import UTC, datetime, timedelta

import torch

import hyperzero_torch as hz
from hyperzero_torch.transfer import ExpertOverride, Source
from hyperzero_torch.transfer.sharing import package as packages

CONFIG = hz.TunerConfig(
    num_draws=60, num_samples=64, num_starts=0, num_proposals=1, initial_candidates=12,
    drift_alpha=None, num_seeds=4,
)  # fmt: skip
METRICS = ("gain", "guard <b>")
EVIL = "<img src=x onerror=alert(1)> & %{x}"
FEATURES = {"users": 9.0, "level:gain": 1.0, "noise:gain": 0.5}


def problem():
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    return hz.Problem(
        space, {"a": 0.4, "b": 0.6}, list(METRICS), "gain", ["`guard <b>` >= -8%"]
    )  # fmt: skip


def lift(theta):
    """True deltas ``(n, 2)``, 0 at the base."""

    def raw(x):
        gain = 0.1 * torch.sin(3 * x[:, 0]) - 0.08 * (x[:, 1] - 0.3).square()
        return torch.stack([gain, -0.06 * x[:, 0] * x[:, 1]], -1)

    return raw(theta) - raw(torch.tensor([[0.4, 0.6]], dtype=torch.float64))


def source(name, sign=1.0, seed=0, num=40, **more):
    """What a domain with the same lifts, or with reversed ones, has found."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(num, 2, dtype=torch.float64, generator=generator)
    noise = torch.randn(num, 2, dtype=torch.float64, generator=generator)
    mean = sign * lift(theta) + 0.002 * noise
    rows = [{"a": float(a), "b": float(b)} for a, b in theta]
    features = FEATURES | {"users": 9.0 + seed}
    return Source(
        name, rows, METRICS, mean, torch.full_like(mean, 4e-6), features, num_rounds=48, **more
    )


def sources(folder):
    """Two by packages, one of which has expired since, and a misleading one by hand."""
    packaged = []
    now = datetime.now(UTC)
    made = {"north": now, EVIL: now - timedelta(days=60)}
    for seed, (name, then) in enumerate(made.items()):
        path = folder / f"{seed}.json"
        private = {"epsilon": 2.0, "delta": 1e-6} if seed else None
        packages.export(
            source(name, seed=seed), path, timedelta(days=30), ["feed/eu"],
            privacy=private, now=then,
        )  # fmt: skip
        packaged.append(packages.load(path, "feed/eu", now=then).source)
    return [*packaged, source("reversed", -1.0, seed=7)]


def reply(tuner, plan):
    generator = torch.Generator().manual_seed(plan.round)
    mean = 10 * (1 + lift(plan.theta))
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    count = (20_000.0 * torch.tensor(plan.shares)).unsqueeze(-1).expand_as(mean)
    mean = mean + noise * 2 / count.sqrt()
    return hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.full_like(mean, 4.0))


def make(folder, journal=None, config=CONFIG, given=None):
    given = sources(folder) if given is None else given
    return hz.Tuner(problem(), config, journal, "south", 5, sources=given)


def play(tuner, rounds):
    for _ in range(rounds):
        plan = tuner.ask()
        tuner.tell(reply(tuner, plan))


def study_with_sources(folder, journal=None):
    """Nine rounds, overruled twice, the last one without readings."""
    tuner = make(folder, journal)
    play(tuner, 5)
    tuner.overrule(ExpertOverride(discount={"north": 0.5}, reason="an older app"))
    play(tuner, 3)
    tuner.overrule(ExpertOverride(forbid=["reversed"], reason="the <i>ranker</i> there is another"))
    tuner.ask()
    return tuner
