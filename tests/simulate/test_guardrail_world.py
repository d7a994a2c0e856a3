"""The world whose guardrail binds: what it promises, and each of its switches."""

import math

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld, run

F64 = torch.float64


@pytest.mark.parametrize(("seed", "dims"), [(0, 2), (1, 2), (2, 4), (3, 8)])
def test_the_optimum_breaks_the_guardrail_and_the_base_does_not(seed, dims):
    world = GuardrailWorld(seed, dims)
    theta = world.problem.space.sobol(4096, seed=9)
    truth = world.truth(theta)
    base = world.truth(world.problem.base_theta.unsqueeze(0))
    assert float(base.delta.abs().max()) == 0.0
    assert float(base.violation) == 0.0
    assert float(truth.violation[truth.gain.argmax()]) >= 0.004
    assert float(truth.delta.abs().max()) < 0.065
    oracle = world.oracle(8000)
    assert oracle.gain >= 0.02
    assert oracle.gain >= float(truth.gain[truth.violation <= 0].max())
    assert float(world.truth(oracle.theta.unsqueeze(0)).violation) == 0.0


def test_the_same_seed_is_the_same_world_with_the_same_readings():
    plan = hz.Tuner(GuardrailWorld(5).problem).ask()
    rows = [
        [(d.due, d.readings.mean.tolist()) for d in world.serve(plan)]
        for world in (GuardrailWorld(5), GuardrailWorld(5), GuardrailWorld(6))
    ]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_a_drifting_lift_turns_and_the_oracle_with_it():
    world = GuardrailWorld(0, drift=0.05)
    theta = world.problem.space.sobol(64, seed=0)
    still = GuardrailWorld(0)
    assert world.true_delta(theta).equal(still.true_delta(theta))
    assert world.true_delta(theta, 0).equal(world.true_delta(theta))
    assert still.true_delta(theta, 20).equal(still.true_delta(theta))
    turned = world.true_delta(theta, 20)
    assert float((turned - world.true_delta(theta)).abs().max()) > 0.01
    assert float(world.true_delta(world.problem.base_theta.unsqueeze(0), 20).abs().max()) == 0.0
    late = world.oracle(4000, round=20)
    assert float(world.truth(late.theta.unsqueeze(0), 20).gain) == pytest.approx(late.gain)


@pytest.mark.filterwarnings("ignore:.*no readings? ha(s|ve) arrived")
def test_heavy_tails_keep_the_mean_and_widen_the_noise():
    """Arms of 2,000 draws: z-scores of the first metric's mean by the light-tailed formula."""
    z = {}
    for heavy in (False, True):
        world = GuardrailWorld(0, heavy_tails=heavy, traffic=2.0)
        tuner = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=40))
        values = []
        for round_ in range(40):
            plan = tuner.ask(round_)
            mu = world.levels[round_ % 24] * (1 + world.true_delta(plan.theta))
            expected = dict(zip(plan.candidate_ids, mu[:, 0].tolist()))
            for delivery in world.serve(plan):
                r = delivery.readings
                for c, m, n, x in zip(r.candidate, r.metric, r.count, r.mean):
                    if int(m) == 0:
                        values.append((x - expected[int(c)]) / (0.6 / math.sqrt(n)))
        z[heavy] = torch.tensor(values)
    n = len(z[False])
    assert abs(float(z[False].mean())) < 4 / math.sqrt(n)
    assert abs(float(z[True].mean())) < 6 * 1.5 / math.sqrt(n)
    assert float(z[False].var()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / n))
    assert float(z[True].var()) > 1.3


def test_more_metrics_a_network_and_no_feasible_point():
    five = GuardrailWorld(0, 4, num_gains=2, num_guardrails=3, objective="neural")
    assert five.problem.metrics == ("gain_1", "gain_2", "guard_1", "guard_2", "guard_3")
    assert five.problem.num_constraints == 3
    up = torch.tensor([[0.01, 0.0, 0, 0, 0], [0.02, 0.0, 0, 0, 0], [0.02, 0.01, 0, 0, 0]])
    worth = five.problem.evaluate(up.double()).utility
    assert bool((worth.diff() > 0).all())
    never = GuardrailWorld(0, feasible=False)
    assert float(never.truth(never.problem.space.sobol(2048, seed=3)).violation.min()) > 0
    assert never.oracle(2000).gain == 0.0


@pytest.mark.parametrize("wrong", [{"dims": 0}, {"traffic": 0}, {"delay": -1}, {"num_gains": 0}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(hz.ConfigError, match="at least"):
        GuardrailWorld(**wrong)


def test_with_no_feasible_point_the_control_is_recommended_and_always_served():
    world = GuardrailWorld(1, feasible=False)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(num_draws=100, initial_candidates=16))
    with pytest.warns(hz.TunerWarning, match="violate least"):
        records = list(run(tuner, world, 16))
    assert {record.recommendation.candidate_id for record in records} == {0}
    assert all(plan.shares[0] > 0 for plan in tuner.history.plans.values())


def test_a_few_hours_find_part_of_the_gain_without_breaking_the_guardrail():
    world = GuardrailWorld(1)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(num_draws=300))
    last = list(run(tuner, world, 25))[-1]
    assert last.gain > 0.4 * world.oracle(4000).gain
    assert last.violation <= 0.001
