"""A small study with a platform that answers at once, for several tests."""

import torch

import hyperzero_torch as hz

# Nothing is verified or refined: both take most of a small round.
CONFIG = hz.TunerConfig(
    num_draws=60, num_samples=64, num_proposals=2, initial_candidates=8, drift_alpha=None,
    num_starts=0, verification_share=0.0,
)  # fmt: skip


def make(journal=None, config=CONFIG):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -5%"])
    return hz.Tuner(problem, config, journal)


def reply(plan, *, twist=1.0):
    """An hour of a platform whose gain rises with a; ``twist`` spoils an hour."""
    generator = torch.Generator().manual_seed(plan.round)
    mean = 10 * torch.stack([1 + 0.1 * twist * plan.theta[:, 0], 1 - 0.02 * plan.theta[:, 1]], -1)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    count = 500.0 * torch.tensor(plan.shares).unsqueeze(-1).expand_as(mean)
    mean = mean + noise / count.sqrt()
    return hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean))


def play(tuner, rounds, **how):
    for _ in range(rounds):
        tuner.tell(reply(tuner.ask(), **how))
