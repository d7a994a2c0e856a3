"""A platform that is driven by the command line, one command an hour."""

import csv
import json
import sqlite3

import yaml

from hyperzero_torch.cli import main

METRICS = {"views": (31.0, 400.0), "watch_time": (12.5, 90.0), "unfollowed": (0.08, 0.05)}


class Platform:
    """A stranger's platform: it knows files and exit codes, nothing of Python."""

    def __init__(self, folder, capsys):
        self.folder = folder
        self.capsys = capsys
        self.config = folder / "tuning.yaml"

    def run(self, *arguments):
        """Exit code, standard output and standard error of one command."""
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def start(self, **traffic):
        assert self.run("init", self.config)[0] == 0
        study = yaml.safe_load(self.config.read_text())
        small = {"num_draws": 40, "num_samples": 128, "initial_candidates": 8}
        small |= {"num_starts": 0, "verification_share": 0.0}  # most of the time of a small round
        study["traffic"] = small | traffic
        self.config.write_text(yaml.safe_dump(study))

    def step(self, *arguments):
        return self.run("step", "--config", self.config, *arguments)

    def plan(self, number):
        return json.loads((self.folder / f"plan_{number}.json").read_text())

    def readings(self, plan, name=None, change=None):
        path = self.folder / (name or f"hour_{plan['round']}.csv")
        rows = [
            {"round": plan["round"], "candidate": arm["candidate"], "metric": metric,
             "count": round(arm["share"] * 1e5), "mean": mean * (1 + 0.001 * arm["candidate"]),
             "var": var}
            for arm in plan["arms"]
            for metric, (mean, var) in METRICS.items()
        ]  # fmt: skip
        if change is not None:
            change(rows)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    def journal(self):
        """Everything that the journal says, in plain SQL."""
        with sqlite3.connect(self.folder / "study.db") as connection:
            return {
                table: connection.execute(f"select * from {table}").fetchall()
                for table in ("studies", "entries", "candidates", "plans", "readings", "decisions")
            }
