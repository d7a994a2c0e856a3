"""A recommendation meets all guardrails *and* beats the base, with the probability asked for."""

import pytest
import torch
from scipy.stats import norm

import hyperzero_torch as hz

F64 = torch.float64
SPACE = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
CONFIG = hz.TunerConfig(
    num_draws=100, num_samples=64, num_starts=0, num_proposals=2, initial_candidates=12,
    verification_share=0.0,
)  # fmt: skip
BASE = {"a": 0.4, "b": 0.4}


def study(seed, lift=0.0, constraints=("guard >= -1%",), hours=3, users=60_000.0):
    """A tuner whose candidates all have the lift of their parameter ``a`` over the base's."""
    problem = hz.Problem(SPACE, BASE, ["gain", "guard"], "gain", list(constraints))
    tuner = hz.Tuner(problem, CONFIG, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(hours):
        plan = tuner.ask()
        count = (users * torch.tensor(plan.shares, dtype=F64)).round().clamp_min(2).unsqueeze(1)
        noise = torch.randn(len(plan), 2, generator=generator, dtype=F64) / count.sqrt()
        effect = lift * (plan.theta[:, :1] - BASE["a"]) * torch.tensor([1.0, 0.0])
        mean = 1 + effect + noise
        count = count.expand(-1, 2)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    tuner.ask()
    return tuner


def test_the_probability_of_success_is_that_of_both_events():
    """Metrics are independent in the posterior, so it is a product of two normal tails."""
    tuner = study(0, lift=0.05)
    _, belief = tuner.belief()
    known = belief.mean.isfinite()
    mean, std = belief.delta_mean[known].numpy(), belief.delta_var[known].sqrt().numpy()
    with_base = norm.sf(0, mean[1:, 0], std[1:, 0]) * norm.sf(-0.01, mean[1:, 1], std[1:, 1])
    # 4096 antithetic draws: a standard error of at most 0.008, and five of them.
    assert abs(belief.prob_success[known][1:].numpy() - with_base).max() < 0.04
    assert float(belief.prob_success[0]) == 0.0
    assert bool((belief.prob_success[known] <= belief.prob_feasible[known]).all())


@pytest.fixture(scope="module")
def still():
    """Twelve studies in which all candidates equal the base; recommendations leave them alone."""
    return [study(seed) for seed in range(12)]


@pytest.mark.parametrize("criterion", ["mean", "lcb", "ucb"])
def test_chance_alone_is_hardly_ever_recommended(still, criterion):
    """Where all candidates equal the base, the largest mean is above it, and is no reason."""
    highest = [tuner.belief()[1].mean[1:].nan_to_num(nan=-1.0).max() for tuner in still]
    assert sum(bool(mean > 0) for mean in highest) >= 9  # what the mean alone would recommend
    results = [tuner.recommend(criterion) for tuner in still]
    assert sum(best.candidate_id != 0 for best in results) <= 3
    assert all(best.prob_success >= 0.9 for best in results if best.candidate_id)
    refused = [best for best in results if not best.candidate_id]
    assert any("beating the base and meeting all guardrails" in best.reason for best in refused)


def test_a_real_lift_is_recommended_by_every_criterion():
    tuner = study(1, lift=0.1, hours=6)
    for criterion in ("mean", "lcb", "ucb"):
        best = tuner.recommend(criterion)
        assert best.candidate_id
        assert best.prob_success >= 0.9
        assert best.to_dict()["prob_success"] == best.prob_success


def test_a_base_that_breaks_a_constraint_need_not_be_exceeded():
    """What is asked for is a candidate that meets it, at whatever price in the objective."""
    problem = hz.Problem(
        SPACE,
        BASE,
        ["gain", "guard"],
        "gain",
        [hz.Constraint("guard >= 1%", may_exclude_base=True)],
    )
    tuner = hz.Tuner(problem, CONFIG)
    for _ in range(6):
        plan = tuner.ask()
        count = (1e6 * torch.tensor(plan.shares, dtype=F64)).round().clamp_min(2)
        step = plan.theta[:, 0] - BASE["a"]
        mean = torch.stack([1 - 0.1 * step, 1 + 0.2 * step], dim=1)
        count = count.unsqueeze(1).expand(-1, 2)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, 0.01 + 0 * mean))
    tuner.ask()
    best = tuner.recommend()
    assert best.candidate_id
    assert best.objective_mean < best.objective_base
    assert best.parameters["a"] > BASE["a"] + 0.03
