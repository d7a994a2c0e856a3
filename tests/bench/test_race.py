"""The race: equal terms, verdicts that can be repeated, variants that are what they say."""

import json

import pytest
import torch

import hyperzero_torch as hz
from bench.quality.race.judge import Judge
from bench.quality.race.loop import race
from bench.quality.race.ours import Raw, Synchronous
from bench.quality.race.records import interval
from bench.quality.race.registry import check, make
from bench.quality.race.rejudge import rejudge
from bench.quality.race.run import Job, run_job
from hyperzero_torch.simulate import GuardrailWorld, PaperWorld

SMALL = {
    "num_draws": 60, "num_samples": 64, "initial_candidates": 12, "num_starts": 0,
    "verification_share": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("contender", ["random", "hyperzero@num_draws=60@initial_candidates=12"])
def test_a_kept_race_is_judged_again_to_the_same_verdict(contender, tmp_path):
    record = run_job(Job("guardrail", 2, 1.0, 7, contender, 1, tmp_path))
    (path,) = tmp_path.glob("*.pt")
    assert rejudge(path) == record
    json.dumps(record)
    assert len(record["score"]) == len(record["seconds"]) == 7


def test_the_judge_knows_the_truth():
    world = GuardrailWorld(1, delay=0)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL))
    plan = tuner.ask()
    judged = Judge(world)(tuner, plan)
    assert judged["score"] == judged["gain"] == judged["violation"] == 0.0  # the base, for now
    shares = torch.tensor(plan.shares, dtype=torch.float64)
    served = (-world.true_delta(plan.theta)[:, 1] - 0.001).clamp_min(0)
    assert judged["exposed_violation"] == pytest.approx(float(shares @ served), rel=1e-5)


def test_the_synchronous_variant_serves_a_batch_until_it_has_reported():
    world = PaperWorld(seed=3)
    contender = Synchronous(world, 0, **SMALL)
    race(contender, world, 12)
    plans = contender.tuner.history.plans
    assert [plans[r].candidates for r in range(4)] == [plans[0].candidates] * 4
    batches = [r for r in range(1, 12) if plans[r].candidates != plans[r - 1].candidates]
    assert 1 <= len(batches) <= 3  # delays are 3 and a little more
    assert min(batches) >= 4


def test_the_variant_without_deltas_sees_the_daily_rhythm():
    world = PaperWorld(seed=3, delay=0)
    contender = Raw(world, 0, **SMALL)
    race(contender, world, 9)
    tables = contender.tuner.history.tables
    controls = torch.tensor([tables[r].mean[0].tolist() for r in range(6)])
    assert torch.equal(controls, controls[:1].expand_as(controls))  # every hour is the first
    lift = contender.tuner.bucket().deltas.delta.mean
    assert float(lift.abs().max()) > 0.12  # no true lift is; levels swing by 0.45


def test_options_reach_the_tuner_and_unknown_contenders_are_refused():
    world = GuardrailWorld(1)
    chosen = make("hyperzero@caution=0@draws=marginal@retire_after=null", world, 0)
    assert chosen.tuner.config == hz.TunerConfig(caution=0, draws="marginal", retire_after=None)
    with pytest.raises(hz.ConfigError, match="courage"):
        make("hyperzero@courage=1", world, 0)
    with pytest.raises(ValueError, match="no contender 'nobody'"):
        check("nobody@arms=4")


def test_intervals_of_the_mean_cover():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(2000):
        mean, half = interval(torch.randn(8, generator=generator).numpy())
        hits += abs(mean) <= half
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)  # four standard errors
