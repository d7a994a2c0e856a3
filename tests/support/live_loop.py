"""A loop beside a platform that reports late, and fails when it is told to."""

from collections import defaultdict

import torch

import hyperzero_torch as hz
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.loop import Collected, Loop
from hyperzero_torch.live.retry import RetryPolicy

# Nothing is verified or refined: both take most of a small round, and no loop depends on them.
CONFIG = hz.TunerConfig(
    num_draws=40, num_samples=32, num_proposals=1, initial_candidates=4, num_starts=0,
    verification_share=0.0,
)  # fmt: skip
HOUR = 3600.0
F64 = torch.float64


def make(journal=None, seed=0):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4}, ["gain", "guard"], "gain", ["guard >= -50%"])
    return hz.Tuner(problem, CONFIG, journal, seed=seed)


def reading(plan, revision=0, rows=slice(None)):
    """What an hour comes to; a higher revision has more of the users."""
    generator = torch.Generator().manual_seed(1000 * plan.round + revision)
    mean = 10 * (1 + 0.1 * torch.stack([plan.theta[:, 0], plan.theta[:, 0]], -1))
    mean = mean + 0.1 * torch.randn(mean.shape, generator=generator, dtype=F64)
    count = torch.full_like(mean, 100.0 * (1 + revision))
    ids = plan.candidate_ids[rows]
    return hz.Readings(
        plan.round, ids, count[rows], mean[rows], torch.ones_like(mean)[rows], revision=revision
    )


class Platform:
    """Serves plans; its warehouse hands readings out ``late`` rounds later, again and again."""

    def __init__(self, late=1, clock=None):
        self.late, self.clock = late, clock
        self.applied, self.asked = [], []
        self.trouble = defaultdict(list)  # by part: what happens at its next calls

    def _suffer(self, part):
        if self.trouble[part]:
            happens = self.trouble[part].pop(0)
            if callable(happens):
                happens()
            elif happens is not None:
                raise happens

    def apply(self, plan):
        self._suffer("apply")
        self.applied.append(plan)

    def withdraw(self):
        self.applied.append(None)

    def collect(self, as_of, planned, missing=()):
        self.asked.append((as_of, dict(planned)))
        self._suffer("collect")
        served = {p.round: p for p in self.applied}
        due = [p for p in served.values() if p.round <= as_of - self.late]
        return Collected(hz.Readings.concat([reading(p) for p in due]) if due else None)


def loop_of(tuner, platform, clock=None, **how):
    clock = clock or SimulatedClock(1_000_000.0)
    how = {"retry": RetryPolicy(attempts=3, first_wait=1.0, timeout=5.0)} | how
    return Loop(tuner, platform, platform, clock, HOUR, **how)


def stored(tuner):
    """Every reading in the tables, by key."""
    return {
        (r, c, m): (t.count[i, m], t.mean[i, m], t.revision[i, m])
        for r, t in tuner.history.tables.items()
        for i, c in enumerate(t.candidates.tolist())
        for m in range(2)
        if t.revision[i, m] >= 0
    }
