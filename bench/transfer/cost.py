"""What sources cost: a round of 4 metrics with 10 sources of 300 candidates against a cold one.

    python -m bench.transfer.cost

CPU seconds of a plan, its fit included, once the sources' own work is done; and that work.
"""

from __future__ import annotations

import json
import time

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.transfer import Source

from .run import RESULTS

_SOURCES, _CANDIDATES, _ROUNDS = 10, 300, 12


def sources(world: GuardrailWorld) -> list[Source]:
    space = world.problem.space
    drawn = []
    for i in range(_SOURCES):
        generator = torch.Generator().manual_seed(i)
        x = space.sobol(_CANDIDATES, seed=i)
        true = world.true_delta(space.from_unit(x))
        own = 0.004 * torch.randn(true.shape, dtype=torch.float64, generator=generator)
        drawn.append(
            Source(
                name=f"domain_{i}",
                parameters=space.to_parameters(space.from_unit(x)),
                metrics=world.problem.metrics,
                mean=true + own,
                var=torch.full_like(true, 0.004**2),
            )
        )
    return drawn


def seconds(given: list[Source]) -> tuple[list[float], int, int]:
    """CPU seconds of every round's plan, how many rounds the sources counted in, and the first
    that weighed them: it does their own work, which is kept."""
    world = GuardrailWorld(0, 4, num_gains=2, num_guardrails=2)
    tuner = hz.Tuner(world.problem, seed=0, sources=given)
    mail: dict[int, list[hz.Readings]] = {}
    spent = []
    for round_ in range(_ROUNDS):
        if round_ in mail:
            tuner.tell(mail.pop(round_))
        start = time.process_time()
        plan = tuner.ask(round_)
        spent.append(time.process_time() - start)
        for delivery in world.serve(plan):
            mail.setdefault(max(delivery.due, round_ + 1), []).append(delivery.readings)
    facts = [p.details.get("transfer", {}) for p in tuner.history.plans.values()]
    first = next((round_ for round_, weighed in enumerate(facts) if "wealth" in weighed), 0)
    return spent, sum(bool(weighed.get("metrics")) for weighed in facts), first


def main() -> None:
    torch.set_num_threads(1)
    world = GuardrailWorld(0, 4, num_gains=2, num_guardrails=2)
    cold, *_ = seconds([])
    warm, used, first = seconds(sources(world))
    late = slice(_ROUNDS // 2, None)
    record = {
        "cold_seconds": cold,
        "warm_seconds": warm,
        "rounds_transferred": used,
        "setup_seconds": warm[first] - cold[first],
        "ratio": sum(warm[late]) / sum(cold[late]),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "transfer_cost.json").write_text(json.dumps(record, indent=1))
    print(
        f"a round: cold {sum(cold[late]) / len(cold[late]):.2f} s, with sources "
        f"{sum(warm[late]) / len(warm[late]):.2f} s ({record['ratio']:.2f} x); once "
        f"{record['setup_seconds']:.1f} s; transferred in {used} of {_ROUNDS} rounds"
    )


if __name__ == "__main__":
    main()
