"""Typed traces: what is stored reads as it was written; what cannot be is one error of ours."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.study.journal import (
    Decision,
    MemoryJournal,
    Planned,
    StudyHeader,
    open_journal,
)
from hyperzero_torch.study.journal.state import pack
from hyperzero_torch.study.journal.trace import (
    VERSION,
    VERSION_KEY,
    NewerTraceError,
    PlanTrace,
    Remark,
    TraceError,
    decision_trace,
)

FIXTURE = Path(__file__).parents[1] / "fixtures" / "journal_of_events.db"
KERNEL = {"lengthscale": [[0.5, 0.5]] * 2, "outputscale": [1.0] * 2, "constant": [0.0] * 2}


def test_every_record_that_earlier_code_stored_is_read_without_loss(tmp_path):
    shutil.copy(FIXTURE, tmp_path / "old.db")
    journal = open_journal(f"sqlite:///{tmp_path / 'old.db'}")
    kinds = set()
    for entry in journal.read("feed"):
        if not isinstance(entry, Planned | Decision) or isinstance(entry.trace, Remark):
            continue
        stored = {key: value for key, value in entry.details.items() if value is not None}
        again = type(entry.trace).read(entry.trace.stored())
        assert again == entry.trace
        assert VERSION_KEY not in stored
        lost = stored.keys() - entry.trace.plain().keys()
        assert not any(stored[key] for key in lost)  # only what is empty is left out
        kinds.add(type(entry.trace).__name__)
    assert len(kinds) >= 9
    journal.close()


def test_a_later_version_is_refused_and_a_wrong_one_is_damaged():
    with pytest.raises(NewerTraceError, match=f"version {VERSION + 1}.*reads versions 1 to"):
        PlanTrace.read({VERSION_KEY: VERSION + 1})
    for wrong in (0, True, "2", None):
        with pytest.raises(TraceError, match="version"):
            PlanTrace.read({VERSION_KEY: wrong})
    with pytest.raises(NewerTraceError):  # a kind of decision that this version does not know
        decision_trace("paused", {VERSION_KEY: VERSION + 1})
    assert decision_trace("platform", {"a": 1}).facts == {"a": 1}


def test_remarks_of_earlier_code_under_the_name_of_a_decision_are_remarks():
    assert isinstance(decision_trace("transfer", {"a": 1}), Remark)
    with pytest.raises(TraceError):
        decision_trace("transfer", {"a": 1, VERSION_KEY: VERSION})


@pytest.mark.parametrize(
    ("kind", "facts"),
    [("transfer", {}), ("x", {1: 2}), ("x", {"a": {2: 3}}), ("x", {"a": object()}),
     ("x", {VERSION_KEY: 9}), (" ", {})],
)  # fmt: skip
def test_a_remark_that_could_not_be_read_again_is_not_written(kind, facts):
    tuner = make()
    play(tuner, 1)
    before = len(tuner.journal.read("default"))
    with pytest.raises(hz.ConfigError, match="remark"):
        tuner.study.note(kind, "why", facts)
    assert len(tuner.journal.read("default")) == before


@pytest.mark.parametrize(
    "damage",
    [
        {"hyperparameters": {"foo": 1}},
        {"hyperparameters": KERNEL | {"constant": [0.0]}},
        {"hyperparameters": KERNEL | {"lengthscale": [[0.5], [0.5, 0.5]]}},
        {"hyperparameters": KERNEL | {"outputscale": [float("nan")] * 2}},
        {"leaders": [999]},
        {"proposed": [-1]},
        {"drift": {"next": 1, "detector": [[0.1]], "num_rounds": [1, 1], "memory": {}}},
        {"drift": {"next": 1, "detector": [], "num_rounds": [1, 1], "memory": {}}},
        {"nonsense": 1},
        {VERSION_KEY: VERSION + 1},
    ],
)
def test_a_damaged_trace_is_one_error_and_the_study_stays(damage):
    """In a journal when it is opened, in a state before anything is replaced."""
    tuner = make()
    play(tuner, 2)
    header, entries = tuner.journal.header("default"), tuner.journal.read("default")
    at = max(i for i, e in enumerate(entries) if isinstance(e, Planned))
    plan = entries[at]
    entries[at] = Planned(
        plan.round, plan.candidates, plan.slots, plan.shares, None, plan.details | damage
    )
    journal = MemoryJournal()
    journal.create(StudyHeader("default", header.seed, header.problem), entries)
    with pytest.raises(hz.JournalError, match=f"entry {at + 1}"):
        hz.Tuner.resume(journal, problem=tuner.problem)
    state = tuner.state_dict()
    packed = [i for i, e in enumerate(state["entries"]) if e["entry"] == "planned"][-1]
    details = json.loads(state["entries"][packed]["details"]) | damage
    state["entries"][packed]["details"] = json.dumps(details)
    other = make()
    play(other, 1)
    with pytest.raises(hz.ConfigError, match="the state"):
        other.load_state_dict(state)
    assert other.history.last_round == 0
    other.ask()


@pytest.mark.parametrize(
    ("kind", "facts"),
    [("drift", {"metrics": [7], "before": 1, "factor": 0.5}),
     ("rolled back", {"to_round": 77, "rounds": [], "candidates": []}),
     ("source", {"source": {"name": "x"}, "fingerprint": "y"}),
     ("overruled", {"pin": {}, "forbid": [], "discount": None})],
)  # fmt: skip
def test_a_state_with_a_damaged_decision_replaces_nothing(kind, facts):
    tuner = make()
    play(tuner, 2)
    entry = Decision(1, kind, "why", facts)
    state = pack(tuner.journal.header("default"), [*tuner.journal.read("default"), entry])
    other = make()
    play(other, 1)
    with pytest.raises(hz.ConfigError, match="the state is damaged"):
        other.load_state_dict(state)
    assert other.history.last_round == 0
    torch.testing.assert_close(other.ask().theta[0], other.problem.base_theta)
