"""Slots become shares: limits hold, nothing is lost, the control is always served."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.tuner.traffic import max_control_share, round_robin, shares, verification_slots

LIMITED = hz.TunerConfig(max_share=0.4, max_share_rise=0.1)


def share(slots, last=None, config=LIMITED, most=None):
    arms = torch.arange(1, len(slots) + 1)
    return shares(arms, torch.tensor(slots), last or {}, config, control_limit=most)


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.one_of(st.just("auto"), st.floats(0.01, 0.99)),
    st.integers(0, 2**31),
)
def test_shares_sum_to_one_within_their_limits(slots, most, rise, control, seed):
    config = hz.TunerConfig(max_share=most, max_share_rise=rise, control_share=control)
    past = torch.rand(len(slots), generator=torch.Generator().manual_seed(seed))
    last = {c + 1: float(p) / len(slots) for c, p in enumerate(past) if p > 0.5}
    free = hz.TunerConfig(max_share=1, max_share_rise=1, control_share=control)
    given_, wanted = share(slots, last, config), share(slots, last, free)
    assert abs(sum(given_) - 1) < 1e-9
    assert min(given_) >= 0
    assert given_[0] >= wanted[0] - 1e-12  # limits never take from the control
    for arm, value in enumerate(given_[1:], start=1):
        assert value <= min(most, last.get(arm, 0.0) + rise) + 1e-12


def test_what_a_limit_leaves_goes_to_the_other_arms_then_to_the_control():
    wide = hz.TunerConfig(max_share=0.4, max_share_rise=1.0, control_share=0.2)
    assert share([90, 10], config=wide) == pytest.approx((0.2, 0.4, 0.4))
    assert share([80, 10, 10], config=wide)[1:] == pytest.approx((0.4, 0.2, 0.2))
    alone = share([7], config=wide)
    assert alone[0] == pytest.approx(0.6)  # the only arm takes what it may, the control the rest
    assert share([7], last={1: 0.2})[1] == pytest.approx(0.3)


def test_arms_that_pool_their_evidence_count_as_the_regions_they_lie_in():
    free = hz.TunerConfig(max_share=1, max_share_rise=1)
    arms, slots = torch.arange(1, 101), torch.ones(100, dtype=torch.long)

    def control(similarity):
        return shares(arms, slots, {}, free, similarity)[0]

    every = torch.eye(100, dtype=torch.float64)
    assert control(None) == pytest.approx(1 / 11)
    assert control(every) == pytest.approx(1 / 11)
    twentyfive = torch.block_diag(*[torch.ones(4, 4, dtype=torch.float64)] * 25)
    assert control(twentyfive) == pytest.approx(1 / 6)
    assert control(torch.ones_like(every)) == pytest.approx(0.5)  # a single region: half


def test_a_rise_takes_several_rounds():
    last, seen = {}, []
    config = hz.TunerConfig(max_share=0.5, max_share_rise=0.2, control_share=0.1)
    for _ in range(4):
        plan = share([1], last, config)
        last = {1: plan[1]}
        seen.append(plan[1])
    assert seen == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_verification_grows_over_the_first_day():
    config = hz.TunerConfig(num_draws=1000, verification_share=0.3, rounds_per_day=24)
    slots = [verification_slots(config, r) for r in range(48)]
    assert slots[0] == 12
    assert slots == sorted(slots)
    assert slots[23] == slots[47] == 300
    assert verification_slots(hz.TunerConfig.paper(), 30) == 0


def test_the_controls_limit_rises_over_the_first_day():
    config = hz.TunerConfig(rounds_per_day=4)
    assert [max_control_share(config, r) for r in range(6)] == pytest.approx(
        [0.35, 0.4, 0.45, 0.5, 0.5, 0.5]
    )
    assert max_control_share(hz.TunerConfig(max_control_share=0.2), 30) == pytest.approx(0.2)
    assert share([1], {}, config, most=0.35)[0] >= 0.35  # what a rise leaves goes to the control
    free = hz.TunerConfig(max_share=1, max_share_rise=1)
    assert share([1], {}, free, most=0.35)[0] == pytest.approx(0.35)


def test_round_robin_serves_those_served_least():
    config = hz.TunerConfig(num_draws=10, max_arms=3)
    assert round_robin([5, 2, 0, 1, 0], config).tolist() == [0, 0, 4, 3, 3]
    assert round_robin([1], config).tolist() == [0]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40),
    st.sets(st.integers(1, 39)),
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(1, 50),
)
def test_who_is_screened_gets_a_newcomers_slots_at_most(times, screened, num, few, most):
    config = hz.TunerConfig(num_draws=num, newcomer_slots=few, max_arms=most)
    slots = round_robin(times, config, screened=screened)
    served = slots.nonzero().flatten().tolist()
    assert len(served) == min(most, len(times) - 1)
    assert int(slots.sum()) == max(num, len(served))
    thin, others = set(served) & screened, set(served) - screened
    if others:
        assert all(int(slots[c]) <= few for c in thin)
        assert min(int(slots[c]) for c in others) >= max((int(slots[c]) for c in thin), default=0)
