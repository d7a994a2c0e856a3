"""The log is the truth: a study that was killed anywhere goes on as if it had not been.

Everything here is bit for bit: plans are compared with ``Plan.__eq__``, whose shares and parameters
are floats, and evidence by its bytes.
"""

import copy
import dataclasses
import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate.paper import PaperWorld
from hyperzero_torch.simulate.run import run
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    MemoryJournal,
    Planned,
    ReadingsReceived,
)
from hyperzero_torch.study.journal.base import ConflictError
from hyperzero_torch.study.journal.sql import SqlJournal

# The counts of these tests do not follow the shares of their plans, of which ``ask`` warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:round .*ample ratio mismatch:hyperzero_torch.TunerWarning"
)

ROUNDS = 8
SMALL = {"num_draws": 64, "num_samples": 128, "initial_candidates": 12, "max_arms": 20}
CONFIGS = {
    "default": hz.TunerConfig(num_proposals=2, **SMALL),
    "paper": hz.TunerConfig.paper(**SMALL),
}
NOISY = {"seed": 0, "slots": 100, "draws_per_slot": 20}


def deliveries(world, plans, round_):
    """What is due when ``round_`` begins, of the rounds before it."""
    due = defaultdict(list)
    for plan in plans[:round_]:
        for delivery in world.serve(plan):
            due[max(delivery.due, plan.round + 1)].append(delivery.readings)
    return due[round_]


def url(path):
    return f"sqlite:///{path}"


def bits(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    return tuple(map(bits, value)) if isinstance(value, tuple) else value


def evidence(tuner):
    return [bits(gather(tuner.history, Pooling(weights, 24))) for weights in ("users", "precision")]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """How sums are split over threads is part of the bits; and small sums are faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    return PaperWorld(**NOISY)


@pytest.fixture(scope="module", params=CONFIGS)
def study(request, world, tmp_path_factory):
    """An uninterrupted study, and copies of its journal after every ask and every tell."""
    folder = tmp_path_factory.mktemp(request.param)
    tuner = hz.Tuner(world.problem, CONFIGS[request.param], url(folder / "whole.db"), seed=11)
    plans, cuts = [], []
    for round_ in range(ROUNDS):
        messages = deliveries(world, plans, round_)
        if messages:
            tuner.tell(messages)
            cuts.append((round_, f"told-{round_}.db"))
            shutil.copy(folder / "whole.db", folder / cuts[-1][1])
        plans.append(tuner.ask(round_))
        cuts.append((round_ + 1, f"asked-{round_}.db"))
        shutil.copy(folder / "whole.db", folder / cuts[-1][1])
    assert tuner.surrogate() is not None
    yield SimpleNamespace(
        name=request.param,
        folder=folder,
        config=CONFIGS[request.param],
        plans=plans,
        cuts=cuts,
        evidence=evidence(tuner),
        entries=tuner.journal.read("default"),
        state=tuner.state_dict(),
        best=tuner.recommend(),
    )
    tuner.journal.close()


def go_on(tuner, world, plans, first, between=lambda tuner: None, last=ROUNDS):
    """Continue after round ``first - 1``; the world serves the old plans again."""
    plans = list(plans[:first])
    for round_ in range(first, last):
        between(tuner)
        messages = deliveries(world, plans, round_)
        if messages:
            tuner.tell(messages)
        between(tuner)
        plans.append(tuner.ask(round_))
    return plans


def test_the_study_is_worth_resuming(study):
    """Or else all that follows would compare empty things."""
    kinds = [type(entry) for entry in study.entries]
    assert kinds.count(Planned) == ROUNDS
    assert kinds.count(ReadingsReceived) >= 3
    planned = [e for e in study.entries if isinstance(e, Planned)]
    assert sum("hyperparameters" in plan.details for plan in planned) >= 3
    assert len({p.candidate_ids for p in study.plans}) > 3
    assert len({p.shares for p in study.plans}) > 3
    assert len(study.cuts) > ROUNDS + 2


def test_a_study_cut_anywhere_goes_on_bit_for_bit(study, world, tmp_path):
    """To the end from the first cuts; from the others to the next cuts, whose end is known."""
    for i, (first, name) in enumerate(study.cuts):
        last = ROUNDS if i in (2, 7) else min(first + 2, ROUNDS)
        path = tmp_path / name
        shutil.copy(study.folder / name, path)
        tuner = hz.Tuner.resume(url(path), problem=world.problem)
        assert tuner.seed == 11
        assert tuner.config == study.config
        plans = go_on(tuner, world, study.plans, first, last=last)
        assert plans == study.plans[:last], name
        entries = tuner.journal.read("default")
        assert entries == study.entries[: len(entries)]
        if last == ROUNDS:
            assert entries == study.entries
            assert evidence(tuner) == study.evidence
        tuner.journal.close()


def test_a_new_process_for_every_call_plans_the_same(study, world, tmp_path):
    """As a cron job does it: nothing is ever kept in memory."""

    def fresh():
        return hz.Tuner(world.problem, study.config, url(tmp_path / "cron.db"), seed=11)

    plans = []
    for round_ in range(ROUNDS):
        for message in deliveries(world, plans, round_):  # one by one
            tuner = fresh()
            tuner.tell(message)
            tuner.journal.close()
        tuner = fresh()
        plans.append(tuner.ask(round_))
        tuner.journal.close()
    tuner = fresh()
    assert plans == study.plans
    assert evidence(tuner) == study.evidence
    tuner.journal.close()


@pytest.mark.filterwarnings("ignore:.*the control has none of:hyperzero_torch.TunerWarning")
@pytest.mark.filterwarnings("ignore:.*no readings have arrived")
def test_rounds_without_news_are_resumed_as_well(study, world, tmp_path):
    """One process has its last fit still at hand, the others make it again from the journal."""
    one = hz.Tuner.resume(copied(study, tmp_path, "asked-5.db"), problem=world.problem)
    plans = [one.ask() for _ in range(4)]
    entries = one.journal.read("default")  # with the hyperparameters of every fit
    one.journal.close()
    journal = copied(study, tmp_path, "asked-5.db")
    for plan in plans:
        fresh = hz.Tuner.resume(journal, problem=world.problem)
        assert fresh.ask() == plan
        fresh.journal.close()
    fresh = hz.Tuner.resume(journal, problem=world.problem)
    assert fresh.journal.read("default") == entries
    fresh.journal.close()


def test_looking_changes_nothing(study, world):
    """Whoever looks at recommendations in between gets the same plans as who does not."""

    def look(tuner):
        if tuner.history.last_round is None:
            return
        tuner.recommend()
        tuner.recommend("mean")
        tuner.bucket()
        tuner.state_dict()
        assert tuner.ask(tuner.history.last_round).round == tuner.history.last_round
        if tuner.bucket().tested.any():
            theta = world.problem.space.from_unit(torch.rand(5, 2, dtype=torch.float64))
            tuner.posterior(theta)
            tuner.surrogate().paths(2, torch.Generator().manual_seed(0))
        torch.manual_seed(random.randrange(1000))

    tuner = hz.Tuner(world.problem, study.config, seed=11)
    assert go_on(tuner, world, [], 0, look) == study.plans
    assert evidence(tuner) == study.evidence
    assert tuner.journal.read("default") == study.entries
    assert tuner.recommend() == study.best


def test_resumed_recommendations_are_the_same(study, world):
    tuner = hz.Tuner.resume(url(study.folder / "whole.db"), problem=world.problem)
    assert tuner.recommend() == study.best
    assert tuner.recommend() == tuner.recommend()
    tuner.journal.close()


# --- killed -----------------------------------------------------------------------------------

SERVER = """
import os, sys
import hyperzero_torch as hz
from hyperzero_torch.simulate.paper import PaperWorld

path, rounds, seed, slots, draws = sys.argv[1:]
world = PaperWorld(int(seed), int(slots), float(draws))
config = hz.TunerConfig(num_draws=64, num_samples=128, num_proposals=2, initial_candidates=12,
                        max_arms=20, num_starts=0, verification_share=0.0)

def study(journal):
    tuner = hz.Tuner(world.problem, config, journal, seed=11)
    first = tuner.history.last_round
    mail = {}
    for i in range(int(rounds)):
        for message in mail.pop(i, []):
            tuner.tell(message)
        plan = tuner.ask(i)
        if journal and (first is None or i > first):
            print("round", i, flush=True)
        for delivery in world.serve(plan):
            mail.setdefault(max(delivery.due, i + 1), []).append(delivery.readings)

rounds, until = 5, rounds
study(None)  # what torch imports when it first computes, it need not import after every kill
rounds = until
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            study(f"sqlite:///{path}")
            code = 0
        finally:
            os._exit(code)
    print("pid", pid, flush=True)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture
def server(tmp_path):
    """A process that forks one for each run of the study: it imports torch only once."""
    numbers = [str(v) for v in (KILLED_ROUNDS, *NOISY.values())]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "killed.db"), *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    yield process
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


KILLED_ROUNDS, KILLS = 13, 8


def run_and_kill(server, rounds, delay, path):
    """Start the study, kill it ``delay`` seconds after it planned ``rounds`` more rounds, and
    return its exit code; with ``rounds`` None it is killed as soon as there is a file.
    """
    server.stdin.write("go\n")
    server.stdin.flush()
    pid = planned = 0
    alive = True
    while True:
        if alive and pid and rounds is None:
            while not path.exists():
                time.sleep(0.0001)
        if alive and pid and (rounds is None or planned >= rounds):
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            alive = False
        word, number = server.stdout.readline().split()
        if word == "exit":
            return int(number)
        pid = int(number) if word == "pid" else pid
        planned += word == "round"


def test_a_study_that_is_killed_again_and_again(world, tmp_path, server):
    """SIGKILL at random instants, the first of them while the journal is made."""
    path = tmp_path / "killed.db"
    generator = random.Random(5)
    lengths = []
    for kill in range(KILLS):
        rounds = None if kill == 0 else generator.choice([0, 1, 1, 2])
        code = run_and_kill(server, rounds, generator.uniform(0.0, 0.05) * (kill > 0), path)
        assert code == -signal.SIGKILL
        journal = SqlJournal(url(path))
        lengths.append(len(journal.read("default")) if journal.studies() else 0)
        journal.close()
    assert lengths == sorted(lengths), "entries were lost"
    assert len(set(lengths)) > 3, f"the kills hit the same place: {lengths}"
    assert run_and_kill(server, KILLED_ROUNDS + 1, 0, path) == 0

    # As in SERVER: the shorter a round, the more kills hit the journal.
    quick = CONFIGS["default"].model_copy(update={"num_starts": 0, "verification_share": 0.0})
    whole = hz.Tuner(world.problem, quick, seed=11)
    for _ in run(whole, world, KILLED_ROUNDS):
        pass
    killed = hz.Tuner.resume(url(path), problem=world.problem)
    rounds = range(KILLED_ROUNDS)
    assert [killed.ask(i) for i in rounds] == [whole.ask(i) for i in rounds]
    assert evidence(killed) == evidence(whole)
    assert killed.ask() == whole.ask()
    received = [
        [
            row
            for e in tuner.journal.read("default")
            if isinstance(e, ReadingsReceived)
            for row in zip(*vars(e).values())
        ]
        for tuner in (killed, whole)
    ]
    assert len(received[0]) == len(set(received[0])), "a reading was recorded twice"
    assert set(received[0]) == set(received[1]), "a reading was lost"
    killed.journal.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert os.listdir(tmp_path) == ["killed.db"]


class _Stop(BaseException):
    """Not caught by anybody, as little as a kill."""


def test_a_death_between_thinking_and_writing(study, world, tmp_path, monkeypatch):
    """The process dies before, or right after, each append: nothing is half there."""
    path = tmp_path / "dying.db"
    real = SqlJournal.append
    generator = random.Random(2)

    def dying(self, name, entries, after):
        how = generator.choice(["before", "after", "live", "live"])
        if how == "before":
            raise _Stop
        last = real(self, name, entries, after)
        if how == "after":
            raise _Stop
        return last

    monkeypatch.setattr(SqlJournal, "append", dying)
    deaths = 0
    plans = []
    while len(plans) < ROUNDS:
        try:
            tuner = hz.Tuner(world.problem, study.config, url(path), seed=11)
            plans = [tuner.ask(i) for i in range((tuner.history.last_round or -1) + 1)]
            plans = go_on(tuner, world, plans, len(plans))
        except _Stop:
            deaths += 1
    assert deaths > 3
    assert plans == study.plans
    assert evidence(tuner) == study.evidence
    tuner.journal.close()


# --- state_dict -------------------------------------------------------------------------------


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_saved_state_goes_on_in_a_fresh_tuner(study, world, tmp_path):
    whole = hz.Tuner.resume(copied(study, tmp_path), problem=world.problem)
    expected = whole.ask()
    state = through_a_file(study.state)
    for journal in (None, url(tmp_path / "fresh.db")):
        fresh = hz.Tuner(world.problem, journal=journal, study="elsewhere", seed=11)
        fresh.load_state_dict(state)
        assert fresh.seed == 11
        assert fresh.config == study.config
        assert fresh.ask() == expected
        assert [fresh.ask(i) for i in range(ROUNDS)] == study.plans
        assert evidence(fresh) == evidence(whole)
        fresh.journal.close()
    again = hz.Tuner.resume(url(tmp_path / "fresh.db"), "elsewhere", problem=world.problem)
    assert again.ask(ROUNDS) == expected
    again.journal.close()
    whole.journal.close()


def copied(study, tmp_path, name="whole.db"):
    shutil.copy(study.folder / name, tmp_path / name)
    return url(tmp_path / name)


def test_a_state_in_memory_replaces_all_that_was_there(study, world):
    tuner = hz.Tuner(world.problem, hz.TunerConfig(num_draws=3, initial_candidates=2), seed=99)
    tuner.ask()
    tuner.ask()
    tuner.load_state_dict(study.state)
    assert tuner.seed == 11
    assert [tuner.ask(i) for i in range(ROUNDS)] == study.plans
    assert tuner.journal.read("default") == study.entries


def test_a_state_is_a_snapshot(study, world):
    tuner = hz.Tuner(world.problem)
    tuner.load_state_dict(study.state)
    state = tuner.state_dict()
    frozen = copy.deepcopy(state)
    tuner.ask()
    assert len(state["entries"]) == len(frozen["entries"]) == len(study.entries)
    assert len(tuner.state_dict()["entries"]) > len(study.entries)


def test_a_persistent_journal_with_plans_takes_no_state(study, world, tmp_path):
    journal = copied(study, tmp_path, "asked-0.db")
    tuner = hz.Tuner.resume(journal, problem=world.problem)
    before = tuner.journal.read("default")
    with pytest.raises(hz.StudyMismatchError, match=r"planned rounds up to 0; load .* new study"):
        tuner.load_state_dict(study.state)
    assert tuner.journal.read("default") == before
    assert tuner.ask(1) == study.plans[1]
    other = hz.Tuner(world.problem, journal=tuner.journal, study="other", seed=12)
    with pytest.raises(hz.StudyMismatchError, match="has seed 12"):
        other.load_state_dict(study.state)
    assert [type(e) for e in tuner.journal.read("other")] == [Configured]
    tuner.journal.close()


def test_a_state_of_another_problem_is_refused(study, world):
    problem = hz.Problem(
        hz.SearchSpace([hz.Float("a", 0, 1)]), {"a": 0.5}, ["x1", "x2"], "x1", ["x2 >= 0"]
    )
    tuner = hz.Tuner(problem)
    with pytest.raises(hz.StudyMismatchError, match="another problem"):
        tuner.load_state_dict(study.state)
    assert tuner.history.num_entries == 1


def entry_of(state, kind):
    return next(e for e in state["entries"] if e["entry"] == kind)


def damage(kind, name, value):
    def change(state):
        entry = entry_of(state, kind)
        entry[name] = value(entry[name]) if callable(value) else value
        return state

    return change


DAMAGES = {
    "nothing": lambda state: None,
    "a list": lambda state: [state],
    "empty": lambda state: {},
    "another format": lambda state: state | {"format": 2},
    "a module's": lambda state: torch.nn.Linear(1, 1).state_dict(),
    "without entries": lambda state: {k: v for k, v in state.items() if k != "entries"},
    "entries are none": lambda state: state | {"entries": None},
    "no entry": lambda state: state | {"entries": []},
    "entries of lists": lambda state: state | {"entries": [[1], [2]]},
    "without a seed": lambda state: {k: v for k, v in state.items() if k != "seed"},
    "a seed of text": lambda state: state | {"seed": "x"},
    "an infinite seed": lambda state: state | {"seed": float("inf")},
    "a problem of text": lambda state: state | {"problem": "views"},
    "a problem of numbers": lambda state: state | {"problem": "[1]"},
    "an entry lost": lambda state: state | {"entries": state["entries"][:3] + state["entries"][4:]},
    "an entry twice": lambda state: state | {"entries": state["entries"] + state["entries"][-2:]},
    "out of order": lambda state: state | {"entries": state["entries"][::-1]},
    "another kind": damage("born", "entry", "planned"),
    "an unknown kind": damage("born", "entry", "bored"),
    "theta of text": damage("born", "theta", "ab"),
    "theta of NaN": damage("born", "theta", lambda v: v * torch.nan),
    "theta too short": damage("born", "theta", lambda v: v[:1]),
    "theta of no axis": damage("born", "theta", torch.tensor(1.0)),
    "parameters cut": damage("born", "parameters", lambda v: v[:-1]),
    "parameters of a list": damage("born", "parameters", "[]"),
    "shares cut": damage("planned", "shares", lambda v: v[:-1]),
    "slots of floats": damage("planned", "slots", lambda v: v.double()),
    "a trigger of numbers": damage("planned", "trigger", 7),
    "means cut": damage("received", "mean", lambda v: v[:-1]),
    "means of two axes": damage("received", "mean", lambda v: v.unsqueeze(0)),
    "means of NaN": damage("received", "mean", lambda v: v * torch.nan),
    "counts negative": damage("received", "count", lambda v: -v),
    "an unknown arm": damage("received", "candidate", lambda v: v + 1000),
    "an unknown metric": damage("received", "metric", lambda v: v - 1),
    "config of text": damage("configured", "config", "text"),
    "config that cannot be": damage("configured", "config", '{"num_draws": -1}'),
    "config of another version": damage("configured", "config", '{"num_dreams": 5}'),
}


@pytest.mark.parametrize("study", ["default"], indirect=True)
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_state_is_refused_and_changes_nothing(study, world, tmp_path, kind):
    state = DAMAGES[kind](copy.deepcopy(study.state))
    for journal in (None, url(tmp_path / "fresh.db")):
        tuner = hz.Tuner(world.problem, journal=journal, seed=11)
        with pytest.raises(hz.ConfigError):
            tuner.load_state_dict(state)
        assert [type(e) for e in tuner.journal.read("default")] == [Configured]
        assert tuner.ask().round == 0
        tuner.journal.close()


# --- several on one journal -------------------------------------------------------------------


def test_two_tuners_on_one_journal_have_one_plan_a_round(study, world, tmp_path):
    path = tmp_path / "shared.db"
    one, two = (hz.Tuner(world.problem, study.config, url(path), seed=11) for _ in range(2))
    plans = []
    for round_ in range(ROUNDS):
        messages = deliveries(world, plans, round_)
        for tuner in (one, two):  # both platforms deliver everything
            tuner.tell(messages)
        askers = (one, two) if round_ % 2 else (two, one)
        first, second = (tuner.ask(round_) for tuner in askers)
        assert first == second
        plans.append(first)
    assert plans == study.plans
    assert evidence(one) == evidence(two) == study.evidence
    assert one.ask() == two.ask(ROUNDS)
    planned = [e.round for e in one.journal.read("default") if isinstance(e, Planned)]
    assert planned == list(range(ROUNDS + 1))
    one.journal.close()
    two.journal.close()


def test_threads_that_ask_at_once_get_one_plan(study, world, tmp_path):
    """The loser of the race has thought in vain, and serves the winner's plan."""
    path = tmp_path / "shared.db"

    def ask(round_):
        tuner = hz.Tuner(world.problem, study.config, url(path), seed=11)
        try:
            return tuner.ask(round_)
        finally:
            tuner.journal.close()

    with ThreadPoolExecutor(4) as pool:
        for round_ in (0, 1):
            assert list(pool.map(ask, [round_] * 4)) == [study.plans[round_]] * 4
    tuner = hz.Tuner.resume(url(path), problem=world.problem)
    planned = [e.round for e in tuner.journal.read("default") if isinstance(e, Planned)]
    assert planned == [0, 1]
    births = [e for e in study.entries if isinstance(e, CandidateAdded) and e.round == 0]
    assert tuner.history.candidates == births
    tuner.journal.close()


def test_whoever_loses_the_race_thinks_again(world):
    """Readings that another process told while this one was thinking are in the plan."""

    class Racing(MemoryJournal):
        meanwhile = None

        def append(self, study, entries, after):
            if self.meanwhile is not None:
                act, self.meanwhile = self.meanwhile, None
                act()
            return super().append(study, entries, after)

    def three_rounds(journal):
        tuner = hz.Tuner(world.problem, CONFIGS["default"], journal, seed=11)
        return tuner, [tuner.ask() for _ in range(3)]

    journal = Racing()
    one, plans = three_rounds(journal)
    two = hz.Tuner(world.problem, journal=journal)
    message = world.serve(plans[0])[0].readings
    journal.meanwhile = lambda: two.tell(message)
    raced = one.ask()
    alone, _ = three_rounds(None)
    alone.tell(message)
    assert raced == alone.ask()
    assert one.journal.read("default") == alone.journal.read("default")
    # Both tell the same message at once: it is recorded once.
    message = world.serve(plans[1])[0].readings
    journal.meanwhile = lambda: two.tell(message)
    assert one.tell(message) == 0
    # Both plan the same round at once: it is planned once.
    journal.meanwhile = lambda: two.ask(7)
    assert one.ask(7) == two.ask(7)
    assert [e.round for e in journal.read("default") if isinstance(e, Planned)] == [0, 1, 2, 3, 7]


def test_a_race_that_never_ends_is_an_error(world):
    class Busy(MemoryJournal):
        def append(self, study, entries, after):
            super().append(study, [Decision(0, "other", "always faster")], after)
            return super().append(study, entries, after)

    tuner = hz.Tuner(world.problem, CONFIGS["default"], Busy())
    with pytest.raises(ConflictError, match="too many writers share it"):
        tuner.ask()
    assert tuner.history.plans == {}


# --- opening ----------------------------------------------------------------------------------


def test_resuming_what_is_not_there(world, tmp_path):
    with pytest.raises(hz.StudyNotFoundError, match="there is no journal"):
        hz.Tuner.resume(url(tmp_path / "a.db"), "feed", problem=world.problem)
    assert not (tmp_path / "a.db").exists()
    tuner = hz.Tuner(world.problem, CONFIGS["default"], url(tmp_path / "a.db"), "feed")
    tuner.ask()
    with pytest.raises(hz.StudyNotFoundError, match=r"no study 'food'; it holds \['feed'\]"):
        hz.Tuner.resume(url(tmp_path / "a.db"), "food", problem=world.problem)
    assert tuner.journal.studies() == ["feed"]
    tuner.journal.close()
    with pytest.raises(hz.StudyNotFoundError, match="there is no journal"):
        hz.Tuner.resume(url(tmp_path / "no" / "a.db"), "feed", problem=world.problem)
    with pytest.raises(hz.JournalError, match="create it first"):
        hz.Tuner(world.problem, CONFIGS["default"], url(tmp_path / "no" / "a.db"), "feed")


CHANGES = {
    "seed": {"seed": 12},
    "objective": {"problem": {"objective": "0.3 * level(x1) + 1.165 * level(x2)"}},
    "constraints": {"problem": {"constraints": []}},
    "metrics": {"problem": {"metrics": ["x2", "x1"]}},
    "base": {"problem": {"base": {"theta_1": 0.5, "theta_2": 0.5}}},
    "parameters": {
        "problem": {
            "space": hz.SearchSpace([hz.Float("theta_1", 0.0, 1.0), hz.Float("theta_2", 0.0, 2.0)])
        }
    },
}


@pytest.mark.parametrize("study", ["default"], indirect=True)
@pytest.mark.parametrize("kind", CHANGES)
def test_another_problem_or_seed_is_refused_and_nothing_is_written(study, world, tmp_path, kind):
    changes = dict(CHANGES[kind])
    given = {
        "space": world.problem.space,
        "base": {"theta_1": 0.011, "theta_2": 0.985},
        "metrics": ["x1", "x2"],
        "objective": "0.296 * level(x1) + 1.165 * level(x2)",
        "constraints": ["0.149 * level(x1) + 0.703 * level(x2) >= 0.6036"],
        "base_levels": world.problem.base_levels,
    }
    same, other = hz.Problem(**given), hz.Problem(**(given | changes.pop("problem", {})))
    journal = copied(study, tmp_path)
    hz.Tuner(same, journal=journal, seed=11).journal.close()  # built anew, it is the same problem
    before = (tmp_path / "whole.db").read_bytes()
    with pytest.raises(hz.StudyMismatchError, match="seed" if kind == "seed" else kind):
        hz.Tuner(other, hz.TunerConfig(num_draws=7), journal, **changes)
    if kind != "seed":
        with pytest.raises(hz.StudyMismatchError, match=kind):
            hz.Tuner.resume(journal, problem=other, config=hz.TunerConfig(num_draws=7))
    assert (tmp_path / "whole.db").read_bytes() == before


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, 2**63, [1]])
def test_a_seed_that_is_none(world, tmp_path, seed):
    with pytest.raises(hz.ConfigError, match="a seed is a whole number >= 0"):
        hz.Tuner(world.problem, journal=url(tmp_path / "a.db"), seed=seed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", 5, None, b"feed"])
def test_a_study_without_a_name(world, tmp_path, name):
    with pytest.raises(hz.ConfigError, match="a study is named by"):
        hz.Tuner(world.problem, journal=url(tmp_path / "a.db"), study=name)
    assert list(tmp_path.iterdir()) == []


def test_seeds_make_different_studies(world):
    def first_plan(seed):
        return hz.Tuner(world.problem, CONFIGS["default"], seed=seed).ask()

    assert first_plan(0) == first_plan(None) == first_plan(np.int64(0))
    assert first_plan(0) != first_plan(1)
    assert first_plan(1) != first_plan(2**63 - 1)


def test_a_new_configuration_is_journaled_and_holds_from_then_on(study, world, tmp_path):
    journal = copied(study, tmp_path, "asked-5.db")
    old = hz.Tuner.resume(journal, problem=world.problem)
    num = old.history.num_entries
    same = hz.Tuner.resume(journal, problem=world.problem, config=study.config)
    assert same.history.num_entries == num, "the same configuration is no news"
    limits = ("max_untested_share", "max_untested_total", "max_risky_total", "max_risk")
    update = {"num_draws": 33, "control_share": 0.25, "max_arms": 4} | dict.fromkeys(limits, 1.0)
    config = study.config.model_copy(update=update)
    new = hz.Tuner.resume(journal, problem=world.problem, config=config)
    assert new.journal.read("default", after=num) == [Configured(config.model_dump(mode="json"))]
    assert new.config == config
    plan = new.ask(6)
    assert plan.control_share == 0.25
    assert len(plan) == 5
    assert plan != study.plans[6]
    assert new.ask(5) == study.plans[5], "what is planned stays"
    # Who was there before learns of it when it next reads, and a third needs not be told.
    third = hz.Tuner.resume(journal, problem=world.problem)
    assert third.config == config
    assert old.ask(7) == third.ask(7)
    assert old.config == config
    assert old.ask(7).control_share == 0.25
    back = hz.Tuner.resume(journal, problem=world.problem, config=study.config)
    assert back.config == study.config
    for tuner in (old, same, new, third, back):
        tuner.journal.close()


# --- ask --------------------------------------------------------------------------------------


@pytest.fixture
def fresh(world):
    return hz.Tuner(world.problem, CONFIGS["default"], seed=11)


def test_a_planned_round_keeps_its_plan(fresh, world):
    plans = [fresh.ask() for _ in range(3)]
    assert [plan.round for plan in plans] == [0, 1, 2]
    num = fresh.history.num_entries
    assert [fresh.ask(i) for i in (2, 0, 1, 0)] == [plans[i] for i in (2, 0, 1, 0)]
    assert fresh.history.num_entries == num
    fresh.tell(deliveries_now(world, plans))
    assert [fresh.ask(i) for i in range(3)] == plans


def deliveries_now(world, plans):
    return [delivery.readings for plan in plans for delivery in world.serve(plan)]


def test_rounds_may_be_skipped_but_not_planned_afterwards(fresh):
    plan = fresh.ask(5)
    assert plan.round == 5
    assert fresh.ask().round == 6
    far = fresh.ask(2**53 - 1)
    assert far.round == 2**53 - 1
    num = fresh.history.num_entries
    for missed in (0, 4, 7, 2**53 - 2):
        with pytest.raises(hz.RoundError, match=f"round {missed} was never planned and lies"):
            fresh.ask(missed)
    assert fresh.ask(5) == plan
    assert fresh.history.num_entries == num


def test_the_first_round_is_zero_or_whatever_is_asked_for(world, fresh):
    assert fresh.ask().round == 0
    late = hz.Tuner(world.problem, CONFIGS["default"], seed=11)
    assert late.ask(np.int64(3)).round == 3
    assert type(late.ask(3).round) is int
    assert late.ask(3).candidate_ids == fresh.ask(0).candidate_ids


@pytest.mark.parametrize("wrong", [-1, 1.0, "1", True, [0], 2**53, 2**70, float("nan"), object()])
def test_what_is_no_round_is_refused(fresh, wrong):
    with pytest.raises(hz.RoundError, match="a round is a whole number >= 0, got") as caught:
        fresh.ask(wrong)
    assert isinstance(caught.value, ValueError)
    assert fresh.history.num_entries == 1


def test_a_trigger_finds_its_plan_again(world, tmp_path):
    journal = url(tmp_path / "a.db")
    tuner = hz.Tuner(world.problem, CONFIGS["default"], journal, seed=11)
    assert tuner.study.planned_for("message 1") is None
    plan = tuner.ask(trigger="message 1")
    tuner.ask(trigger="message 2")
    tuner.journal.close()
    again = hz.Tuner.resume(journal, problem=world.problem)
    assert again.study.planned_for("message 1") == plan
    assert again.study.planned_for("message 2").round == 1
    assert again.study.planned_for("message 3") is None
    with pytest.raises(hz.RoundError, match="a trigger is the text"):
        again.ask(trigger=5)
    again.journal.close()


def test_nothing_can_be_recommended_before_the_first_plan(fresh):
    for call in (fresh.recommend, fresh.belief):
        with pytest.raises(hz.RoundError, match=r"call ask\(\) first"):
            call()
    with pytest.raises(hz.RoundError, match="no posterior yet"):
        fresh.surrogate()
    fresh.ask()
    assert fresh.recommend().candidate_id == 0
    with pytest.raises(hz.ConfigError, match="criterion must be one of"):
        fresh.recommend("best")


def test_a_plan_is_a_function_of_the_journal(study, world):
    """Folding the entries up to a plan, and asking, gives that plan again."""
    for round_ in (0, 4, ROUNDS - 1):
        at = next(
            i for i, e in enumerate(study.entries) if isinstance(e, Planned) and e.round == round_
        )
        first = at
        while first and type(study.entries[first - 1]).__name__ == "CandidateAdded":
            first -= 1
        journal = MemoryJournal()
        state = copy.deepcopy(study.state)
        state["entries"] = state["entries"][:first]
        tuner = hz.Tuner(world.problem, journal=journal)
        tuner.load_state_dict(state)
        assert tuner.ask(round_) == study.plans[round_]
        assert tuner.journal.read("default")[: at + 1] == study.entries[: at + 1]


def test_two_folds_of_the_same_entries_are_the_same(study, world):
    one, two = (History(2, ("x1", "x2")) for _ in range(2))
    one.extend(study.entries)
    for entry in study.entries:
        two.extend([dataclasses.replace(entry)])
    for weights in ("users", "precision"):
        assert bits(gather(one, Pooling(weights, 24))) == bits(gather(two, Pooling(weights, 24)))
    assert one.warm_start == two.warm_start
    assert one.num_entries == two.num_entries == len(study.entries)
