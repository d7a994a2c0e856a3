"""The drift detector: its rate of false alarms and its delay.

    python -m bench.reliability.drift_alarms [--studies 1000]

Twenty candidates and a control are served every hour, a posterior is updated with every delta
(exact Gaussian updates, the shared control included), and the detector runs on its residuals.
Without drift: false alarms within 500 rounds, rounds from one to the next. With drift: rounds from
its start to the alarm, for lifts of the guardrail world that rotate by 0.02 radians an hour or jump
once.
Writes bench/results/drift_alarms.json.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.stats import drift

BENCH = Path(__file__).parents[1]
ARMS, ROUNDS = 20, 500
USERS = 50_000  # an hour, at traffic 1
RELATIVE_VAR = (0.6 / 0.67) ** 2  # of one user's value, as in the worlds
PRIOR_STD = 0.02  # of the lifts
ALPHA, ALPHA_EVER = 1e-3, 0.05
TURN, START = 0.02, 48
WORLDS = 30

Truth = Callable[[int], Tensor]


def noise(traffic: float) -> tuple[Tensor, Tensor]:
    """Each delta's variance ``(arms,)`` and its loading on the control's error."""
    control = 1 / (1 + math.sqrt(ARMS))
    own = RELATIVE_VAR / (USERS * traffic * (1 - control) / ARMS)
    shared = RELATIVE_VAR / (USERS * traffic * control)
    ones = torch.ones(ARMS, dtype=torch.float64)
    return (own + shared) * ones, math.sqrt(shared) * ones


def residuals(
    truth: Truth,
    studies: int,
    rounds: int,
    generator: torch.Generator,
    *,
    traffic: float = 1.0,
    dispersion: float = 1.0,
    whitened: bool = True,
    served: float = 1.0,
) -> Iterator[Tensor]:
    """The z of each round, ``(studies, arms, 1)``, NaN where an arm was not served.

    Args:
        truth: round to the true lifts, ``(studies, arms)``.
        dispersion: the deltas' true variance over the assumed one.
        whitened: False divides each residual by its own predictive standard deviation alone.
        served: share of the candidates that are served in a round.
    """
    var, loading = noise(traffic)
    spread = dispersion * ((var - loading.square()).diag() + torch.outer(loading, loading))
    factor = torch.linalg.cholesky(spread)
    mean = torch.zeros(studies, ARMS, dtype=torch.float64)
    belief = PRIOR_STD**2 * torch.eye(ARMS, dtype=torch.float64)
    for round_ in range(rounds):
        error = torch.randn(studies, ARMS, dtype=torch.float64, generator=generator) @ factor.T
        here = torch.rand(ARMS, generator=generator) < served
        residual = torch.where(here, truth(round_) + error - mean, torch.nan)
        total = drift.predictive_covariance(
            belief.unsqueeze(0), var.unsqueeze(-1), loading.unsqueeze(-1)
        )
        if whitened:
            yield drift.whiten(residual.unsqueeze(-1), total)
        else:
            yield (residual / total[0].diagonal().sqrt()).unsqueeze(-1)
        at = here.nonzero().squeeze(-1)
        gain = torch.linalg.solve(total[0][at][:, at], belief[at]).T
        mean = mean + residual[:, at] @ gain.T
        belief = belief - gain @ belief[at]


def first_alarms(stream: Iterator[Tensor], rounds: int, tolerance: float = 1.0) -> dict[str, Any]:
    """Round of each study's first alarm, by detector and by e-process; ``rounds`` if none."""
    first: dict[str, Tensor] = {}
    state = None
    for round_, z in enumerate(stream):
        state = drift.init(*z.shape) if state is None else state
        state = drift.update(state, z, tolerance=tolerance)
        hits = {"detector": drift.alarm(state, ALPHA), "process": drift.drifted(state, ALPHA_EVER)}
        for name, hit in hits.items():
            earliest = first.setdefault(name, torch.full((len(z),), rounds))
            first[name] = torch.where(hit[:, 0] & (earliest == rounds), round_, earliest)
    return first


def run_length(stream: Iterator[Tensor], alpha: float) -> float:
    """Mean number of rounds between alarms of the detector, which restarts after each."""
    state, alarms, rounds = None, 0.0, 0
    for z in stream:
        state = drift.init(*z.shape) if state is None else state
        state = drift.update(state, z)
        hit = drift.alarm(state, alpha)
        alarms += float(hit.sum())
        rounds += len(z)
        state = drift.restart(state, hit)
    return rounds / alarms if alarms else math.inf


def still(studies: int, generator: torch.Generator) -> Truth:
    """Constant lifts, drawn from the prior."""
    lifts = PRIOR_STD * torch.randn(studies, ARMS, dtype=torch.float64, generator=generator)
    return lambda round_: lifts


def moving(studies: int, start: int, jump: int | None) -> Truth:
    """Lifts of guardrail worlds that rotate from ``start`` on, or jump by ``jump`` rounds' turn."""
    after = [0] if jump is None else [0, jump]
    worlds = [GuardrailWorld(seed, 2, drift=TURN) for seed in range(min(studies, WORLDS))]
    which = torch.arange(studies) % len(worlds)

    def at(turned: int) -> Tensor:
        lifts = []
        for seed, world in enumerate(worlds):
            space = world.problem.space
            theta = space.from_unit(space.sobol(ARMS, seed=seed))
            lifts.append(world.true_delta(theta, turned)[:, 0])
        return torch.stack(lifts)[which]

    # Every point of the rotation is cos(angle) * now + sin(angle) * later.
    now, quarter = at(0), at(round(math.pi / 2 / TURN))
    rest = math.cos(TURN * round(math.pi / 2 / TURN))
    later = (quarter - rest * now) / math.sqrt(1 - rest**2)

    def truth(round_: int) -> Tensor:
        turned = max(0, round_ - start) if jump is None else after[round_ >= start]
        return math.cos(TURN * turned) * now + math.sin(TURN * turned) * later

    return truth


def false_alarms(studies: int, rounds: int, seed: int, **how: Any) -> dict[str, Any]:
    """Without drift: share of studies with an alarm."""
    generator = torch.Generator().manual_seed(seed)
    tolerance = how.pop("tolerance", 1.0)
    truth = still(studies, generator)
    first = first_alarms(residuals(truth, studies, rounds, generator, **how), rounds, tolerance)
    return {
        "studies": studies,
        "rounds": rounds,
        **how,
        "tolerance": tolerance,
        **{name: float((alarms < rounds).double().mean()) for name, alarms in first.items()},
        **{f"{name}_median": float(alarms.double().median()) for name, alarms in first.items()},
    }


def delays(
    studies: int, rounds: int, seed: int, start: int, jump: int | None, **how: Any
) -> dict[str, Any]:
    """With drift: rounds from its start to the first alarm after it."""
    generator = torch.Generator().manual_seed(seed)
    tolerance = how.pop("tolerance", 1.0)
    stream = residuals(moving(studies, start, jump), studies, rounds, generator, **how)
    first = first_alarms(stream, rounds, tolerance)
    record: dict[str, Any] = {"start": start, "jump": jump, **how, "tolerance": tolerance}
    for name, alarms in first.items():
        after = alarms[alarms >= start].double()  # earlier alarms were false
        record[name] = {
            "studies": len(after),
            "found": float((after < start + ROUNDS).double().mean()),
            "median": float(after.median()) - start + 1,
            "late": float(after.quantile(0.9)) - start + 1,
        }
    return record


def measure(studies: int) -> dict[str, Any]:
    """All measurements."""
    kinds: list[dict[str, Any]] = [
        {},
        {"served": 0.5},
        {"traffic": 0.1},
        {"dispersion": 1.1},
        {"dispersion": 1.3},
        {"dispersion": 1.3, "tolerance": 1.3},
        {"whitened": False},
    ]
    still_ = [false_alarms(studies, ROUNDS, seed, **dict(kind)) for seed, kind in enumerate(kinds)]
    lengths = []
    for alpha in (0.01, 0.001):
        generator = torch.Generator().manual_seed(7)
        num, rounds = max(1, studies // 5), int(4 / alpha)
        stream = residuals(still(num, generator), num, rounds, generator)
        lengths.append(
            {"alpha": alpha, "rounds": num * rounds, "length": run_length(stream, alpha)}
        )
    hows: list[dict[str, Any]] = [{}, {"traffic": 0.1}, {"tolerance": 1.3}]
    drifts = [
        delays(studies, START + ROUNDS, 11, start, jump, **dict(how))
        for start, jump in ((0, None), (START, None), (START, 25), (START, 50))
        for how in hows
    ]
    return {
        "alpha": ALPHA,
        "alpha_ever": ALPHA_EVER,
        "still": still_,
        "length": lengths,
        "drift": drifts,
    }


def table(path: Path = BENCH / "results" / "drift_alarms.json") -> str:
    """False alarms, run lengths and delays."""
    results = json.loads(path.read_text())
    alpha, ever = results["alpha"], results["alpha_ever"]
    lines = [
        f"| no drift, {ROUNDS} rounds | studies | detector at {alpha:g} (bound "
        f"{100 * alpha * ROUNDS:.0f} %) | process at {ever:g} (bound {100 * ever:.0f} %) |",
        "|" + " --- |" * 4,
    ]
    lines += [
        f"| {_label(r)} | {r['studies']} | {_rate(r, 'detector')} | {_rate(r, 'process')} |"
        for r in results["still"]
    ]
    lines += [
        "",
        "| detector at | rounds monitored | rounds per false alarm | bound |",
        "|" + " --- |" * 4,
    ]
    lines += [
        f"| {r['alpha']:g} | {r['rounds']} | {r['length']:.0f} | {1 / r['alpha']:.0f} |"
        for r in results["length"]
    ]
    lines += [
        "",
        f"| drift, monitored for {ROUNDS} rounds | | detector: rounds to the alarm, median "
        "| 90 % by | process: median | 90 % by |",
        "|" + " --- |" * 6,
    ]
    for r in results["drift"]:
        turn = f"turns by {TURN:g} rad an hour"
        turn = turn if r["jump"] is None else f"jumps by {r['jump'] * TURN:g} rad"
        cells = []
        for name in ("detector", "process"):
            delay = r[name]
            for key, share in (("median", 0.5), ("late", 0.9)):
                cells.append(f"{delay[key]:.0f}" if delay["found"] > share else "later")
        lines.append(f"| {turn}, from round {r['start']} | {_label(r)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(r: dict[str, Any], name: str) -> str:
    median = f", median at {r[f'{name}_median']:.0f}" if r[name] > 0.5 else ""
    return f"{100 * r[name]:.1f} %{median}"


def _label(r: dict[str, Any]) -> str:
    parts = [
        "a tenth of the traffic" if r.get("traffic", 1) < 1 else "",
        "half of the candidates in a round" if r.get("served", 1) < 1 else "",
        f"noise variance x {r['dispersion']:g}" if r.get("dispersion", 1) > 1 else "",
        "not whitened" if not r.get("whitened", True) else "",
        f"tolerance {r['tolerance']:g}" if r["tolerance"] > 1 else "",
    ]
    return ", ".join(s for s in parts if s) or "as modelled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = BENCH / "results" / "drift_alarms.json"
    path.write_text(json.dumps(measure(options.studies)) + "\n")
    print(table(path))


if __name__ == "__main__":
    main()
