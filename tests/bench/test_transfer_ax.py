"""Ax's transfer learning as a peer: what it is told of sources and of the target."""

import math

import pytest
import torch

pytest.importorskip("ax")

from bench.quality.race.contender import outcomes, see
from bench.transfer.ax_peer import _SEARCH, TL_EXP, AxTransfer
from bench.transfer.families import MemberWorld
from hyperzero_torch.transfer import align

# Ax 1.3 and what it stands on warn of their own ways.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def world():
    return MemberWorld(0, 2, 0.9)


@pytest.fixture
def peer(world, monkeypatch):
    monkeypatch.setattr("bench.transfer.ax_peer._MOST_ROWS", 24)
    # How long Ax searches is no question here.
    short = {"num_restarts": 1, "raw_samples": 16, "options": {"maxiter": 5}}
    monkeypatch.setattr("bench.transfer.ax_peer._SEARCH", _SEARCH | short)
    made = AxTransfer(world, 0, world.sources(2))
    made.arms = 2
    return made


def test_sources_are_experiments_with_known_errors(peer, world):
    attached = peer.experiment.auxiliary_experiments_by_purpose[TL_EXP]
    assert [a.experiment.name for a in attached] == ["related_0", "related_1"]
    aligned = align(world.sources(1)[0], world.problem)
    outcome = outcomes(world.problem, aligned.mean, aligned.var)
    arms = {arm.name: arm.parameters for arm in attached[0].experiment.trials[0].arms}
    rows = {tuple(row): i for i, row in enumerate(aligned.x.tolist())}
    frame = attached[0].data.df
    assert len(frame) == 12 * 2
    for row in frame.to_dict("records"):
        i = rows[arms[row["arm_name"]]["x0"], arms[row["arm_name"]]["x1"]]
        utility = row["metric_name"] == "utility"
        mean, var = (
            (outcome.utility[i], outcome.utility_var[i])
            if utility
            else (outcome.slack[i, 0], outcome.slack_var[i, 0])
        )
        assert row["mean"] == pytest.approx(float(mean))
        assert row["sem"] == pytest.approx(math.sqrt(float(var)))


def test_it_serves_from_the_first_hour_and_is_told_of_its_arms(peer, world):
    for round_ in range(2):
        plan = peer.plan(round_)
        assert len(plan) == 3
        assert plan.control_share == pytest.approx(1 / (1 + math.sqrt(2)))
        assert plan.theta.min() >= 0
        assert plan.theta.max() <= 1
        for delivery in world.serve(plan):
            peer.tell([delivery.readings])
    seen = see(peer.tuner, 2)
    frame = peer.data(seen).df
    assert sorted(frame.arm_name.unique()) == ["1_0", "1_1", "2_0", "2_1", "base"]
    served = {a.name: a.parameters for t in peer.experiment.trials.values() for a in t.arms}
    outcome = seen.outcomes()
    for i, row in enumerate(seen.rows.tolist()):
        trial, name = peer.names[tuple(round(float(v), 9) for v in seen.x[row])]
        x = torch.tensor([served[name][f"x{k}"] for k in range(2)], dtype=torch.float64)
        torch.testing.assert_close(x, seen.x[row])
        attached = frame[(frame.arm_name == name) & (frame.metric_name == "utility")]
        assert attached["mean"].item() == pytest.approx(float(outcome.utility[i]))
        assert attached["trial_index"].item() == trial


def test_both_models_stand_ready_with_axs_rule_between_them(peer):
    keys = [spec.generator_key for spec in peer.guarded.generator_specs]
    assert keys == ["BOTL", "BoTorch"]
    assert peer.guarded.best_model_selector is not None
