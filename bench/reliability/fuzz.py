"""Hostile input, a hundred thousand times: does anything crash, slip through, or change a study?

    python -m bench.reliability.fuzz [--inputs 100000]

Readings files, study files, objective strings and journals are made from good ones by cutting,
doubling, swapping and replacing parts. Each must either be taken, and then hold what it says, or
be refused by one of our errors, and then nothing may have changed. Writes bench/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import hyperzero_torch as hz
from hyperzero_torch.cli.template import TEMPLATE

RESULTS = Path(__file__).parents[1] / "results" / "fuzz.json"
OBJECTIVES = (
    "gain + 0.5 * level(guard)", "max(gain, guard) - abs(gain) / 3", "exp(-gain) ** 2",
    "sqrt(level(gain)) * log(2 + guard)", "-(gain - guard) * 1e-3 + min(gain, 0.1%)",
)  # fmt: skip
PIECES = (
    "__import__('os').system('touch hacked')", "().__class__", "lambda: 0", "gain", "level(", ")",
    "**" * 40, "9" * 400, "1e999", "nan", "\x00", "é", "'", '"', ";", "%", "0/0", "(" * 300,
    "gain.__dict__", "[x for x in gain]", "-" * 500, "inf", "\n", "{{", "!!python/object:os.system",
    "null", "true", "- ", ": ", "&a *a", "1" + "0" * 30, "-1", ",", "\t", "round", "0x10", "1_000",
)  # fmt: skip
SHARES = {"objective": 0.5, "readings": 0.3, "study file": 0.15, "journal": 0.05}


def mutate(text: str, dice: random.Random) -> str:
    """One to four cuts, doublings, swaps or foreign pieces."""
    for _ in range(dice.randint(1, 4)):
        a, b = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        match dice.randrange(5):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:b] + text[a:]
            case 2:
                text = text[:a] + dice.choice(PIECES) + text[a:]
            case 3:
                text = text[:a] + dice.choice(PIECES) + text[b:]
            case 4 if text:
                at = dice.randrange(len(text))
                text = text[:at] + chr(dice.randrange(1, 0x2FF)) + text[at + 1 :]
    return text


class Targets:
    """Each method takes one mutated input; it returns "taken" or raises what came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.1, 10.0, log=True)])
        self.space, self.base = space, {"a": 0.4, "b": 1.0}
        self.metrics = ["gain", "guard"]
        problem = hz.Problem(space, self.base, self.metrics, "gain", ["guard >= -5%"])
        config = hz.TunerConfig(num_draws=20, num_samples=16, initial_candidates=3)
        self.tuner = hz.Tuner(problem, config)
        self.plan = self.tuner.ask()
        ids = [c for c in self.plan.candidate_ids for _ in self.metrics]
        rows = [
            f"0,{c},{m},{100 + c},{1.5 + 0.1 * c},{0.25}"
            for c, m in zip(ids, self.metrics * len(self.plan))
        ]
        self.csv = "round,candidate,metric,count,mean,var\n" + "\n".join(rows) + "\n"
        self.yaml = TEMPLATE.format(name="tuning.yaml")
        journal = folder / "good.db"
        kept = hz.Tuner(problem, config, f"sqlite:///{journal}")
        kept.ask()
        kept.tell(hz.Readings.from_file(self._file("good.csv", self.csv)))
        kept.ask()
        self.problem, self.journal = problem, journal.read_bytes()
        self.state = self._everything(journal)

    def _file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return path

    def _everything(self, journal: Path) -> str:
        tuner = hz.Tuner.resume(f"sqlite:///{journal}", problem=self.problem)
        try:
            return repr(tuner.journal.read("default"))
        finally:
            tuner.journal.close()

    def objective(self, dice: random.Random) -> None:
        text = mutate(dice.choice(OBJECTIVES), dice)
        levels = {"gain": 2.0, "guard": 3.0}
        problem = hz.Problem(self.space, self.base, self.metrics, text, base_levels=levels)
        value = problem.evaluate(torch.tensor([[0.1, -0.2]], dtype=torch.float64)).utility
        assert value.shape == (1,), "an objective without a value"

    def readings(self, dice: random.Random) -> None:
        before = len(self.tuner.journal.read("default"))
        path = self._file("readings.csv", mutate(self.csv, dice))
        try:
            found = hz.Readings.from_file(path)
            self.tuner.study.count_new(found)
        finally:
            assert len(self.tuner.journal.read("default")) == before, "a change after a refusal"
        assert min(found.count.min(), found.var.min()) >= 0, "impossible readings taken"
        assert set(found.metric) <= set(self.metrics), "an unknown metric taken"
        assert set(found.candidate.tolist()) <= set(self.plan.candidate_ids), "a stranger taken"

    def study_file(self, dice: random.Random) -> None:
        text = mutate(self.yaml, dice)
        study = hz.StudyConfig.from_file(self._file("study.yaml", text))
        study.problem()
        said = yaml.safe_load(text)
        assert study.objective == said["objective"], "another objective than the file's"

    def journal_file(self, dice: random.Random) -> None:
        path = self.folder / "journal.db"
        if dice.random() < 0.5:
            data = bytearray(self.journal)
            for _ in range(dice.randint(1, 8)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            if dice.random() < 0.2:
                data = data[: dice.randrange(len(data))]
            path.write_bytes(bytes(data))
        else:
            shutil.copy(self.folder / "good.db", path)
            with sqlite3.connect(path) as db:
                named = db.execute("select name from sqlite_master where type = 'table'")
                table = dice.choice([n for (n,) in named if not n.startswith("sqlite_")])
                columns = [r[1] for r in db.execute(f'pragma table_info("{table}")')]
                value = dice.choice([None, -1, 7, 1e300, "x", b"\x00", "nan", 2**62])
                db.execute(f'update "{table}" set "{dice.choice(columns)}" = ?', (value,))
            db.close()
        assert self._everything(path) == self.state, "a damaged journal read as another study"


def run(inputs: int, seed: int, progress: Callable[[str], None] = print) -> dict[str, Counter[str]]:
    """Outcomes by kind of input."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        targets = Targets(Path(scratch))
        calls = {
            "objective": targets.objective,
            "readings": targets.readings,
            "study file": targets.study_file,
            "journal": targets.journal_file,
        }
        for kind, share in SHARES.items():
            dice = random.Random(f"{seed} {kind}")
            for _ in range(round(inputs * share)):
                try:
                    calls[kind](dice)
                except hz.HyperZeroError:
                    found[kind]["refused"] += 1
                except sqlite3.DatabaseError:  # the fuzzer's own statement was impossible
                    found[kind]["not tried"] += 1
                except AssertionError as error:
                    found[kind]["WRONG"] += 1
                    progress(f"{kind}: {error}")
                except Exception:
                    found[kind]["CRASHED"] += 1
                    progress(f"{kind}: {traceback.format_exc()[-800:]}")
                else:
                    found[kind]["taken"] += 1
            progress(f"{kind}: {dict(found[kind])}")
        assert not (Path.cwd() / "hacked").exists(), "an input reached the shell"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = run(options.inputs, options.seed)
    options.results.write_text(json.dumps(found, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """One line per kind of input."""
    lines = [
        "| input | taken, holds what it says | refused by our errors | taken wrongly | crashed |",
        "|" + " --- |" * 5,
    ]
    for kind, found in json.loads(results.read_text()).items():
        cells = (found.get(name, 0) for name in ("taken", "refused", "WRONG", "CRASHED"))
        lines.append(f"| {kind} | {' | '.join(f'{c:,}' for c in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
