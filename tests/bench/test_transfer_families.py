"""Families of surfaces: what a source of each kind says, against the truth."""

import pytest
import torch

from bench.transfer.families import MemberWorld
from hyperzero_torch import InputError


@pytest.fixture(scope="module")
def world():
    return MemberWorld(3, 4, 0.98, traffic=4.0)


def settings(world, source):
    return torch.stack([world.truth_problem.space.theta(p) for p in source.parameters])


def test_an_identical_source_is_the_target_told_by_other_readings(world):
    one, other = world.sources(2, "identical")
    assert one.mean.tolist() != other.mean.tolist()
    for source in (one, other):
        assert source.base == pytest.approx(world.truth_problem.base)
        z = (source.mean - world.true_delta(settings(world, source))) / source.var.sqrt()
        # 192 squares, those of a metric with one control's error in common: 1 within four errors.
        assert abs(float(z.square().mean()) - 1) < 4 * (2 / 192) ** 0.5


def test_related_sources_follow_the_target_and_reversed_ones_its_negative(world):
    correlations = {}
    for kind in ("related", "reversed", "noise"):
        source = world.sources(1, kind)[0]
        both = torch.stack([source.mean[:, 0], world.true_delta(settings(world, source))[:, 0]])
        correlations[kind] = float(torch.corrcoef(both)[0, 1])
    assert correlations["related"] > 0.8
    assert correlations["reversed"] < -0.8
    assert abs(correlations["noise"]) < 4 / 96**0.5


def test_of_one_good_the_first_is_related(world):
    names = [source.name for source in world.sources(6, "one_good")]
    assert names == [
        "related_0", "reversed_1", "shuffled_2", "noise_3", "shifted_4", "unrelated_5",
    ]  # fmt: skip


def test_a_kind_that_is_not_there_is_refused(world):
    with pytest.raises(InputError, match="one_good, got 'relatd'"):
        world.sources(3, "relatd")
