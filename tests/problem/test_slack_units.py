"""One unit for slacks over deltas and over levels: fractions of the control's value."""

import math

import pytest

import hyperzero_torch as hz
from hyperzero_torch.problem.slack_units import slack_units, violation_in_words

SPACE = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])


def units(*constraints, levels=(40.0, -5.0)):
    problem = hz.Problem(SPACE, {"w": 0.5}, ["views", "profit"], "views", constraints, levels)
    return slack_units(problem).tolist()


@pytest.mark.parametrize(
    ("constraint", "unit"),
    [
        ("views >= -0.1%", 1.0),
        ("level(views) >= 30", 40.0),
        ("30 <= level(views)", 40.0),
        ("level(views) <= 100", 40.0),
        ("100 >= level(views)", 40.0),
        ("level(views) >= 2 * level(profit)", 40.0),
        ("2 * level(profit) <= level(views)", 10.0),
        ("level(profit) >= -9", 5.0),
        (hz.Constraint("level(views)", at_least=30.0), 40.0),
        (hz.Constraint(lambda level: 2 * level[..., 0], at_most=90.0, on="level"), 80.0),
        (hz.Constraint(lambda delta: delta[..., 0], at_least=-0.01), 1.0),
    ],
)
def test_a_slack_is_divided_by_the_controls_value_of_the_bounded_side(constraint, unit):
    assert units(constraint) == [unit]


def test_a_control_of_zero_or_unknown_gives_no_unit():
    (unit,) = units("level(views) + 8 * level(profit) >= -1")
    assert math.isnan(unit)
    (unit,) = units("level(views) >= 30", levels=None)
    assert math.isnan(unit)


def test_a_violation_is_in_points_of_the_controls_value():
    assert violation_in_words(-0.004, 1.0) == "0.400 points"
    assert violation_in_words(-2.0, 40.0) == "5.000 points"
    assert violation_in_words(-2.0, math.nan) == "2 in its own unit"
