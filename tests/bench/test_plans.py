"""Studies plan what they planned when they were recorded; to the last bit on that machine."""

import copy
import json

import pytest

from bench.reliability import plans

RECORDED = plans.nearest(plans.read())


@pytest.mark.parametrize("name", plans.STUDIES)
def test_plans_are_those_recorded(name):
    assert plans.difference(name, plans.replay(name, rounds=8), RECORDED) is None
    if RECORDED["machine"] != plans.machine():
        pytest.skip("first plans agree; later ones are not recorded for this processor: see --add")


def test_each_machine_has_one_record_of_every_study():
    records = plans.read()
    machines = [json.dumps(record["machine"], sort_keys=True) for record in records]
    assert len(set(machines)) == len(machines)
    assert all(list(record["studies"]) == list(plans.STUDIES) for record in records)


def test_the_record_of_this_machine_is_preferred():
    another, here = {"machine": {"processor": "another"}}, {"machine": plans.machine()}
    assert plans.nearest([another, here]) is here
    assert plans.nearest([another]) is another


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
