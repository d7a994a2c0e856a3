"""What earlier code has stored opens and goes on: a journal and a state with everything in them.

``journal_of_events`` was written before records of plans and decisions were typed: 89 rounds with
three sources of transfer, drift, harm stops, retirements, rounds set aside and reinstated, a
rollback, a remark and a compaction.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import hyperzero_torch as hz
from bench.reliability.plans import digest, machine, outcome
from hyperzero_torch.study.journal import MemoryJournal

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = json.loads((FIXTURES / "journal_of_events.json").read_text())
SAME_MACHINE = machine() == RECORDED["machine"]  # only there are the last digits the same


def problem():
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    return hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -2.5%"])


def lift(theta, round):
    def raw(x):
        sign = 1.0 if round < 60 else -1.0
        gain = sign * 0.1 * torch.sin(3 * x[:, 0]) - 0.08 * (x[:, 1] - 0.3).square()
        return torch.stack([gain, -0.08 * x[:, 0] * x[:, 1]], -1)

    return raw(theta) - raw(torch.tensor([[0.4, 0.6]], dtype=torch.float64))


def reply(plan):
    generator = torch.Generator().manual_seed(plan.round)
    mean = 10 * (1 + lift(plan.theta, plan.round))
    count = (20_000.0 * torch.tensor(plan.shares)).unsqueeze(-1).expand_as(mean)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    mean = mean + noise * 2 / count.sqrt()
    return hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.full_like(mean, 4.0))


@pytest.fixture(params=["journal", "state"])
def tuner(request, tmp_path):
    """The study as it was stored."""
    if request.param == "journal":
        path = tmp_path / "old.db"
        shutil.copy(FIXTURES / "journal_of_events.db", path)
        tuner = hz.Tuner.resume(f"sqlite:///{path}", "feed", problem=problem())
        yield tuner
        tuner.journal.close()
        return
    state = torch.load(FIXTURES / "journal_of_events.pt", weights_only=True)
    tuner = hz.Tuner(problem(), study="feed", seed=12)
    tuner.load_state_dict(state)
    yield tuner


def test_every_fact_is_as_it_was(tuner):
    history, standing = tuner.history, tuner.history.status
    assert history.num_candidates == RECORDED["candidates"]
    assert [[d.round, d.kind] for d in history.decisions] == RECORDED["decisions"]
    assert sorted(standing.retired) == RECORDED["retired"]
    assert sorted(standing.stopped) == RECORDED["stopped"]
    assert sorted(standing.excluded_rounds) == RECORDED["aside"]
    assert [list(vars(d).values()) for d in standing.discounts] == RECORDED["discounts"]
    assert [list(c.rounds) for c in history.compacted] == RECORDED["compacted"]
    assert digest(tuner.ask(history.last_round)) == RECORDED["last_plan"]


def test_it_goes_on_as_it_would_have(tuner):
    plan = tuner.ask()
    tuner.recommend()
    described = outcome(tuner)
    # A journal of before the hash chain says where its chain begins; a state has none.
    begun = described["decisions"].pop("chain", 0)
    assert begun == (not isinstance(tuner.journal, MemoryJournal))
    tuner.tell(reply(plan))
    later = tuner.ask()
    if SAME_MACHINE:
        assert digest(plan) == RECORDED["next_plan"]
        assert described == RECORDED["outcome"]
        assert digest(later) == RECORDED["after_a_reply"]["plan"]
    assert plan.candidate_ids[0] == later.candidate_ids[0] == 0
    assert math.isclose(sum(later.shares), 1.0, abs_tol=1e-12)
    tuner.explain(plan.round)


def test_what_is_stored_again_is_what_was_stored(tuner):
    again = hz.Tuner(problem(), study="feed", seed=12)
    again.load_state_dict(tuner.state_dict())
    assert again.journal.read("feed")[1:] == tuner.journal.read("feed")[1:]
