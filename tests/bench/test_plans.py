"""Studies plan what they planned when they were recorded; to the last bit on that machine."""

import json

import pytest

from bench.reliability import plans


@pytest.mark.parametrize("name", plans.STUDIES)
def test_plans_are_those_recorded(name):
    recorded = json.loads(plans.RESULTS.read_text())
    assert plans.difference(name, plans.replay(name, rounds=8), recorded) is None
