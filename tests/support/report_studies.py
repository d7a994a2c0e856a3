"""Studies to report on: with every kind of parameter, simulated, troubled and calm."""

from functools import cache

import pytest
import torch
from support.troubled_study import CONFIG, TURNS_AT, make, play, trouble

import hyperzero_torch as hz
from hyperzero_torch.simulate import ReplayWorld, run

EVIL = "<img src=x onerror=alert(1)>"
SMALL = {"num_draws": 50, "num_samples": 64, "num_proposals": 2, "initial_candidates": 8}


def serve(tuner, rounds, skip=(), scale=1.0):
    """Plan rounds and report a smooth truth, except for the arms named in ``skip``."""
    for _ in range(rounds):
        plan = tuner.ask()
        x = tuner.problem.space.to_unit(plan.theta)
        base = tuner.problem.space.to_unit(tuner.problem.base_theta)
        arms = [i for i, c in enumerate(plan.candidate_ids) if c not in skip]
        generator = torch.Generator().manual_seed(plan.round)
        shape = (len(plan), len(tuner.problem.metrics))
        noise = 0.003 * torch.randn(shape, generator=generator, dtype=torch.float64)
        slope = torch.linspace(0.02, -0.01, shape[1], dtype=torch.float64)
        lift = (x - base).sum(-1, keepdim=True) * slope
        ids = [plan.candidate_ids[i] for i in arms]
        mean = scale * (1 + lift + noise)[arms]
        var = torch.full_like(mean, scale**2)
        tuner.tell(hz.Readings(plan.round, ids, torch.full((len(arms),), 1e5), mean, var))
    tuner.ask()
    return tuner


def mixed_problem():
    """Every kind of parameter, names that try to break out, a level, many metrics."""
    space = hz.SearchSpace(
        [
            hz.Float(EVIL, 0.1, 10.0, log=True),
            hz.Int("depth</script><script>alert(2)</script>", 1, 8),
            hz.Choice("mode", ["<b onclick=alert(3)>a</b>", "%{x}", "c"]),
        ]
    )
    return hz.Problem(
        space=space,
        base=dict(zip(space.names, [1.0, 2, "c"])),
        metrics=["views", "watch", "<svg onload=alert(4)>"],
        objective="views + 0.1 * watch",
        constraints=[
            "watch >= -20%",
            hz.Constraint(
                lambda level: level[..., 2], at_most=9.0, on="level", name="<script>alert(5)"
            ),
        ],
    )


@cache
def mixed():
    return serve(hz.Tuner(mixed_problem(), hz.TunerConfig(**SMALL), study=EVIL), 3)


@cache
def simulated():
    world = ReplayWorld(seed=1, num_params=2)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL))
    records = list(run(tuner, world, 5))
    return tuner, records, world.oracle(1000), world


@cache
def troubled():
    with pytest.warns(hz.TunerWarning, match="Drift: deltas of"):
        return trouble(make())


@cache
def calm():
    """Twelve hours, long before anything turns."""
    tuner = make(config=CONFIG.model_copy(update={"drift_alpha": None}))
    play(tuner, TURNS_AT - 2)
    tuner.ask()
    return tuner


def strings(value):
    """All texts within a figure or another value of JSON, without their keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
