"""Fuzzing with a hundred thousand inputs: does anything crash, get accepted, or change a study?

    python -m bench.reliability.fuzz [--inputs 100000]

Readings files, study files, objective strings and journals are made from valid ones by cutting,
repeating, swapping and replacing parts. Each must either be accepted, with the values that it
states, or be refused by one of our errors without any change. Writes bench/results/fuzz.json.
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

import hyperzero_torch as hz
from hyperzero_torch.cli.template import TEMPLATE
from hyperzero_torch.study.config.yaml12 import read_yaml

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
    """Cut, repeat, replace or insert one to four pieces."""
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
    """Each method tries one mutated input; it returns if it is accepted, or else raises."""

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
            readings = hz.Readings.from_file(path)
            self.tuner.study.count_new(readings)
        finally:
            assert len(self.tuner.journal.read("default")) == before, "a change after a refusal"
        assert min(readings.count.min(), readings.var.min()) >= 0, "impossible readings accepted"
        assert set(readings.metric) <= set(self.metrics), "an unknown metric accepted"
        assert set(readings.candidate.tolist()) <= set(self.plan.candidate_ids), (
            "an unknown candidate"
        )

    def study_file(self, dice: random.Random) -> None:
        text = mutate(self.yaml, dice)
        study = hz.StudyConfig.from_file(self._file("study.yaml", text))
        study.problem()
        loaded = read_yaml(text)
        assert study.objective == loaded["objective"], "another objective than the file's"

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
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
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
                    outcomes[kind]["refused"] += 1
                except sqlite3.DatabaseError:  # the fuzzer's own statement was impossible
                    outcomes[kind]["not tried"] += 1
                except AssertionError as error:
                    outcomes[kind]["WRONG"] += 1
                    progress(f"{kind}: {error}")
                except Exception:
                    outcomes[kind]["CRASHED"] += 1
                    progress(f"{kind}: {traceback.format_exc()[-800:]}")
                else:
                    outcomes[kind]["taken"] += 1
            progress(f"{kind}: {dict(outcomes[kind])}")
        assert not (Path.cwd() / "hacked").exists(), "an input reached the shell"
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    outcomes = run(options.inputs, options.seed)
    options.results.write_text(json.dumps(outcomes, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """One line per kind of input."""
    lines = [
        "| input | accepted, correct | refused by our errors | accepted, wrong | crashed |",
        "|" + " --- |" * 5,
    ]
    for kind, outcomes in json.loads(results.read_text()).items():
        cells = (outcomes.get(name, 0) for name in ("taken", "refused", "WRONG", "CRASHED"))
        lines.append(f"| {kind} | {' | '.join(f'{c:,}' for c in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
