"""The live loop says what was omitted, and withdraws an arm from the users of excluded rounds."""

import logging

import numpy as np

import hyperzero_torch as hz
from hyperzero_torch.live.aggregate.source import Collected
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.loop import Loop
from hyperzero_torch.study.journal.missing_trace import UsersCounted, Withdrawn

CONFIG = hz.TunerConfig(
    num_draws=40, num_samples=32, num_proposals=1, initial_candidates=3, num_starts=0,
    verification_share=0.0,
)  # fmt: skip


class Platform:
    """Applies everything; its warehouse excludes each round and counts its users."""

    def __init__(self, collect):
        self.collect_ = collect
        self.applied = []

    def apply(self, plan):
        self.applied.append(plan)

    def withdraw(self):
        self.applied.append(None)

    def collect(self, as_of, planned, missing=()):
        return self.collect_(as_of, planned)


def make():
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4}, ["views", "watch_time"], "views", ["watch_time >= -5%"])
    return hz.Tuner(problem, CONFIG)


def test_what_the_aggregator_omits_is_in_the_log_the_journal_and_the_notes(caplog):
    reason = "metric 'watch_time': the control's mean is 0 or undefined"

    def collect(as_of, planned):
        return Collected(omitted=dict.fromkeys(planned, (reason, "arms [3]: one user")))

    tuner, platform = make(), Platform(collect)
    with caplog.at_level(logging.INFO):
        rounds = list(Loop(tuner, platform, platform, SimulatedClock()).run(4))
    assert any(reason in note for done in rounds for note in done.notes)
    assert any(reason in record.message for record in caplog.records)
    journaled = [d for d in tuner.decisions if d.kind == "events" and reason in d.reason]
    assert len(journaled) == 1  # once, though it is so in every round
    assert any("one user" in record.message for record in caplog.records)


def test_an_arm_that_makes_every_round_suspect_is_withdrawn():
    rng = np.random.default_rng(0)
    bad = []

    def collect(as_of, planned):
        round_ = as_of - 1
        shares = planned[round_]
        bad[:] = bad or [sorted(shares)[1]]
        users = {c: int(rng.poisson(30_000 * s)) for c, s in shares.items()}
        for c in bad:
            if c in users:
                users[c] = int(0.6 * users[c])
        if bad[0] not in shares:
            return Collected()
        return Collected(excluded_rounds={round_: "sample-ratio mismatch"}, counted={round_: users})

    tuner, platform = make(), Platform(collect)
    rounds = list(Loop(tuner, platform, platform, SimulatedClock()).run(8))
    kinds = [type(d.trace) for d in tuner.decisions]
    assert kinds.count(UsersCounted) >= 3
    assert kinds.count(Withdrawn) == 1
    assert tuner.stopped == (bad[0],)
    assert bad[0] not in platform.applied[-1].candidate_ids
    assert any("loses users" in note for done in rounds for note in done.notes)
