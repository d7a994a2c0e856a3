"""Whole studies of every kind on the simulated card, each beside the same study on the CPU.

    python -m bench.device.studies GUARD [KIND ...]      prints one JSON object per kind

``GUARD`` is the library that ``python -m bench.device.guard FOLDER`` builds. Each object says
whether the plans are the CPU's, and what the last ``ask`` cost.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.device import guard

# Everything that the default configuration does, at a small size.
SMALL = {
    **{"num_draws": 48, "num_samples": 96, "num_proposals": 2, "initial_candidates": 8},
    **{"num_starts": 2, "proposal_probability": 1.0},
}
ROUNDS = 1


def play(kind: str, device: str) -> list[Any]:
    """The plans of a study of this kind; the record holds what the last of them cost."""
    import torch

    torch.manual_seed(0)
    return (KINDS | MORE)[kind](device)


def space(kind: str) -> Any:
    import hyperzero_torch as hz

    a, b = hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)
    if kind == "mixed":
        return hz.SearchSpace([a, hz.Int("b", 1, 9), hz.Choice("c", ["x", "y", "z"])])
    limits = ["a + b <= 1.3", "a - b <= 0.4"] if kind == "constrained" else []
    return hz.SearchSpace([a, b], constraints=limits)


def problem(kind: str, objective: Any = "gain + 0.5 * more", **options: Any) -> Any:
    import hyperzero_torch as hz

    base = {"a": 0.4, "b": 0.6}
    if kind == "mixed":
        base = {"a": 0.4, "b": 3, "c": "y"}
    metrics = ["gain", "more", "guard"]
    constraints = ["level(guard) >= 9.5"] if kind == "levels" else ["guard >= -5%"]
    return hz.Problem(space(kind), base, metrics, objective, constraints, **options)


def reply(plan: Any) -> Any:
    """An hour of a platform: smooth functions of the first parameters, and noise."""
    import torch

    import hyperzero_torch as hz

    generator = torch.Generator().manual_seed(plan.round)
    first, second = plan.theta[:, 0], plan.theta[:, 1] / plan.theta[:, 1].abs().max().clamp_min(1)
    rows = [1 + 0.1 * first, 1 - 0.03 * second.square(), 1 - 0.02 * second]
    mean = 10 * torch.stack(rows, -1)
    count = 2000.0 * torch.tensor(plan.shares).unsqueeze(-1).expand_as(mean)
    mean = mean + torch.randn(mean.shape, generator=generator, dtype=mean.dtype) / count.sqrt()
    return hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean))


def plans(tuner: Any, rounds: int = ROUNDS) -> list[Any]:
    """Ask and tell, and ask once more."""
    asked = []
    for _ in range(rounds):
        asked.append(tuner.ask())
        tuner.tell(reply(asked[-1]))
    clear()
    asked.append(tuner.ask())
    return asked


def clear() -> None:
    """Count what follows alone."""
    from bench.device import card

    card.current.clear()


def config(**changes: Any) -> Any:
    import hyperzero_torch as hz

    return hz.TunerConfig(**(SMALL | changes))


def plain(kind: str, device: str, rounds: int = ROUNDS, **changes: Any) -> list[Any]:
    import hyperzero_torch as hz

    return plans(hz.Tuner(problem(kind), config(**changes), device=device), rounds)


def foreign(surrogate: str, device: str) -> list[Any]:
    """A surrogate that is not the package's own."""
    import hyperzero_torch as hz

    tuner = hz.Tuner(problem("pooled"), config(), device=device, surrogate=surrogate)
    return plans(tuner, rounds=2)


def module(device: str, where: str, refined: bool) -> list[Any]:
    """A network as the objective; ``where`` it lies when the problem is made."""
    import torch

    import hyperzero_torch as hz

    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    net = torch.nn.Sequential(net, torch.nn.Flatten(-2)).double().eval()
    starts = {} if refined else {"num_starts": 0}
    return plans(hz.Tuner(problem("module", net.to(where)), config(**starts), device=device))


def resumed(device: str) -> list[Any]:
    """A study in a journal that another tuner continues; what it says of itself as well."""
    import hyperzero_torch as hz

    journal = hz.MemoryJournal()
    asked = plans(hz.Tuner(problem("pooled"), config(), journal, device=device))
    again = hz.Tuner.resume(journal, device=device)
    again.tell(reply(asked[-1]))
    again.recommend()
    again.explain()
    again.posterior({"a": 0.3, "b": 0.3})
    clear()
    return [*asked, again.ask()]


def transferred(device: str) -> list[Any]:
    """A study that learns from two domains, one of which misleads it."""
    import torch

    import hyperzero_torch as hz
    from hyperzero_torch.transfer import Source

    sources = []
    for number, sign in enumerate((1.0, -1.0)):
        x = space("pooled").sobol(16, seed=number)
        lift = torch.stack([0.1 * x[:, 0], -0.03 * x[:, 1].square(), -0.02 * x[:, 1]], -1)
        mean, rows = sign * (lift - lift[:1]), space("pooled").to_parameters(x)
        metrics = ("gain", "more", "guard")
        sources.append(Source(f"domain {number}", rows, metrics, mean, torch.full_like(mean, 1e-5)))
    return plans(hz.Tuner(problem("pooled"), config(), device=device, sources=sources))


KINDS: dict[str, Callable[[str], list[Any]]] = {
    "pooled": lambda device: plain("pooled", device, rounds=3),
    "own": lambda device: plain("own", device, evidence="own", draws="marginal"),
    "levels": lambda device: plain("levels", device),
    "constrained": lambda device: plain("constrained", device),
    "mixed": lambda device: plain("mixed", device),
    "module": lambda device: module(device, "cpu", refined=True),
    "module on the card": lambda device: module(device, device, refined=False),
    "resumed": resumed,
    "transferred": transferred,
    **{name: partial(foreign, name) for name in ("rbf", "ensemble")},
}
#: Slower, and run by name alone. Three of them add by atomics outside this package.
MORE = {
    **{
        name: partial(foreign, name)
        for name in ("additive", "linear+matern", "quadratic+matern", "multitask")
    },
    **{
        name: partial(foreign, f"bench.quality.kernels:{name}")
        for name in ("periodic", "spectral", "deep")
    },
}


def compared(kind: str) -> dict[str, Any]:
    """The study on the CPU and on the card: an error, or whether the plans agree."""
    from bench.device.card import simulated

    expected = play(kind, "cpu")
    with simulated() as record:
        try:
            got = play(kind, "cuda")
        except Exception:
            return {"kind": kind, "error": traceback.format_exc()}
        return {
            "kind": kind,
            "error": None,
            "same arms": [p.candidate_ids == q.candidate_ids for p, q in zip(expected, got)],
            "same shares": [p.shares == q.shares for p, q in zip(expected, got)],
            "largest difference of theta": max(
                float((p.theta - q.theta).abs().max()) if p.theta.shape == q.theta.shape else 1e9
                for p, q in zip(expected, got)
            ),
            **record.totals(),
            "atomic lines": sorted(record.atomics),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guard", type=Path)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS | MORE)}")
    options = parser.parse_args(arguments)
    guard.load(options.guard)
    import torch

    torch.set_num_threads(1)
    for kind in options.kinds or KINDS:
        print(json.dumps(compared(kind)), flush=True)


if __name__ == "__main__":
    main()
