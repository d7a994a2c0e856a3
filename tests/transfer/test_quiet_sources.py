"""Sources that say nothing, or nothing that a model takes, never end a study."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld, run
from hyperzero_torch.transfer import Source

CONFIG = {"num_draws": 100, "num_samples": 64, "initial_candidates": 16, "num_starts": 0}
WORLD = GuardrailWorld(seed=3, traffic=1.0)


def source(mean, var=1e-5, name="quiet", metrics=("gain", "guard")):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    x = torch.rand(len(mean), 2, dtype=torch.float64, generator=generator)
    settings_ = [{"w_1": a, "w_2": b} for a, b in x.tolist()]
    return Source(
        name=name,
        parameters=settings_,
        metrics=list(metrics),
        mean=mean,
        var=torch.full(mean.shape, var, dtype=torch.float64),
    )


def plans(*sources, rounds=5, **changes):
    tuner = hz.Tuner(
        WORLD.problem, hz.TunerConfig(**CONFIG, **changes), seed=3, sources=list(sources)
    )
    for _ in run(tuner, WORLD, num_rounds=rounds):
        pass
    return tuner


def served(tuner):
    return [(p.candidates, p.slots, p.shares) for p in tuner.history.plans.values()]


FLAT = torch.zeros(12, 2, dtype=torch.float64)
RANDOM = 0.02 * torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "quiet",
    [source(FLAT), source(RANDOM, var=1.0), source(RANDOM[:1])],
    ids=["flat", "noisy", "single"],
)
def test_a_source_that_says_nothing_changes_no_plan(quiet):
    tuner = plans(quiet)
    assert served(tuner) == served(plans())
    transfer = tuner.history.plans[4].trace.transfer
    assert transfer.used is False
    assert transfer.reason


def test_what_a_source_says_nothing_of_is_told_by_metric():
    half = RANDOM.clone()
    half[:, 1] = 0.0
    tuner = plans(source(half, name="half"), source(FLAT, name="flat"))
    transfer = tuner.history.plans[4].trace.transfer
    assert transfer.silent == {"half": ("guard",), "flat": ("gain", "guard")}
    remarks = tuner.explain(4).remarks
    assert any("source flat has no usable evidence on gain, guard" in remark for remark in remarks)


def test_seeds_are_not_asked_of_who_says_nothing():
    tuner = plans(source(FLAT, name="a"), source(FLAT, name="b"), rounds=1, seed_first=True)
    assert served(tuner) == served(plans(rounds=1))
    assert tuner.history.plans[0].trace.transfer.seeds == 0


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 14), st.floats(-12, 100), st.floats(-200, 3), st.integers(0, 99), st.booleans()
)
def test_whatever_a_source_says_the_study_goes_on(num, size, noise, seed, same):
    generator = torch.Generator().manual_seed(seed)
    mean = 10.0**size * torch.randn(num, 2, dtype=torch.float64, generator=generator)
    if same:
        mean = mean[:1].expand(num, 2).clone()
    try:
        any_source = source(mean, var=10.0**noise)
    except hz.HyperZeroError:
        return  # refused at the door
    transfer = plans(any_source, rounds=5).history.plans[4].trace.transfer
    assert transfer.metrics is not None
    assert transfer.reason
