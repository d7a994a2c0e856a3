"""Guardrails under peeking: who surely harms is stopped at once, who does not is left alone."""

import warnings

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.stats import sequential
from hyperzero_torch.stats.delta import Delta
from hyperzero_torch.study.evidence.bucket import Bucket
from hyperzero_torch.study.evidence.pooling import ArmDeltas
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded
from hyperzero_torch.tuner.context import RoundContext
from hyperzero_torch.tuner.guardrails import harm_stops, slacks
from hyperzero_torch.tuner.model import Unfitted

F64 = torch.float64
SPACE = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])


def problem(*constraints, base_levels=None):
    return hz.Problem(
        SPACE, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", list(constraints),
        base_levels=base_levels,
    )  # fmt: skip


def bucket(mean, var, power=1e6):
    """Candidates with these own deltas, row 0 the control."""
    mean, var = torch.tensor(mean, dtype=F64), torch.tensor(var, dtype=F64)
    weight = torch.where(mean.isfinite(), 1.0, 0.0).double()
    weight[0] = 0.0
    empty = torch.empty(0)
    return Bucket(
        theta=torch.zeros(len(mean), 2, dtype=F64), mean=mean, var=var, weight=weight,
        num_rounds=torch.ones(len(mean), dtype=torch.long), base_levels=None, level_hours=0,
        control_loadings=(), dispersion=torch.ones(2, dtype=F64),
        round_precision=torch.full((2,), power, dtype=F64),
        deltas=ArmDeltas(empty, empty, Delta(empty, empty), empty, empty),
    )  # fmt: skip


NAN = float("nan")


def test_slack_bounds_are_the_sequences_of_a_single_metric():
    bounds = slacks(
        problem("guard >= -1%"), bucket([[NAN] * 2, [0.1, -0.03]], [[NAN] * 2, [1e-6, 4e-6]]), 0.01
    )
    tight = torch.tensor(2 / (0.5 * 1e6), dtype=F64)
    slack, var = torch.tensor(-0.02, dtype=F64), torch.tensor(4e-6, dtype=F64)
    torch.testing.assert_close(bounds.upper[1, 0], sequential.upper(slack, var, 0.01, tight))
    torch.testing.assert_close(bounds.lower[1, 0], sequential.lower(slack, var, 0.01, tight))
    assert bool(bounds.upper[0].isnan().all())  # nothing is said of the control


def test_slack_bounds_scale_with_what_a_constraint_counts():
    """A weight in front of a metric widens the bounds by as much, several metrics add up."""
    b = bucket([[NAN] * 2, [0.02, 0.03]], [[NAN] * 2, [1e-6, 4e-6]])
    one, three, both = (
        slacks(problem(c), b, 0.05) for c in ("gain >= 0", "3 * gain >= 0", "gain + guard >= 0")
    )
    torch.testing.assert_close(3 * one.lower[1], three.lower[1])
    assert float(both.upper[1, 0]) > 0.05
    width = float(both.upper[1, 0] - both.lower[1, 0])
    own = slacks(problem("guard >= 0"), b, 0.05)
    assert width == pytest.approx(
        float(one.upper[1, 0] - one.lower[1, 0]) + float(own.upper[1, 0] - own.lower[1, 0]),
        rel=0.1,
    )


def test_levels_and_modules_can_be_guardrails():
    b = bucket([[NAN] * 2, [0.1, 0.5]], [[NAN] * 2, [1e-6, 1e-6]])
    level = problem("level(guard) <= 10", base_levels={"gain": 1.0, "guard": 9.0})
    assert float(slacks(level, b, 0.01).upper[1, 0]) < 0
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(-2)).double()
    torch.nn.init.constant_(net[0].bias, 0.5)
    neural = problem(hz.Constraint(net, at_least=0.0))
    assert bool(slacks(neural, b, 0.01).upper[1].isfinite().all())


def stops(asked, b, config, history, round, level_hours=None):
    state = Unfitted(b, asked, torch.arange(len(b.mean)), {}, None, level_hours, "nothing fitted")
    return harm_stops(state, RoundContext(config, history, round, seed=0))


def history(num):
    h = History(2, ["gain", "guard"])
    h.extend(
        CandidateAdded(i, 0, "initial" if i else "base", (0.0, 0.1 * i), {}) for i in range(num)
    )
    return h


def test_only_who_surely_harms_is_stopped_and_only_once():
    b = bucket(
        [[NAN] * 2, [0.1, -0.08], [0.1, -0.012], [0.1, 0.02], [NAN] * 2],
        [[NAN] * 2, [1e-5, 1e-5], [1e-5, 1e-5], [1e-5, 1e-5], [NAN] * 2],
    )
    asked, config = problem("guard >= -1%"), hz.TunerConfig()
    h = history(5)
    stopped = stops(asked, b, config, h, 7)
    assert [d.trace.candidates for d in stopped] == [(1,)]
    assert "candidate 1 breaks 'guard >= -1%' by at least" in stopped[0].reason
    h.extend(stopped)
    assert h.status.stopped == {1}
    assert not stops(asked, b, config, h, 8)
    assert not stops(asked, b, hz.TunerConfig(harm_alpha=None), history(5), 7)
    assert not stops(problem(), b, config, history(5), 7)
    assert not stops(asked, b._replace(round_precision=torch.zeros(2)), config, history(5), 7)


def test_levels_that_rest_on_part_of_a_day_stop_nobody():
    b = bucket([[NAN] * 2, [0.1, 0.5]], [[NAN] * 2, [1e-6, 1e-6]])
    level = problem("level(guard) <= 10", base_levels={"gain": 1.0, "guard": 9.0})
    assert stops(level, b, hz.TunerConfig(), history(2), 5, level_hours=24)
    assert not stops(level, b, hz.TunerConfig(), history(2), 5, level_hours=23)
    unknown = problem("level(guard) <= 10")
    assert not stops(unknown, b, hz.TunerConfig(), history(2), 5, level_hours=0)


def serve(tuner, harm, *, users=20_000.0):
    """An hour in which candidates with b above 0.5 move the guard by ``-harm``."""
    plan = tuner.ask()
    generator = torch.Generator().manual_seed(plan.round)
    lift = torch.stack([0.02 * plan.theta[:, 0], -harm * (plan.theta[:, 1] > 0.5)], -1)
    lift[0] = 0.0
    count = users * torch.tensor(plan.shares).unsqueeze(-1).expand_as(lift)
    noise = torch.randn(lift.shape, generator=generator, dtype=F64) / count.sqrt()
    mean = 10 * (1 + lift) + noise
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    return plan


def test_a_tuner_stops_harm_within_the_hour_and_says_so():
    config = hz.TunerConfig(
        num_draws=60, num_samples=64, num_proposals=2, initial_candidates=8, draws="marginal",
        evidence="own", caution=0.0,
    )  # fmt: skip
    tuner = hz.Tuner(problem("guard >= -1%"), config)
    serve(tuner, harm=0.5)
    plan = tuner.ask()
    assert "breaks 'guard >= -1%'" in tuner.history.decisions[0].reason
    bad = {b.candidate for b in tuner.history.candidates if b.candidate and b.theta[1] > 0.5}
    bad &= set(tuner.history.plans[0].candidates)
    assert tuner.history.status.stopped == bad
    assert not bad & set(plan.candidate_ids)
    noted = [c for d in tuner.history.decisions for c in d.trace.candidates]
    assert sorted(noted) == sorted(bad)  # each once


def test_where_nobody_harms_nobody_is_stopped():
    config = hz.TunerConfig(num_draws=60, num_samples=64, num_proposals=2, initial_candidates=8)
    tuner = hz.Tuner(problem("guard >= -0.01%"), config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            serve(tuner, 0.0, users=2000.0)
    assert not tuner.history.status.stopped


def test_a_promotion_needs_the_sequence():
    """Believed to be safe is not shown to be: only the latter is recommended where it is asked."""
    config = hz.TunerConfig(num_draws=60, num_samples=64, num_proposals=2, initial_candidates=8)
    tuner = hz.Tuner(problem("guard >= -1%"), config)
    unproven = 0
    for _ in range(6):
        serve(tuner, 0.0)
        best, shown = tuner.recommend(), tuner.recommend(only_proven=True)
        assert shown.candidate_id == 0 or shown.proven
        unproven += best.candidate_id != 0 and best.proven is False
    assert unproven
    serve(tuner, 0.0, users=4e6)
    sure = tuner.recommend(only_proven=True)
    assert sure.candidate_id != 0
    assert "are proven safe" in sure.reason
    lower = slacks(tuner.problem, tuner.bucket(), 0.01).lower
    assert float(lower[sure.candidate_id]) >= 0
    plain = hz.Tuner(problem("guard >= -1%"), config.model_copy(update={"harm_alpha": None}))
    serve(plain, 0.0)
    assert plain.recommend().proven is None
    with pytest.raises(hz.ConfigError, match="nothing is proven"):
        plain.recommend(only_proven=True)
