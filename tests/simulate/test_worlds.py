"""The paper's world and the closed loop on it."""

import math

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import PAPER_SEEDS, PaperWorld, run

SMALL = hz.TunerConfig(num_draws=60, num_samples=128, num_proposals=2, initial_candidates=16)


@pytest.fixture(scope="module")
def world():
    return PaperWorld(seed=42)


def test_the_constants_are_those_of_appendix_a(world):
    assert len(PAPER_SEEDS) == len(set(PAPER_SEEDS)) == 50
    assert world.problem.base == {"theta_1": 0.011, "theta_2": 0.985}
    assert world.problem.objective_name == "0.296 * level(x1) + 1.165 * level(x2)"
    assert world.problem.constraint_names == ("0.149 * level(x1) + 0.703 * level(x2) >= 0.6036",)
    assert world.draws_per_round == 50_000
    assert torch.allclose(world.levels.mean(0), torch.tensor([0.67, 0.67], dtype=torch.float64))
    assert float(torch.corrcoef(world.levels.T)[0, 1]) < -0.9  # a strong trade-off


@pytest.mark.parametrize("seed", PAPER_SEEDS[:4])
def test_surfaces_span_zero_to_a_tenth_and_the_constraint_cuts_the_square(seed):
    world = PaperWorld(seed=seed)
    axis = torch.linspace(0, 1, 101, dtype=torch.float64)
    effect = world.effect(torch.cartesian_prod(axis, axis))
    assert torch.allclose(effect.amin(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(effect.amax(0), torch.full((2,), 0.1, dtype=torch.float64))
    truth = world.truth(torch.cartesian_prod(axis, axis))
    assert 0.02 < float((truth.violation <= 0).double().mean()) < 0.98
    oracle = world.oracle()
    assert 0.044 < oracle.gain < 0.061
    assert oracle.gain >= float(truth.gain[truth.violation <= 0].max()) - 1e-4
    at_oracle = world.truth(oracle.theta.unsqueeze(0))
    assert float(at_oracle.violation) == 0.0


def test_the_same_plan_gives_the_same_readings_and_another_seed_others(world):
    plan = hz.Tuner(world.problem, config=SMALL).ask()
    rows = [
        [(d.due, d.readings.mean.tolist(), d.readings.var.tolist()) for d in w.serve(plan)]
        for w in (world, PaperWorld(seed=42), PaperWorld(seed=40))
    ]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_readings_are_late_by_the_delay_plus_a_random_part(world):
    plan = hz.Tuner(world.problem, config=hz.TunerConfig(initial_candidates=256)).ask()
    late = {d.due - plan.round: len(d.readings) // 2 for d in world.serve(plan)}
    assert min(late) == 3
    arms = sum(late.values())
    assert arms == len(plan)
    # round(|z|): 0 with probability 0.3829, 1 with 0.4836
    assert late[3] / arms == pytest.approx(0.3829, abs=4 * math.sqrt(0.24 / arms))
    assert late[4] / arms == pytest.approx(0.4836, abs=4 * math.sqrt(0.25 / arms))


@pytest.mark.filterwarnings("ignore:.*no reading has arrived")  # nothing is told
def test_served_means_and_variances_follow_the_model(world):
    """Pooled over many rounds, z-scores of the means have unit variance, and E[var] is 0.36."""
    tuner = hz.Tuner(world.problem, config=SMALL)
    z, var = [], []
    for round_ in range(40):
        plan = tuner.ask(round_)
        mu = world.levels[round_ % 24] * (1 + world.effect(plan.theta))
        by_id = dict(zip(plan.candidate_ids, mu.tolist()))
        for delivery in world.serve(plan):
            r = delivery.readings
            for c, m, n, x, v in zip(r.candidate, r.metric, r.count, r.mean, r.var):
                z.append((x - by_id[int(c)][int(m)]) / math.sqrt(0.36 / n))
                var.append(v)
    z, var = torch.tensor(z), torch.tensor(var)
    n = len(z)
    assert abs(float(z.mean())) < 4 / math.sqrt(n)
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / n)
    assert float(var.mean()) == pytest.approx(0.36, rel=0.01)


def test_the_truth_of_the_base_is_zero_and_gain_is_relative(world):
    truth = world.truth(world.problem.base_theta.unsqueeze(0))
    assert float(truth.gain) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(truth.delta, torch.zeros(1, 2, dtype=torch.float64))


def test_known_levels_are_near_the_true_ones_and_can_be_withheld(world):
    true = world.truth_problem.base_levels
    assert torch.allclose(world.problem.base_levels, true, rtol=0.01)
    assert not torch.equal(world.problem.base_levels, true)
    assert PaperWorld(seed=42, known_days=0).problem.base_levels is None


def test_the_loop_learns_while_readings_are_in_flight(world):
    tuner = hz.Tuner(world.problem, config=SMALL, seed=1)
    records = list(run(tuner, world, 16))
    assert [r.round for r in records] == list(range(16))
    assert all(r.num_in_flight > 0 for r in records)
    assert records[2].recommendation.candidate_id == 0  # nothing can have arrived yet
    assert records[-1].gain > 0.6 * world.oracle().gain
    assert records[-1].violation <= 0.001
    assert records[-1].num_candidates > records[0].num_candidates


def test_the_loop_goes_on_where_it_was(world):
    whole = hz.Tuner(world.problem, config=SMALL)
    list(run(whole, world, 8))
    journal = hz.MemoryJournal()
    parts = hz.Tuner(world.problem, config=SMALL, journal=journal)
    list(run(parts, world, 5))
    again = hz.Tuner(world.problem, journal=journal)
    records = list(run(again, world, 8))
    assert [r.round for r in records] == [5, 6, 7]
    for round_ in range(8):
        assert again.ask(round_) == whole.ask(round_)


@pytest.mark.parametrize(
    "config", [hz.TunerConfig(), hz.TunerConfig.paper()], ids=["default", "paper"]
)
def test_a_full_study_reaches_the_goal(config):
    """One seed of what `make paper` measures on fifty."""
    world = PaperWorld(seed=40)
    tuner = hz.Tuner(world.problem, config=config, seed=40)
    last = list(run(tuner, world, 31))[-1]
    assert last.gain >= 0.95 * world.oracle().gain
    assert last.violation <= 0.001
