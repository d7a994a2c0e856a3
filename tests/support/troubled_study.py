"""A small study to which everything happens: harm, suspect and late hours, drift, a roll-back."""

import torch

import hyperzero_torch as hz

CONFIG = hz.TunerConfig(
    num_draws=60,
    num_samples=64,
    num_starts=0,
    num_proposals=1,
    initial_candidates=12,
    rounds_per_day=6,
    retire_after=4,
    drift_alpha=0.02,
)
METRICS = ("watch", "share <b>", "reports")
TURNS_AT = 12  # from here on the first parameter hurts what it helped before


def make(journal=None, config=CONFIG, study="troubled"):
    space = hz.SearchSpace(
        [
            hz.Float("w_watch", 0.0, 1.0),
            hz.Float("w_share <i>", 0.1, 10.0, log=True),
            hz.Int("depth", 1, 6),
            hz.Choice("mode", ["calm", "fresh & new", "<mixed>"]),
        ]
    )
    problem = hz.Problem(
        space,
        dict(zip(space.names, [0.4, 1.0, 2, "calm"])),
        list(METRICS),
        "watch + 0.2 * `share <b>`",
        ["reports <= 3%", "`share <b>` >= -8%"],
    )
    return hz.Tuner(problem, config, journal, study, 3)


def lift(tuner, theta, round=0):
    """True deltas ``(n, 3)``: watch turns at ``TURNS_AT``, reports rise steeply with mode 2."""
    x = tuner.problem.space.to_unit(theta) - tuner.problem.space.to_unit(tuner.problem.base_theta)
    sign = 1.0 if round < TURNS_AT else -1.0
    watch = sign * 0.12 * x[:, 0] - 0.05 * x[:, 1].square()
    share = 0.06 * x[:, 1] - 0.02 * x[:, 2]
    reports = 0.02 * x[:, 0] + 0.25 * (theta[:, 3] == 2).double()
    return torch.stack([watch, share, reports], -1)


def reply(tuner, plan, arms=None, revision=0):
    """An hour of a platform with 40,000 users; ``arms`` are the rows that report."""
    generator = torch.Generator().manual_seed(plan.round)
    mean = 10 * (1 + lift(tuner, plan.theta, plan.round))
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    count = (40_000.0 * torch.tensor(plan.shares)).unsqueeze(-1).expand_as(mean)
    mean = mean + noise * 2 / count.sqrt() * (1 + 0.01 * revision)
    rows = list(range(len(plan))) if arms is None else arms
    ids = [plan.candidate_ids[i] for i in rows]
    var = torch.full_like(mean, 4.0)
    return hz.Readings(plan.round, ids, count[rows], mean[rows], var[rows], revision=revision)


def play(tuner, rounds):
    for _ in range(rounds):
        plan = tuner.ask()
        tuner.tell(reply(tuner, plan))


def trouble(tuner):
    """Twenty-six rounds of it; the last two have reported in part or not at all."""
    play(tuner, 8)
    tuner.study.set_aside([5], "the split is suspect: 12,001 users <u>counted</u>, 9,800 planned")
    tuner.study.set_aside([6, 7], "an incident & its echo")
    tuner.study.reinstate([7], "the echo was none")
    play(tuner, 13)
    tuner.tell(reply(tuner, tuner.ask(18), revision=1))
    tuner.study.note("platform", "serving round 18 took long <script>")
    tuner.study.roll_back(19, "a wrong release went out at 19")
    play(tuner, 3)
    plan = tuner.ask()
    tuner.tell(reply(tuner, plan, arms=list(range(0, len(plan), 2))))
    tuner.ask()
    return tuner
