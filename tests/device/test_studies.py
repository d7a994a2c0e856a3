"""Whole studies on a simulated card: nothing mixes devices, the plans are the CPU's, few waits."""

from __future__ import annotations

import pytest

from bench.device.studies import KINDS


@pytest.fixture(scope="module")
def studies(on_card):
    return {study["kind"]: study for study in on_card("bench.device.studies")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_on_a_card_makes_the_plans_of_the_cpu(studies, kind):
    study = studies[kind]
    assert study["error"] is None, study["error"]  # e.g. tensors of two devices
    assert all(study["same arms"])
    assert all(study["same shares"])
    assert study["largest difference of theta"] < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_no_plan_rests_on_a_sum_whose_order_a_card_does_not_fix(studies, kind):
    assert studies[kind]["atomic lines"] == []
