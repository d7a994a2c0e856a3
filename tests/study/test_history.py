"""``history.py``: the same facts in any order are the same history, and the same evidence."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperzero_torch.errors import HyperZeroError, JournalCorruptError, ReadingsError
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    Planned,
    ReadingsReceived,
)
from hyperzero_torch.study.readings import Readings
from hyperzero_torch.study.reception import new_rows

law = settings(deadline=None, max_examples=60, derandomize=True)

METRICS = ("views", "likes")
ARMS = {0: (0, 1, 2), 3: (0, 2, 3), 4: (0, 1, 3, 4)}
CELLS = [(r, c, m) for r, arms in ARMS.items() for c in arms for m in range(2)]
ROWS = [(*cell, revision) for cell in CELLS for revision in range(3)]


def skeleton():
    entries = [Configured({"num_draws": 5})]
    entries += [CandidateAdded(c, 0, "initial", (c / 8, 1.0 - c), {"a": c / 8}) for c in range(6)]
    for round_, arms in ARMS.items():
        shares = (1 / len(arms),) * len(arms)
        entries.append(Planned(round_, arms, (1,) * len(arms), shares, f"hour {round_}"))
    return entries


def history(*more):
    folded = History(2, METRICS)
    folded.extend([*skeleton(), *more])
    return folded


def values(row):
    """Any numbers that differ from row to row: count, mean, var."""
    round_, candidate, metric, revision = row
    x = 1 + round_ / 7 + candidate / 11 + metric / 3 + revision / 13
    return 1000.0 + 10 * candidate + revision, x, 0.1 * x * x


def message(rows):
    columns = dict(zip(("round", "candidate", "metric", "revision"), zip(*rows)))
    count, mean, var = zip(*map(values, rows))
    columns["metric"] = [METRICS[m] for m in columns["metric"]]
    return Readings.from_frame(columns | {"count": count, "mean": mean, "var": var})


def tell(folded, rows):
    """The number of rows that were news."""
    received = new_rows(folded, message(rows))
    if received is None:
        return 0
    folded.extend([received])
    return len(received.round)


def history_of(*messages):
    folded = history()
    for rows in messages:
        tell(folded, rows)
    return folded


def tables(folded):
    return {
        round_: {name: getattr(table, name) for name in ("count", "mean", "var", "revision")}
        for round_, table in folded.tables.items()
    }


def assert_same_tables(a, b):
    assert a.keys() == b.keys()
    for round_, table in a.items():
        for name, value in table.items():
            np.testing.assert_array_equal(value, b[round_][name], strict=True)


def bits(value):
    """Nested tuples of tensors as bytes: NaN equals NaN, and 0.0 does not equal -0.0."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    return tuple(map(bits, value)) if isinstance(value, tuple) else value


def evidence(folded):
    return [bits(gather(folded, Pooling(weights, 24))) for weights in ("users", "precision")]


deliveries = st.tuples(
    st.permutations(ROWS), st.integers(1, len(ROWS)), st.lists(st.integers(1, len(ROWS) - 1))
)


@law
@given(deliveries)
def test_any_order_any_split_any_subset_gives_the_same_evidence(delivery):
    """Late, out of order, partial and revised: only what has arrived counts, not when."""
    rows, num, cuts = delivery
    arrived = rows[:num]
    edges = [0, *sorted(c for c in set(cuts) if c < num), num]
    messages = [arrived[a:b] for a, b in itertools.pairwise(edges)]
    mixed, sorted_ = history_of(*messages), history_of(sorted(arrived))
    assert_same_tables(tables(mixed), tables(sorted_))
    assert evidence(mixed) == evidence(sorted_)
    for cell in CELLS:
        best = max((row for row in arrived if row[:3] == cell), default=None)
        table = mixed.tables[cell[0]]
        at = table.row[cell[1]], cell[2]
        if best is None:
            assert table.revision[at] == -1
            assert np.isnan([table.count[at], table.mean[at], table.var[at]]).all()
        else:
            assert table.revision[at] == best[3]
            assert (table.count[at], table.mean[at], table.var[at]) == values(best)


@law
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=40))
def test_saying_things_again_changes_nothing(messages):
    """A platform that retries, one row at a time, in any order."""
    folded, again = history_of(sorted(set(messages))), history()
    news = sum(tell(again, [row]) for row in messages)
    assert news <= len(set(messages))
    assert_same_tables(tables(again), tables(folded))
    before, entries = evidence(again), again.num_entries
    assert [tell(again, [row]) for row in messages] == [0] * len(messages)
    assert tell(again, sorted(set(messages))) == 0
    assert evidence(again) == before
    assert again.num_entries == entries


def test_the_evidence_depends_on_every_value():
    """Or else the laws above would hold for evidence that ignores what arrives."""
    full = evidence(history_of([row for row in ROWS if row[3] == 0]))
    seen = {str(full)}
    for changed in [row for row in ROWS if row[3] == 1]:
        seen.add(str(evidence(history_of([r for r in ROWS if r[3] == 0] + [changed]))))
    assert len(seen) == 1 + len(CELLS)


def test_what_is_folded_is_what_was_received():
    """Rows ascend by round, candidate, metric and revision, whatever the message's order was."""
    rows = [(4, 0, 1, 0), (0, 2, 0, 1), (0, 2, 0, 0), (3, 3, 0, 2), (0, 0, 1, 2), (0, 0, 0, 1)]
    received = new_rows(history(), message(rows))
    columns = (received.round, received.candidate, received.metric, received.revision)
    assert list(zip(*columns)) == sorted(rows)
    assert [(received.count[i], received.mean[i], received.var[i]) for i in range(6)] == [
        values(row) for row in sorted(rows)
    ]
    plain = {type(v) for column in vars(received).values() for v in column}
    assert plain == {int, float}


def deltas(folded):
    arms = gather(folded, Pooling("users", 24)).deltas
    return {
        (round_, candidate): mean
        for round_, candidate, mean in zip(
            arms.round.tolist(), arms.candidate.tolist(), arms.delta.mean
        )
    }


def test_a_treatment_waits_for_its_control():
    folded = history_of([(0, 1, 0, 0), (0, 1, 1, 0), (3, 0, 0, 0), (3, 2, 0, 0)])
    assert set(deltas(folded)) == {(3, 2)}
    assert gather(folded, Pooling("users", 24)).num_rounds.tolist() == [0, 0, 1, 0, 0, 0]
    assert torch.isnan(gather(folded, Pooling("users", 24)).mean[1]).all()
    tell(folded, [(0, 0, 1, 0)])  # the control's second metric comes first
    delta = deltas(folded)[(0, 1)]
    assert torch.isnan(delta[0])
    assert torch.isfinite(delta[1])
    assert not gather(folded, Pooling("users", 24)).tested.any()
    tell(folded, [(0, 0, 0, 0)])
    delta = deltas(folded)[(0, 1)]
    assert torch.isfinite(delta).all()
    count, x, _vx = values((0, 1, 0, 0))
    n0, y, vy = values((0, 0, 0, 0))
    assert float(delta[0]) == pytest.approx((x / y) * (1 - vy / (n0 * y**2)) - 1, rel=1e-12)
    bucket = gather(folded, Pooling("users", 24))
    assert bucket.tested.tolist() == [False, True, False, False, False, False]
    assert bucket.weight[1, 0] == count
    assert bucket.num_rounds.tolist() == [0, 1, 1, 0, 0, 0]


def test_a_revised_control_changes_the_deltas_of_its_round_only():
    rows = [row for row in ROWS if row[3] == 0]
    folded = history_of(rows)
    before = deltas(folded)
    tell(folded, [(3, 0, 0, 1), (3, 0, 1, 1)])
    after = deltas(folded)
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {(3, 2), (3, 3)}
    assert all((before[key] != after[key]).all() for key in changed)


def test_a_stale_revision_changes_nothing_whatever_it_says():
    folded = history_of([(0, 0, 0, 2), (0, 1, 0, 1)])
    before = evidence(folded)
    assert tell(folded, [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0)]) == 0
    other = Readings(0, [0, 1], [5, 5], [[99.0], [99.0]], [[1.0], [1.0]], metrics=["views"])
    assert new_rows(folded, other) is None
    assert evidence(folded) == before
    assert folded.num_messages == 1


def test_only_the_news_of_a_message_is_received():
    folded = history_of([(0, 0, 0, 0), (0, 1, 0, 1)])
    rows = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (0, 1, 1, 0)]
    received = new_rows(folded, message(rows))
    assert list(zip(received.candidate, received.metric, received.revision)) == [
        (0, 0, 1), (1, 1, 0)
    ]  # fmt: skip


def test_a_contradiction_is_refused_and_nothing_is_folded():
    folded = history_of([(0, 0, 0, 0), (0, 1, 0, 1)])
    before, entries = evidence(folded), folded.num_entries
    for count, mean, var in ((1001.0, *values((0, 1, 0, 1))[1:]), (5, 1.0, 1.0)):
        wrong = Readings(0, [1], [count], [[mean]], [[var]], metrics=["views"], revision=1)
        with pytest.raises(ReadingsError, match=r"revision 1 was received.*higher revision"):
            new_rows(folded, wrong)
    assert evidence(folded) == before
    assert folded.num_entries == entries


# --- what else is folded ----------------------------------------------------------------------


def test_the_facts_of_an_empty_and_of_a_small_study():
    empty = History(2, METRICS)
    assert (empty.num_candidates, empty.last_round, empty.num_in_flight) == (0, None, 0)
    assert empty.theta.shape == (0, 2)
    assert empty.find((0.0, 1.0)) is None
    folded = history(Decision(4, "fallback", "why"), Configured({"num_draws": 6}))
    assert folded.num_candidates == 6
    assert folded.num_entries == 12
    assert folded.last_round == 4
    assert folded.theta.tolist() == [[c / 8, 1.0 - c] for c in range(6)]
    assert folded.find((2 / 8, -1.0)) == 2
    assert folded.find((2 / 8, -1.5)) is None
    assert folded.triggers == {"hour 0": 0, "hour 3": 3, "hour 4": 4}
    assert folded.times_served == [3, 2, 2, 2, 1, 0]
    assert folded.num_in_flight == 10
    assert folded.config == {"num_draws": 6}
    assert folded.decisions == [Decision(4, "fallback", "why")]
    tell(folded, [(0, 1, 1, 0), (0, 0, 0, 0)])
    assert folded.num_in_flight == 8


def test_rounds_may_be_planned_in_any_order():
    """``ask(5)`` and then a log that was merged: the latest round is the largest."""
    folded = history(Planned(9, (0, 5), (0, 1), (0.5, 0.5)), Planned(7, (0,), (0,), (1.0,)))
    assert folded.last_round == 9


def test_a_fit_starts_from_the_plan_before_the_last_message():
    """Who asks how often must not change what the next fit starts from."""

    def planned(round_, fit=None):
        kernel = {"lengthscale": [[fit, fit]] * 2, "outputscale": [1.0] * 2, "constant": [0.0] * 2}
        details = {} if fit is None else {"hyperparameters": kernel}
        return Planned(round_, (0, 1), (0, 1), (0.5, 0.5), None, details)

    def received(round_):
        return ReadingsReceived((round_,), (0,), (0,), (0,), (10.0,), (1.0,), (1.0,))

    folded = history(planned(10, 0.1))
    assert folded.warm_start is None
    folded.extend([received(10)])
    assert folded.warm_start.lengthscale[0][0] == 0.1
    folded.extend([planned(11, 0.2), planned(12)])
    assert folded.warm_start.lengthscale[0][0] == 0.1
    folded.extend([received(11)])
    assert folded.warm_start.lengthscale[0][0] == 0.2
    assert folded.num_messages == 2


def test_a_branch_shares_no_memory_of_births():
    folded = history()
    before = folded.theta.clone(), list(folded.times_served), folded.num_candidates
    branch = folded.branch()
    branch.extend([CandidateAdded(6, 5, "proposal", (0.9, 0.9), {})])
    branch.times_served[0] += 100
    assert (branch.num_candidates, folded.num_candidates) == (7, 6)
    assert torch.equal(folded.theta, before[0])
    assert folded.times_served == before[1]
    assert folded.find((0.9, 0.9)) is None
    assert branch.find((0.9, 0.9)) == 6
    folded.extend([CandidateAdded(6, 5, "proposal", (0.7, 0.7), {})])
    assert branch.find((0.7, 0.7)) is None
    assert folded.num_entries == branch.num_entries


GOOD = ReadingsReceived((0, 0), (0, 1), (0, 0), (0, 0), (10.0, 10.0), (1.0, 2.0), (1.0, 1.0))


def but(entry, **changes):
    return dataclasses.replace(entry, **changes)


@pytest.mark.parametrize(
    "entry",
    [
        CandidateAdded(5, 0, "initial", (0.1, 0.1), {}),  # born already
        CandidateAdded(7, 0, "initial", (0.1, 0.1), {}),  # before candidate 6
        CandidateAdded(6, 0, "initial", (0.1,), {}),
        CandidateAdded(6, 0, "initial", (0.1, 0.1, 0.1), {}),
        Planned(4, (0, 1), (0, 1), (0.5, 0.5)),  # planned already
        Planned(5, (0, 6), (0, 1), (0.5, 0.5)),  # not born
        Planned(5, (0, -1), (0, 1), (0.5, 0.5)),
        Planned(5, (1, 2), (1, 1), (0.5, 0.5)),  # without a control
        Planned(5, (), (), ()),
        but(GOOD, round=(0, 1)),  # never planned
        but(GOOD, candidate=(0, 3)),  # not an arm of round 0
        but(GOOD, candidate=(0, -1)),
        but(GOOD, metric=(0, 2)),
        but(GOOD, metric=(0, -1)),
        but(GOOD, count=(10.0, -1.0)),
        but(GOOD, var=(1.0, -1e-300)),
        but(GOOD, mean=(1.0, float("nan"))),
        but(GOOD, var=(1.0, float("inf"))),
    ],
)
def test_entries_that_contradict_are_corrupt(entry):
    folded = history()
    folded.extend([GOOD])
    before, num = evidence(folded), folded.num_entries
    with pytest.raises(JournalCorruptError, match=f"entry {num + 1}: .*from a backup") as caught:
        folded.extend([entry])
    assert isinstance(caught.value, HyperZeroError)
    assert folded.num_entries == num
    assert evidence(folded) == before
    assert folded.num_candidates == 6
    assert set(folded.plans) == set(ARMS)


@pytest.mark.parametrize("named", [[7], [-1], "x", [None], [1.0], 3])
def test_details_that_name_nobody_are_corrupt(named):
    def history():
        fresh = History(1, ["m"])
        fresh.extend(
            [CandidateAdded(0, 0, "base", (0.0,), {}), CandidateAdded(1, 0, "initial", (1.0,), {})]
        )
        return fresh

    with pytest.raises(JournalCorruptError, match=r"do not exist|damaged"):
        history().extend([Planned(0, (0, 1), (0, 1), (0.5, 0.5), None, {"crowded_out": named})])
    with pytest.raises(JournalCorruptError, match=r"do not exist|damaged"):
        history().extend([Decision(0, "retired", "why", {"candidates": named})])
