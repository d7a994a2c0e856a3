"""Simulated studies in which everything goes wrong: no invariant breaks, and planted bugs do."""

import importlib
import itertools
import json
from dataclasses import replace
from unittest import mock

import pytest

from bench.reliability import simulate as command
from bench.reliability.simulation import run
from bench.reliability.simulation.faults import HORIZON, KINDS, Fault, schedule, setting
from bench.reliability.simulation.invariants import INVARIANTS
from hyperzero_torch.live.serve.updater import TableUpdater
from hyperzero_torch.study.journal import MemoryJournal, Planned, ReadingsReceived
from hyperzero_torch.tuner import tuner as tuner_module

HZ = "hyperzero_torch"
SEEDS = range(200)


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, 25))
def test_no_invariant_breaks(first):
    for seed in range(first, first + 25):
        assert run.simulate(seed).violation is None, f"seed {seed}"


def test_a_seed_gives_the_same_study_every_time():
    for seed in (3, 19, 39):
        assert run.simulate(seed) == run.simulate(seed)


def test_the_first_death_of_ten_thousand_seeds_is_at_every_call():
    first = {next(f.at for f in schedule(s) if "death before" in f.kind and f.size == 0.5)
             for s in range(HORIZON)}  # fmt: skip
    assert first == set(range(HORIZON))
    drawn = {f.kind for s in range(60) for f in schedule(s)}
    assert set(KINDS) <= drawn
    assert {setting(s).loops for s in range(60)} == {1, 2, 3}
    assert any(setting(s).is_sql for s in range(60))


def twice(append):
    def appends(self, study, entries, after):
        number = append(self, study, entries, after)
        again = [e for e in entries if isinstance(e, ReadingsReceived)]
        return append(self, study, again, number) if again else number

    return appends


def nothing(*_):
    return None


def many(_):
    return 99


def without_conflicts(append):
    return lambda self, study, entries, after: append(self, study, entries, len(self.read(study)))


def more_shares(allocate):
    def allocated(*args):
        planned = allocate(*args)
        return planned._replace(shares=tuple(s * (1 + 1e-9) for s in planned.shares))

    return allocated


def other_plans(plan_round):
    """Plans depend on how many this process has made before."""
    calls = itertools.count()

    def plan(*args):
        notes = {"notes": [f"plan {next(calls)} of this process"]}
        return [
            replace(e, details={**e.details, **notes}) if isinstance(e, Planned) else e
            for e in plan_round(*args)
        ]

    return plan


def unchained(next_link):
    """Links of entries do not depend on the links before them."""
    return lambda _previous, leaf, ring: next_link("", leaf, ring)


def unlimited(limits):
    def no_limits(*args):
        drawn = limits(*args)
        return drawn._replace(each=drawn.each.clamp_min(1.0), groups=(), most=None)

    return no_limits


def original(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"{HZ}.{module}"), name)


def patch(name, value):
    return mock.patch(f"{HZ}.{name}", value)


#: A bug by the invariant that it breaks.
BUGS = {
    "every reading once": lambda: mock.patch.object(
        MemoryJournal, "append", twice(MemoryJournal.append)
    ),
    "one plan a round": lambda: mock.patch.object(
        MemoryJournal, "append", without_conflicts(MemoryJournal.append)
    ),
    "shares sum to 1": lambda: patch(
        "tuner.round.allocate", more_shares(original("tuner.round.allocate"))
    ),
    "no stopped arm is served": lambda: patch("live.loop.why_control_alone", nothing),
    "no cap is exceeded": lambda: patch(
        "tuner.allocation.limits", unlimited(original("tuner.allocation.limits"))
    ),
    "the control when in doubt": lambda: mock.patch.object(TableUpdater, "withdraw", nothing),
    "a lease is never outlived": lambda: patch("live.serve.updater.why_not_in_force", nothing),
    "no older plan after a newer one": lambda: patch("live.serve.stored.check_apply", nothing),
    "the resumed plan is the uninterrupted one": lambda: mock.patch.object(
        tuner_module, "plan_round", other_plans(tuner_module.plan_round)
    ),
    "the chain verifies": lambda: patch(
        "study.journal.memory.next_link", unchained(original("study.journal.memory.next_link"))
    ),
    "the study goes on": lambda: patch("live.retry.Component._num_running", many),
}


# Where a bug is found late, the search begins shortly before the first seed that finds it.
FIRST = {
    "one plan a round": 40,
    "no stopped arm is served": 20,
    "no older plan after a newer one": 85,
}


@pytest.mark.parametrize("invariant", BUGS)
def test_a_planted_bug_is_found(invariant):
    with BUGS[invariant]():
        first = FIRST.get(invariant, 0)
        violations = (run.simulate(seed).violation for seed in range(first, first + 100))
        assert any(v is not None and v[0] == invariant for v in violations)


def test_there_is_a_bug_for_each_invariant():
    assert set(BUGS) == set(INVARIANTS)


def test_a_failing_seed_is_kept_with_the_faults_that_it_takes(tmp_path, monkeypatch, capsys):
    """Leases that never end: it takes something that keeps the loops from the next round."""
    with BUGS["a lease is never outlived"]():
        seed = next(s for s in range(200) if run.simulate(s).violation)
        outcome = run.simulate(seed)
        record = command.kept(outcome)
        faults = [Fault(**fault) for fault in record["faults"]]
        assert run.simulate(seed, faults).violation[0] == outcome.violation[0]
        assert len(faults) < len(schedule(seed)) / 4
        for i in range(len(faults)):  # none of them can be left out
            rest = run.simulate(seed, faults[:i] + faults[i + 1 :]).violation
            assert rest is None or rest[0] != outcome.violation[0]
        path = tmp_path / "failures.jsonl"
        path.write_text(json.dumps(record) + "\n")
        assert command.replay(path) == 1
    assert command.replay(path) == 0
    assert "holds now" in capsys.readouterr().out


def test_the_table_names_every_kind_of_fault(tmp_path):
    path = tmp_path / "simulate.jsonl"
    lines = [command.chunk(first, 3) for first in (0, 3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = command.table(path)
    happened = [item for line in lines for item in line["faults"].items()]
    total = sum(number for name, number in happened if not name.startswith("operator"))
    assert f"| all faults, without what the operator does | {total:,} |" in table
    assert all(f"| {name} |" in table for name, _ in happened)
    assert "6 seeds" in table
    assert "0 violations" in table
