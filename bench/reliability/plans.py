"""Are the plans of recorded studies still the same, to the last bit?

    python -m bench.reliability.plans [--record | --add] [--only NAME,NAME] [--rounds N]

Each study below runs on one thread, and the digest of every plan (round, candidates, thetas, slots
and shares) is compared with the one in ``bench/results/plans.json``. ``--record`` rewrites that
file: do so only if plans change on purpose, and say in the commit which ones change and why.

Floating-point arithmetic differs in its last digits between processors and builds of PyTorch, and a
small difference can change later plans. So the file has a record for each machine, and bits are
compared on these. Elsewhere only the first plan is, which rests on no estimate: its numbers may
differ in the last digits, since a snap to constraints and log scales computes. That says nothing of
later plans: ``--add`` this machine's record first, from the commit that recorded the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld, PaperWorld, run
from hyperzero_torch.transfer import Source

RESULTS = Path(__file__).parent.parent / "results" / "plans.json"
SMALL = hz.TunerConfig(num_draws=200, num_samples=256)


def default_2(rounds: int) -> Iterator[hz.Tuner]:
    """The default in two dimensions with a binding guardrail."""
    world = GuardrailWorld(3)
    tuner = hz.Tuner(world.problem, seed=1)
    for _ in run(tuner, world, rounds):
        yield tuner


def default_4(rounds: int) -> Iterator[hz.Tuner]:
    """The default in four dimensions, long enough for verification to begin."""
    world = GuardrailWorld(4, 4)
    tuner = hz.Tuner(world.problem, seed=2)
    for _ in run(tuner, world, rounds):
        yield tuner


def paper(rounds: int) -> Iterator[hz.Tuner]:
    """Algorithms 1 to 3 to the letter, in the paper's world."""
    world = PaperWorld(42)
    tuner = hz.Tuner(world.problem, hz.TunerConfig.paper(), seed=42)
    for _ in run(tuner, world, rounds):
        yield tuner


def ablated(rounds: int) -> Iterator[hz.Tuner]:
    """Own averages, marginal draws, users as weights, a fixed control share, no base."""
    world = GuardrailWorld(5, num_gains=2)
    config = hz.TunerConfig(
        evidence="own", draws="marginal", weights="users", control_share=0.2, anchor=False,
        shared_control=False, calibrate=False, num_draws=300, retire_after=3,
    )  # fmt: skip
    tuner = hz.Tuner(world.problem, config, seed=3)
    for _ in run(tuner, world, rounds):
        yield tuner


def linear_constraints(rounds: int) -> Iterator[hz.Tuner]:
    """Linear constraints on theta, marginal draws of the pooled evidence."""
    space = hz.SearchSpace(
        [hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 2.0), hz.Float("c", 0.1, 10.0, log=True)],
        constraints=["2 * a + b <= 2", "a >= 0.1 * b"],
    )
    base = {"a": 0.3, "b": 0.5, "c": 1.0}
    problem = hz.Problem(space, base, ["gain", "guard"], "gain", ["guard >= -2%"])
    config = SMALL.model_copy(update={"draws": "marginal"})
    yield from _answered(hz.Tuner(problem, config, seed=4), rounds)


class Network(torch.nn.Module):
    """A small network with fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.inner = torch.nn.Linear(3, 8, dtype=torch.float64)
        self.outer = torch.nn.Linear(8, 1, dtype=torch.float64)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator, dtype=torch.float64))

    def forward(self, delta: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.outer(torch.tanh(10 * self.inner(delta))).squeeze(-1)
        return value


def levels_and_network(rounds: int) -> Iterator[hz.Tuner]:
    """A neural objective, and a constraint on a level that is known from the control's readings."""
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(
        space, {"a": 0.4, "b": 0.6}, ["gain", "guard", "reports"], Network(),
        ["level(reports) <= 10.4", "guard >= -5%"],
    )  # fmt: skip
    yield from _answered(hz.Tuner(problem, SMALL, seed=5), rounds)


def mixed_parameters(rounds: int) -> Iterator[hz.Tuner]:
    """Parameters of every kind."""
    space = hz.SearchSpace(
        [
            hz.Float("weight", 0.0, 1.0),
            hz.Float("scale", 0.1, 10.0, log=True),
            hz.Int("depth", 1, 8),
            hz.Choice("mode", ["calm", "fresh", "mixed"]),
        ]
    )
    base = {"weight": 0.4, "scale": 1.0, "depth": 2, "mode": "calm"}
    problem = hz.Problem(space, base, ["gain", "guard"], "gain + 0.2 * guard", ["guard >= -5%"])
    yield from _answered(hz.Tuner(problem, SMALL, seed=6), rounds)


def late_and_revised(rounds: int) -> Iterator[hz.Tuner]:
    """Readings up to five rounds late, in parts, out of order, and corrected later."""
    tuner = hz.Tuner(_problem(), SMALL, seed=7)
    plans: list[hz.Plan] = []
    for now in range(rounds):
        plans.append(tuner.ask())
        yield tuner
        if now >= 2 and now % 3 == 2:
            for plan in reversed(plans[now - 2 : now + 1]):
                arms = list(range(0, len(plan), 1 if plan.round % 2 else 2))
                tuner.tell(_reply(plan, len(tuner.problem.metrics), arms))
        if now >= 6 and now % 4 == 0:
            old = plans[now - 5]
            tuner.tell(_reply(old, len(tuner.problem.metrics), revision=1))


def transfer(rounds: int) -> Iterator[hz.Tuner]:
    """Three other domains, one of them reversed."""
    tuner = hz.Tuner(_problem(), SMALL, seed=8, sources=sources())
    yield from _answered(tuner, rounds)


def transfer_first(rounds: int) -> Iterator[hz.Tuner]:
    """Two of these domains, which propose candidates before any evidence."""
    config = SMALL.model_copy(update={"seed_first": True, "num_seeds": 6})
    yield from _answered(hz.Tuner(_problem(), config, seed=9, sources=sources()[:2]), rounds)


def long_study(rounds: int) -> Iterator[hz.Tuner]:
    """Blocks, retirements, drift, rounds set aside, a rollback and a compaction."""
    world = GuardrailWorld(6, drift=0.3)
    config = hz.TunerConfig(
        block_rounds=24, num_draws=60, num_samples=64, num_starts=0, initial_candidates=8,
        max_arms=8, num_proposals=1, rounds_per_day=6, drift_alpha=0.05, max_candidates=32,
        retire_after=8,
    )  # fmt: skip
    tuner = hz.Tuner(world.problem, config, seed=10)
    happens: dict[int, Callable[[], Any]] = {
        30: lambda: tuner.study.set_aside([26, 27], "the pipeline was down"),
        34: lambda: tuner.study.reinstate([27], "only one of them was wrong"),
        62: lambda: tuner.study.roll_back(58, "a release went wrong"),
        78: lambda: tuner.study.compact(40),
    }
    for record in run(tuner, world, rounds):
        yield tuner
        if record.round in happens:
            happens[record.round]()


STUDIES: dict[str, tuple[Callable[[int], Iterator[hz.Tuner]], int]] = {
    "default_2": (default_2, 14),
    "default_4": (default_4, 30),
    "paper": (paper, 8),
    "ablated": (ablated, 12),
    "linear_constraints": (linear_constraints, 12),
    "levels_and_network": (levels_and_network, 12),
    "mixed_parameters": (mixed_parameters, 12),
    "late_and_revised": (late_and_revised, 16),
    "transfer": (transfer, 12),
    "transfer_first": (transfer_first, 8),
    "long_study": (long_study, 100),
}


def sources() -> list[Source]:
    """Three domains: two with lifts similar to ours, and one with reversed lifts."""
    generator = torch.Generator().manual_seed(11)
    domains = []
    for name, sign, tilt in (("north", 1.0, 0.0), ("east", 1.0, 0.1), ("reversed", -1.0, 0.0)):
        theta = torch.rand(40, 2, dtype=torch.float64, generator=generator)
        noise = torch.randn(40, 2, dtype=torch.float64, generator=generator)
        mean = sign * _lift(theta, 2) * (1 + tilt * theta[:, :1]) + 0.002 * noise
        rows = [{"a": float(a), "b": float(b)} for a, b in theta]
        var = torch.full_like(mean, 4e-6)
        domains.append(Source(name, rows, ("gain", "guard"), mean, var, num_rounds=48))
    return domains


def _problem() -> hz.Problem:
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    return hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -4%"])


def _answered(tuner: hz.Tuner, rounds: int) -> Iterator[hz.Tuner]:
    """A platform that answers two rounds later."""
    plans = []
    for _ in range(rounds):
        plans.append(tuner.ask())
        yield tuner
        if len(plans) > 2:
            tuner.tell(_reply(plans[-3], len(tuner.problem.metrics)))


def _lift(theta: torch.Tensor, metrics: int) -> torch.Tensor:
    def raw(at: torch.Tensor) -> torch.Tensor:
        gain = 0.1 * torch.sin(3 * at[:, 0]) - 0.08 * (at[:, 1] - 0.3).square()
        columns = [gain, -0.06 * at[:, 0] * at[:, 1], 0.05 * at[:, 0] - 0.02 * at[:, -1]]
        return torch.stack(columns[:metrics], -1)

    return raw(theta) - raw(torch.full_like(theta[:1], 0.5))


def _reply(
    plan: hz.Plan, metrics: int, arms: list[int] | None = None, revision: int = 0
) -> hz.Readings:
    """An hour of 20,000 users; ``arms`` are the rows that report."""
    generator = torch.Generator().manual_seed(1000 * revision + plan.round)
    level = 10 * (1 + _lift(plan.theta, metrics) - _lift(plan.theta[:1], metrics))
    noise = torch.randn(level.shape, generator=generator, dtype=torch.float64)
    count = (20_000.0 * torch.tensor(plan.shares)).unsqueeze(-1).expand_as(level)
    mean = level + noise * 2 / count.sqrt()
    rows = list(range(len(plan))) if arms is None else arms
    ids = [plan.candidate_ids[i] for i in rows]
    var = torch.full_like(mean, 4.0)
    return hz.Readings(plan.round, ids, count[rows], mean[rows], var[rows], revision=revision)


def digest(plan: hz.Plan) -> str:
    """A checksum of everything that a platform serves, to the last bit."""
    numbers = [[value.hex() for value in row] for row in plan.theta.tolist()]
    shares = [float(share).hex() for share in plan.shares]
    text = json.dumps([plan.round, plan.candidate_ids, plan.slots, shares, numbers])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def numbers(plan: hz.Plan) -> dict[str, Any]:
    """A plan as numbers, for machines on which the last bits differ."""
    return {
        "candidates": list(plan.candidate_ids),
        "slots": list(plan.slots),
        "shares": [float(share) for share in plan.shares],
        "theta": plan.theta.tolist(),
    }


def is_close(first: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether two plans are the same but for the last digits of their numbers."""
    if any(first[key] != then[key] for key in ("candidates", "slots")):
        return False
    pairs = [
        [torch.tensor(plan[k], dtype=torch.float64) for plan in (first, then)]
        for k in ("shares", "theta")
    ]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


def outcome(tuner: hz.Tuner) -> dict[str, Any]:
    """The study's recommendation and evidence, to the last bit, and its decisions by kind."""
    best = tuner.recommend()
    kinds: dict[str, int] = {}
    for decision in tuner.history.decisions:
        kinds[decision.kind] = kinds.get(decision.kind, 0) + 1
    bucket = tuner.bucket()
    evidence = torch.cat([bucket.mean, bucket.var]).nan_to_num(-7.0).numpy().tobytes()
    values = (best.objective_mean, best.objective_lcb, best.prob_feasible)
    return {
        "recommended": best.candidate_id,
        "values": [float(value).hex() for value in values],
        "evidence": hashlib.sha256(evidence).hexdigest()[:16],
        "decisions": kinds,
    }


def machine() -> dict[str, str]:
    """The properties of the machine on which the last digits depend."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = [li for li in cpu.read_text().splitlines() if li.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "processor": model,
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def replay(name: str, rounds: int | None = None) -> dict[str, Any]:
    """Run a study and describe it."""
    study, usual = STUDIES[name]
    wanted = usual if rounds is None else min(rounds, usual)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        *_, tuner = study(wanted)
        plans = [tuner.ask(r) for r in sorted(tuner.history.plans)]
        record: dict[str, Any] = {"plans": list(map(digest, plans)), "first": numbers(plans[0])}
        if wanted == usual:
            record["outcome"] = outcome(tuner)
    finally:
        torch.set_num_threads(threads)
    return record


def read() -> list[dict[str, Any]]:
    """The record of each machine."""
    records: list[dict[str, Any]] = json.loads(RESULTS.read_text())
    return records


def nearest(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of this machine; another one's where there is none."""
    return next((r for r in records if r["machine"] == machine()), records[0])


def write(records: list[dict[str, Any]]) -> None:
    """Keep the records, one study a line."""
    texts = []
    for record in records:
        lines = [f"{json.dumps(n)}: {json.dumps(study)}" for n, study in record["studies"].items()]
        studies = ",\n".join(lines)
        texts.append(
            f'{{"machine": {json.dumps(record["machine"])}, "studies": {{\n{studies}\n}}}}'
        )
    RESULTS.write_text(f"[{', '.join(texts)}]\n")


def difference(name: str, study: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    """The first difference; None if everything that must agree on this machine does."""
    then = recorded["studies"][name]
    here = machine() == recorded["machine"]
    if not here:
        same = is_close(study["first"], then["first"])
        return None if same else f"{name}: the first plan differs in more than its last digits"
    pairs = list(zip(study["plans"], then["plans"]))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if first is not None:
        return f"{name}: the plan at position {first} of {len(pairs)} differs"
    if "outcome" in study and study["outcome"] != then["outcome"]:
        return f"{name}: same plans, but {study['outcome']} is not {then['outcome']}"
    return None


def main() -> None:
    """Record, or compare and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--record", action="store_true", help="rewrite the file, for this machine")
    kept.add_argument("--add", action="store_true", help="add this machine to the file")
    parser.add_argument("--only", default=",".join(STUDIES), help="names, by commas")
    parser.add_argument("--rounds", type=int, help="at most so many rounds of each")
    args = parser.parse_args()
    names = args.only.split(",")
    if (args.record or args.add) and (names != list(STUDIES) or args.rounds is not None):
        parser.error(
            "a record holds every study with all its rounds: leave out --only and --rounds"
        )
    if args.record or args.add:
        before = read() if args.add else []
        if any(r["machine"] == machine() for r in before):
            parser.error("this machine has a record; compare with it, or --record anew")
        record = {"machine": machine(), "studies": {n: replay(n) for n in names}}
        flaws = [difference(n, record["studies"][n], r) for r in before for n in names]
        if any(flaws):
            sys.exit("\n".join(filter(None, flaws)))
        write([*before, record])
        for name, study in record["studies"].items():
            print(name, len(study["plans"]), study["outcome"]["decisions"])
        return
    recorded = nearest(read())
    exact = machine() == recorded["machine"]
    print(
        "comparing every plan"
        if exact
        else "comparing FIRST plans alone, which rest on no fit: this machine has no record (--add)"
    )
    flaws = []
    for name in names:
        flaw = difference(name, replay(name, args.rounds), recorded)
        flaws += [flaw] if flaw else []
        print(flaw or f"{name}: the same", flush=True)
    sys.exit(1 if flaws else 0)


if __name__ == "__main__":
    main()
