"""A neural objective that is learnt from past experiments.

    python examples/neural_objective.py

The goal, for example retention, is often measured only weeks later, while hourly feedback has
clicks, watch time and similar metrics. Past experiments have both. Here a small network learns from
400 of them how short-term deltas relate to retention. It becomes the objective of a study, which
tunes a simulated recommender for eight hours under a guardrail; another study maximises the first
metric. The script prints, after half a minute, what each study recommends and its true retention.
"""

from __future__ import annotations

import argparse
import io
from typing import NamedTuple

import torch
from torch import Tensor, nn

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld, run

METRICS = ["gain_1", "gain_2", "gain_3", "guard"]
GUARDRAIL = "guard >= -0.1%"


def retention(delta: Tensor) -> Tensor:
    """True retention ``(...)`` given short-term deltas ``(..., 4)``; unknown to the tuner.

    The effect of the first metric saturates, and is smaller if the third metric falls: clicks that
    users regret.
    """
    first, second, third, _ = (100 * delta).unbind(-1)
    saturating = torch.tanh(first / 2) + 0.5 * torch.tanh(second / 3)
    regret = torch.relu(first) * torch.relu(-third) / 4
    return 0.01 * (saturating + 0.3 * third - regret)


class PastExperiments(NamedTuple):
    """Measured short-term deltas ``(n, 4)``, and retention ``(n,)`` weeks later."""

    delta: Tensor
    retention: Tensor


def past_experiments(num: int, seed: int) -> PastExperiments:
    """A simulated archive: deltas of a few percent, all measured with noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    true = 0.025 * normal(num, len(METRICS))
    measured = true + 0.002 * normal(num, len(METRICS))
    return PastExperiments(measured, retention(true) + 0.002 * normal(num))


class Value(nn.Module):
    """Deltas ``(..., metrics)`` to retention ``(...)``: a network over standardised deltas."""

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, num_metrics: int, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_metrics, dtype=torch.float64))
        self.register_buffer("std", torch.ones(num_metrics, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        layers = [nn.Linear(num_metrics, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1)).double()

    def forward(self, delta: Tensor) -> Tensor:
        """Retention, a fraction."""
        value: Tensor = self.layers((delta - self.mean) / self.std).squeeze(-1)
        return self.scale * value


def train(past: PastExperiments, steps: int = 600) -> tuple[Value, float]:
    """Fit to four fifths of the experiments; return R squared on the (noisy) rest."""
    torch.manual_seed(0)
    net = Value(past.delta.shape[1])
    cut = len(past.delta) * 4 // 5
    net.mean.copy_(past.delta[:cut].mean(0))
    net.std.copy_(past.delta[:cut].std(0))
    net.scale.copy_(past.retention[:cut].std())
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        error = (net(past.delta[:cut]) - past.retention[:cut]) / net.scale
        error.square().mean().backward()
        optimiser.step()
    net.eval().requires_grad_(False)
    rest = past.retention[cut:]
    miss = (net(past.delta[cut:]) - rest).square().mean()
    return net, float(1 - miss / rest.var(correction=0))


def tune(
    world: GuardrailWorld, objective: nn.Module | str, rounds: int
) -> tuple[hz.Recommendation, float, float]:
    """Tune the world for some hours: the recommendation, its true retention and violation."""
    problem = hz.Problem(
        space=world.problem.space,
        base=world.problem.base,
        metrics=METRICS,
        objective=objective,
        constraints=[GUARDRAIL],
    )
    tuner = hz.Tuner(problem, hz.TunerConfig(num_draws=500, num_samples=512), seed=0)
    for _ in run(tuner, world, rounds):
        pass
    best = tuner.recommend()
    delta = world.true_delta(world.problem.space.theta(best.parameters).unsqueeze(0))[0]
    return best, float(retention(delta)), max(0.0, float(-0.001 - delta[3]))


def main(num_past: int = 400, rounds: int = 8, seed: int = 4) -> dict[str, float]:
    """Run the example; return the printed numbers."""
    net, r_squared = train(past_experiments(num_past, seed=0))
    print(
        f"trained on {num_past * 4 // 5} experiments; R^2 on {num_past // 5} others {r_squared:.2f}"
    )

    file = io.BytesIO()  # as to disk, or into torch.distributed.checkpoint
    torch.save(net.state_dict(), file)
    file.seek(0)
    objective = Value(len(METRICS))
    objective.load_state_dict(torch.load(file, weights_only=True))
    objective.eval().requires_grad_(False)

    world = GuardrailWorld(seed=seed, num_gains=3, delay=1)
    results = {"r_squared": r_squared}
    for name, wanted in (("neural", objective), ("first metric", "gain_1")):
        best, truly, violation = tune(world, wanted, rounds)
        print(f"\nmaximising the {name} objective: {best}")
        print(f"true retention {truly:+.2%}, guardrail violated by {violation:.2%}")
        results |= {name: truly, f"{name} violation": violation}
    space = world.problem.space
    delta = world.true_delta(space.from_unit(space.sobol(4096, seed=0)))
    possible = torch.where(delta[:, 3] >= -0.001, retention(delta), -torch.inf).max()
    print(f"\nbest retention of any feasible theta: {float(possible):+.2%}")
    return results | {"possible": float(possible)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    main(rounds=parser.parse_args().rounds)
