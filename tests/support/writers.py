"""Threads that write to one SQL journal at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

from hyperzero_torch.study.journal import Configured, Decision, StudyHeader
from hyperzero_torch.study.journal.base import ConflictError

FIRST = Configured({"num_draws": 3})


def creators(make_journal, num=4):
    """The threads that could start the study "study", each with its number as the seed."""
    barrier = threading.Barrier(num)

    def create(me):
        barrier.wait(60)
        journal = make_journal()
        try:
            journal.create(StudyHeader("study", me, {}), [FIRST])
        except ConflictError:
            return None
        else:
            return me
        finally:
            journal.close()

    with ThreadPoolExecutor(num) as pool:
        return [me for me in pool.map(create, range(num)) if me is not None]


def assert_one_appends_each_round(make_journal, num=3, rounds=25):
    """Append two decisions a round to a study of one entry; of each round one thread's are kept."""
    barrier = threading.Barrier(num)

    def append(me):
        journal, won = make_journal(), []
        for i in range(rounds):
            known = len(journal.read("study"))
            assert known == 1 + 2 * i
            barrier.wait(60)
            mine = [Decision(i, str(me), "first"), Decision(i, str(me), "second")]
            try:
                assert journal.append("study", mine, after=known) == known + 2
                won.append(i)
            except ConflictError:
                pass
            barrier.wait(60)
        journal.close()
        return won

    with ThreadPoolExecutor(num) as pool:
        won = list(pool.map(append, range(num)))
    assert sorted(i for mine in won for i in mine) == list(range(rounds))
    journal = make_journal()
    entries = journal.read("study")[1:]
    journal.close()
    assert [(e.round, e.reason) for e in entries] == [
        (i, reason) for i in range(rounds) for reason in ("first", "second")
    ]
    assert [e.kind for e in entries[::2]] == [e.kind for e in entries[1::2]]
    for me, mine in enumerate(won):
        assert [e.round for e in entries[::2] if e.kind == str(me)] == mine
