"""Studies plan what they planned when they were recorded; to the last bit on that machine."""

import copy
import json

import pytest

from bench.reliability import plans

RECORDED = json.loads(plans.RESULTS.read_text())


@pytest.mark.parametrize("name", plans.STUDIES)
def test_plans_are_those_recorded(name):
    assert plans.difference(name, plans.replay(name, rounds=8), RECORDED) is None


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("key", ["candidates", "slots", "shares", "theta"])
def test_another_plan_is_noticed(key, here):
    machine = plans.machine() if here else {"processor": "another"}
    recorded = copy.deepcopy(RECORDED) | {"machine": machine}
    study = copy.deepcopy(recorded["studies"]["default_2"])
    assert plans.difference("default_2", study, recorded) is None
    if key == "theta":
        study["first"][key][3][0] *= 1 + 1e-7
    else:
        study["first"][key][3] += 1e-7 if key == "shares" else 1
    study["plans"][0] = "another"
    assert "differs" in plans.difference("default_2", study, recorded)


def test_last_digits_may_differ_on_another_machine():
    recorded = copy.deepcopy(RECORDED) | {"machine": {"processor": "another"}}
    study = copy.deepcopy(recorded["studies"]["default_2"])
    study["first"]["theta"][3][0] *= 1 + 1e-14
    study["plans"][0] = "another"
    assert plans.difference("default_2", study, recorded) is None
