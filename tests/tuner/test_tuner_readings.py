"""``tuner.tell``: a message is taken whole or refused whole, and a refused one leaves no trace."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.study.readings import MAX_ROWS_NAMED

# The counts of these tests do not follow the shares of their plans, of which ``ask`` warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:round .*ample ratio mismatch:hyperzero_torch.TunerWarning"
)

law = settings(deadline=None, max_examples=40, derandomize=True)

METRICS = ["views", "watch_time"]
CONFIG = hz.TunerConfig(
    num_draws=32,
    num_samples=32,
    num_proposals=1,
    initial_candidates=5,
    max_arms=3,
    num_starts=0,
    verification_share=0.0,
)
SKIPPED = 1  # rounds 0 and 2 are planned


def new_tuner(journal=None):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Int("depth", 1, 8)])
    problem = hz.Problem(
        space=space,
        base={"a": 0.5, "depth": 3},
        metrics=METRICS,
        objective="views",
        constraints=["watch_time >= -1%"],
    )
    return hz.Tuner(problem, CONFIG, journal, study="feed", seed=3)


def columns(plan, arms=None, revision=0):
    """A message of all metrics of a plan's arms, as columns."""
    arms = range(len(plan)) if arms is None else arms
    rows = [(plan.candidate_ids[i], i, m) for i in arms for m in range(2)]
    return {
        "round": [plan.round] * len(rows),
        "candidate": [c for c, _, _ in rows],
        "metric": [METRICS[m] for _, _, m in rows],
        "count": [1000 + 10 * i for _, i, _ in rows],
        "mean": [3.0 + m + 0.01 * i + 0.001 * plan.round + 0.1 * revision for _, i, m in rows],
        "var": [0.5 + 0.1 * m for _, _, m in rows],
        "revision": [revision] * len(rows),
    }


def frame(*args, **kwargs):
    return hz.Readings.from_frame(columns(*args, **kwargs))


def started(journal=None):
    """A study of two rounds: of the first everything has arrived, of the other one arm."""
    tuner = new_tuner(journal)
    first = tuner.ask(0)
    tuner.tell(frame(first))
    second = tuner.ask(2)
    tuner.tell(frame(second, arms=[1], revision=1))
    return tuner


def same(a, b):
    """Equality of states, which hold tensors."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def tables(tuner):
    return [
        {name: getattr(table, name).tobytes() for name in ("count", "mean", "var", "revision")}
        for table in tuner.history.tables.values()
    ]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A journal file to copy: planning takes longer than copying."""
    path = tmp_path_factory.mktemp("template") / "study.db"
    started(f"sqlite:///{path}").journal.close()
    return path


@pytest.fixture(scope="module")
def state(template):
    return new_tuner(f"sqlite:///{template}").state_dict()


@pytest.fixture(params=["memory", "sqlite"])
def tuner(request, tmp_path, template, state):
    if request.param == "memory":
        tuner = new_tuner()
        tuner.load_state_dict(state)
    else:
        shutil.copy(template, tmp_path / "study.db")
        tuner = new_tuner(f"sqlite:///{tmp_path}/study.db")
    yield tuner
    tuner.journal.close()


@pytest.fixture(scope="module")
def next_plan():
    """What a twin plans that never saw a wrong message."""
    return started().ask()


def unchanged(tuner, call):
    """The one ReadingsError of a call that leaves tuner and journal exactly as they were."""
    state, entries, held = tuner.state_dict(), tuner.history.num_entries, tables(tuner)
    with pytest.raises(hz.ReadingsError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, hz.HyperZeroError)
    assert tables(tuner) == held
    assert tuner.history.num_entries == entries
    assert len(tuner.journal.read("feed")) == entries
    assert same(tuner.state_dict(), state)
    return caught.value


def not_an_arm(plan):
    return next(c for c in range(1, 6) if c not in plan.candidate_ids)


#: One cell of an otherwise good message: its column, a value (of the plan), and what is said of it.
WRONG = {
    "NaN mean": ("mean", float("nan"), "mean is nan"),
    "NaN count": ("count", float("nan"), "count is nan"),
    "NaN var": ("var", float("nan"), "var is nan"),
    "infinite mean": ("mean", float("inf"), "mean is inf"),
    "infinite var": ("var", float("-inf"), "var is -inf"),
    "negative count": ("count", -1, "count -1 is negative"),
    "negative variance": ("var", -1e-12, "var -1e-12 is negative"),
    "text": ("mean", "three", "mean is 'three'"),
    "None": ("var", None, "var is None"),
    "unknown candidate": ("candidate", 77, "unknown candidate 77: the bucket has 0 to"),
    "negative candidate": ("candidate", -1, "candidate is -1"),
    "not an arm": ("candidate", not_an_arm, "was not an arm of round"),
    "unknown metric": ("metric", "likes", "unknown metric 'likes'; known metrics"),
    "unplanned round": ("round", SKIPPED, "unknown round 1: it was never planned, the last is 2"),
    "future round": ("round", 3, "unknown round 3: it was never planned, the last is 2"),
    "half a round": ("round", 2.5, "round is 2.5"),
    "negative revision": ("revision", -1, "revision is -1"),
}


def spoil(table, kind, at, plan):
    """Put one fault into row ``at`` of a message of ``plan``; returns what is said of it."""
    name, value, message = WRONG[kind]
    table[name][at] = value(plan) if callable(value) else value
    return f"row {at}: " + ("candidate " if kind == "not an arm" else ""), message


@pytest.mark.parametrize("kind", WRONG)
def test_a_message_with_a_wrong_row_leaves_no_trace(tuner, next_plan, kind):
    plan = tuner.ask(2)
    table = columns(plan, arms=[0, 2, 3])
    at = 1 if kind == "control mean of zero" else 3
    where, message = spoil(table, kind, at, plan)
    error = unchanged(tuner, lambda: tuner.tell(hz.Readings.from_frame(table)))
    assert error.num_rows == 1
    assert where in str(error)
    assert message in str(error)
    assert tuner.ask() == next_plan
    # The same rows without the fault are welcome.
    assert tuner.tell(frame(plan, arms=[0, 2, 3])) == 6


def test_the_same_row_twice(tuner, next_plan):
    table = columns(tuner.ask(2), arms=[0, 2, 3])
    table = {name: [*values, values[2]] for name, values in table.items()}
    error = unchanged(tuner, lambda: tuner.tell(hz.Readings.from_frame(table)))
    assert error.num_rows == 1
    assert "row 6: round 2, candidate" in str(error)
    assert "stands already at row 2" in str(error)
    assert tuner.ask() == next_plan


def test_a_revision_that_contradicts_itself(tuner, next_plan):
    plan = tuner.ask(2)
    for name in ("count", "mean", "var"):
        table = columns(plan, arms=[0, 1, 2], revision=1)
        table[name][3] *= 1 + 1e-8 if name != "count" else 2
        error = unchanged(tuner, lambda t=table: tuner.tell(hz.Readings.from_frame(t)))
        assert error.num_rows == 1
        assert "row 3: round 2, candidate" in str(error)
        assert "'watch_time', revision 1 was received with count" in str(error)
    assert tuner.ask() == next_plan


def test_a_message_that_contradicts_itself(tuner):
    """The same row twice with other values is refused before anybody could know which holds."""
    first, second = (columns(tuner.ask(2), arms=[0]) for _ in range(2))
    second["mean"] = [9.0, 9.0]
    table = {name: first[name] + second[name] for name in first}
    error = unchanged(tuner, lambda: tuner.tell(hz.Readings.from_frame(table)))
    assert error.num_rows == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": [[1.0], [1.0]], "var": [[1.0], [1.0]]}, "one column for each of the 2 metrics"),
        ({"mean": [1.0, 1.0], "var": [1.0, 1.0]}, "one column for each of the 2 metrics"),
        ({"mean": [[1.0] * 3] * 2, "var": [[1.0] * 3] * 2}, "one column for each of the 2 metrics"),
        ({"mean": [[1.0] * 2] * 3}, r"mean and var \(arms,\) or \(arms, metrics\), got"),
        ({"var": [1.0, 1.0]}, r"mean and var \(arms,\) or \(arms, metrics\), got"),
        ({"count": [1, 2, 3]}, r"count must be \(2,\) or \(2, 2\)"),
        ({"count": 5}, r"count must be \(2,\) or \(2, 2\)"),
        ({"mean": [[1.0, 2.0], [3.0]]}, "mean is ragged"),
        ({"mean": 1.0, "var": 1.0}, "candidate_ids must be"),
        ({"metrics": ["views"]}, "metrics names 1 columns, mean has 2"),
        ({"metrics": ["views", "clicks"]}, "arm 0: unknown metric 'clicks'"),
        ({"metrics": ["views", "views"]}, "stands already at arm 0"),
        ({"candidate_ids": []}, "candidate_ids must be"),
        ({"round": SKIPPED}, "arm 0: unknown round 1"),
        ({"round": [0, 2]}, "round must be one whole number"),
        ({"revision": 0.5}, "revision is 0.5"),
    ],
)
def test_arrays_of_the_wrong_shape_leave_no_trace(tuner, changes, reason):
    plan = tuner.ask(2)
    values = {
        "round": 2,
        "candidate_ids": [0, plan.candidate_ids[2]],
        "count": [100, 100],
        "mean": torch.ones(2, 2),
        "var": np.ones((2, 2)),
    }
    error = unchanged(tuner, lambda: tuner.tell(hz.Readings(**(values | changes))))
    with pytest.raises(hz.ReadingsError, match=reason):
        raise error
    assert tuner.tell(hz.Readings(**values)) == 4


@pytest.mark.parametrize("wrong", [None, 5, "readings", "", {}, {"round": [0]}, ["x"], [None], ()])
def test_what_is_no_message_is_refused(tuner, wrong):
    if wrong == ():
        assert tuner.tell(wrong) == tuner.tell([]) == 0
    else:
        error = unchanged(tuner, lambda: tuner.tell(wrong))
        assert "tell expects hz.Readings" in str(error)
    good = frame(tuner.ask(2))
    unchanged(tuner, lambda: tuner.tell([good, wrong]))


def test_before_any_plan_every_round_is_unknown():
    tuner = new_tuner()
    message = hz.Readings(0, [0], [10], [[1.0, 1.0]], [[1.0, 1.0]])
    error = unchanged(tuner, lambda: tuner.tell(message))
    assert "unknown round 0: it was never planned, no round was planned yet" in str(error)


def test_all_offending_rows_are_counted_and_the_first_are_named(tuner):
    table = columns(tuner.ask(2))
    table["candidate"] = [70 + i for i in range(8)]
    table = {name: values * 2 for name, values in table.items()}
    table["revision"] = [5] * 8 + [6] * 8
    error = unchanged(tuner, lambda: tuner.tell(hz.Readings.from_frame(table)))
    assert error.num_rows == 16
    assert len(error.rows) == MAX_ROWS_NAMED
    assert str(error).endswith("... and 6 more")


# --- all or nothing ---------------------------------------------------------------------------


def test_several_messages_are_taken_or_refused_together(tuner, next_plan):
    plan = tuner.ask(2)
    good, more = frame(plan, arms=[0]), frame(plan, arms=[2])
    table = columns(plan, arms=[3])
    table["candidate"][1] = 99
    bad = hz.Readings.from_frame(table)
    for messages in ([good, bad], [bad, good], [good, more, bad]):
        error = unchanged(tuner, lambda m=messages: tuner.tell(m))
        assert f"message {messages.index(bad)}, row 1: unknown candidate 99" in str(error)
    error = unchanged(tuner, lambda: tuner.tell([good, more, good]))
    assert "message 2, row 0: round 2, candidate 0" in str(error)
    assert "stands already at message 0, row 0" in str(error)
    assert tuner.ask() == next_plan
    entries = tuner.history.num_entries
    assert tuner.tell((good, more)) == 4
    assert tuner.history.num_entries == entries + 1


def test_several_messages_are_as_one(tuner, state):
    other = new_tuner()
    other.load_state_dict(state)
    plan = tuner.ask(2)
    tuner.tell([frame(plan, arms=[3]), frame(plan, arms=[0, 2])])
    other.tell(frame(plan, arms=[0, 2, 3]))
    assert same(tuner.state_dict(), other.state_dict())
    assert tuner.ask() == other.ask()


def test_telling_again_is_no_news(tuner):
    plan = tuner.ask(2)
    messages = [frame(plan, arms=[0, 2]), frame(plan, arms=[0, 2], revision=2), frame(plan, [0])]
    assert tuner.tell(messages[0]) == 4
    assert tuner.tell(messages[1]) == 4
    state, entries = tuner.state_dict(), tuner.history.num_entries
    for message in (*messages, messages[:2]):
        assert tuner.tell(message) == 0
    assert tuner.history.num_entries == entries
    assert same(tuner.state_dict(), state)
    # What is partly news counts only that.
    assert tuner.tell(frame(plan)) == 2
    assert tuner.history.num_entries == entries + 1


def test_check_says_what_tell_would(tuner):
    plan = tuner.ask(2)
    table = columns(plan, arms=[0, 2])
    wrong = hz.Readings.from_frame(table | {"candidate": [0, 0, 9, 9]})
    message = hz.Readings.from_frame(table)
    unchanged(tuner, lambda: tuner.study.count_new(wrong))
    entries = tuner.history.num_entries
    assert tuner.study.count_new(message) == tuner.study.count_new(message) == 4
    assert tuner.history.num_entries == entries
    assert tuner.tell(message) == 4
    assert tuner.study.count_new(message) == 0


# --- mixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One tuner for all examples: as each must leave it as it was, none can disturb the next."""
    folder = tmp_path_factory.mktemp("shared")
    tuners = [started(), started(f"sqlite:///{folder}/study.db")]
    yield [(tuner, {r: tuner.ask(r) for r in (0, 2)}) for tuner in tuners]
    tuners[1].journal.close()


pieces = st.lists(
    st.tuples(
        st.sampled_from([0, 2]),
        st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
        st.integers(2, 4),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda piece: (piece[0], piece[2]),
)


@law
@given(pieces, st.sampled_from(sorted(WRONG)), st.data())
def test_one_wrong_row_among_many_good_ones_leaves_no_trace(shared, pieces, kind, data):
    """Any valid messages of any rounds and revisions, one cell of them spoiled."""
    which = data.draw(st.integers(0, len(pieces) - 1))
    at = data.draw(st.integers(0, 2 * len(pieces[which][1]) - 1))
    for tuner, plans in shared:
        messages = [columns(plans[r], arms=arms, revision=rev) for r, arms, rev in pieces]
        good = [hz.Readings.from_frame(m) for m in messages]
        assert sum(map(tuner.study.count_new, good)) == 2 * sum(len(arms) for _, arms, _ in pieces)
        victim = messages[which]
        row = at
        if kind == "control mean of zero":
            row = next((i for i, c in enumerate(victim["candidate"]) if c == 0), at)
            victim["candidate"][row] = 0
        where, message = spoil(victim, kind, row, plans[pieces[which][0]])

        def tell(tuner=tuner, good=good, victim=victim):
            bad = hz.Readings.from_frame(victim)
            tuner.tell([*good[:which], bad, *good[which + 1 :]])

        error = unchanged(tuner, tell)
        assert error.num_rows == 1
        assert where in str(error)
        assert message in str(error)


def test_the_shared_tuners_plan_as_if_nothing_had_been(shared, next_plan):
    for tuner, _ in shared:
        assert tuner.ask() == next_plan
