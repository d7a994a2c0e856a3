"""``hyperzero launch`` and ``hyperzero promote``, from the study file to the next study."""

import contextlib
import json

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch import cli
from hyperzero_torch.live.serve.flagd import FlagdUpdater

STUDY = """
study: feed
journal: sqlite:///study.db
parameters:
  - {kind: float, name: w, low: 0.0, high: 1.0}
base: {w: 0.4}
metrics: [views, watch_time]
objective: views
constraints: [watch_time >= -1%]
traffic: {num_draws: 40, num_samples: 32, num_starts: 0, num_proposals: 1, initial_candidates: 3,
          verification_share: 0}
"""
LIVE = """
live: {exposures: "exposures/*.parquet", events: "events/*.parquet", flags: flags.json}
"""


class Hours:
    """A study file in a folder, and commands on it."""

    def __init__(self, folder, capsys, text=STUDY):
        self.folder, self.capsys = folder, capsys
        self.config = str(folder / "tuning.yaml")
        (folder / "tuning.yaml").write_text(text)
        self.plan = None

    def run(self, *arguments, code=0):
        with pytest.raises(SystemExit) if code else contextlib.suppress(SystemExit) as end:
            cli.main([arguments[0], "-c", self.config, *arguments[1:]])
        if code:
            assert end.value.code == code
        out, err = self.capsys.readouterr()
        return out, " ".join(err.split())

    def hour(self, gain=0.03, guard=0.0, users=4_000_000):
        arguments = []
        if self.plan is not None:
            generator = torch.Generator().manual_seed(self.plan["round"])
            rows = ["round,candidate,metric,count,mean,var"]
            for arm in self.plan["arms"]:
                count = round(users * arm["share"])
                if not count:
                    continue
                noise = torch.randn(2, generator=generator).tolist()
                lift = (gain, guard) if arm["candidate"] else (0.0, 0.0)
                for metric, d, e in zip(("views", "watch_time"), lift, noise):
                    mean = 10 * (1 + d + 0.5 * e / count**0.5)
                    rows.append(
                        f"{self.plan['round']},{arm['candidate']},{metric},{count},{mean},25"
                    )
            path = self.folder / "hour.csv"
            path.write_text("\n".join(rows) + "\n")
            arguments = ["--readings", str(path)]
        out, err = self.run("step", *arguments)
        self.plan = json.loads(out)
        return err

    def status(self):
        return json.loads(self.run("status", "--json")[0])


def test_from_a_recommendation_to_the_next_study(tmp_path, capsys):
    hours = Hours(tmp_path, capsys)
    for _ in range(4):
        hours.hour()
    launch = ("launch", "--candidate", "2", "--unproven", "--who", "ann", "--keep-holdback", "2")
    out, err = hours.run(*launch, "--dry-run")
    assert "stage 5: 95 % of all users, about 2 rounds" in out
    assert "nothing was written" in err
    assert hours.status()["launch"] is None
    out, _ = hours.run(*launch, "--json")
    assert json.loads(out)["who"] == "ann"
    assert hours.status()["launch"]["outcome"] == "under way"
    shares = []
    for _ in range(18):
        err = hours.hour()
        shares.append(hours.plan["arms"][-1]["share"])
    assert shares[0] == 0.01
    assert shares[-1] == 1.0
    assert "candidate 2 at" in err
    assert "complete" in hours.run("launch", "--status")[0]
    findings = json.loads(hours.run("doctor", "--json")[0])["findings"]
    assert any("hyperzero promote" in f["advice"] for f in findings)
    assert "launch of candidate 2, complete in stage 5 of 5" in hours.run("status")[0]
    _, err = hours.run("promote", "--who", "bob", "--reason", "two weeks")
    assert "study 'feed.2' goes on from round" in err
    # The hour that was under way belongs to the study before.
    served = hours.plan["round"]
    err = hours.hour()
    assert "goes on as 'feed.2'" in err
    assert "2 rows were left out" in err
    assert hours.plan["round"] == served + 1
    assert len(hours.plan["arms"]) > 1
    for _ in range(2):
        hours.hour(gain=-0.01)
    assert hours.status()["study"] == "feed.2"
    assert "candidate" in hours.run("recommend")[0]
    problem = hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()
    old = hz.Tuner.resume(f"sqlite:///{tmp_path}/study.db", "feed", problem=problem)
    assert [d.trace.who for d in old.decisions if d.kind == "promoted"] == ["bob"]


def test_an_abort_serves_the_control_at_once_where_the_platform_is_known(tmp_path, capsys):
    hours = Hours(tmp_path, capsys, STUDY + LIVE)
    for _ in range(3):
        hours.hour()
    hours.run("launch", "--candidate", "2", "--unproven")
    hours.hour()
    problem = hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()
    tuner = hz.Tuner.resume(f"sqlite:///{tmp_path}/study.db", "feed", problem=problem)
    FlagdUpdater(tmp_path / "flags.json", flag="value-model").apply(tuner.ask(3))

    def variants():
        flags = json.loads((tmp_path / "flags.json").read_text())["flags"]
        return flags["value-model"]["variants"]

    assert len(variants()) == 2
    _, err = hours.run("launch", "--abort", "--reason", "support tickets", "--who", "ann")
    assert "serves the control to all users" in err
    assert len(variants()) == 1
    out, _ = hours.run("launch", "--status")
    assert "aborted by ann: support tickets" in out
    hours.hour()
    assert len(hours.plan["arms"]) > 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("launch", "--candidate", "2"), "not proven safe"),
        (("launch", "--candidate", "77", "--unproven"), "candidates are 1 to"),
        (("launch", "--unproven", "--stages", "1,5"), "a percentage such as 5%"),
        (("launch", "--unproven", "--stages", "5%,1%"), "must ascend"),
        (("launch", "--unproven", "--holdback", "0%"), "holdback"),
        (("launch", "--unproven", "--keep-holdback", "2 weeks"), "rounds or days"),
        (("launch", "--status"), "nothing was launched"),
        (("launch", "--abort", "--reason", "x"), "no launch is under way"),
        (("launch", "--abort", "--dry-run"), "give one of"),
        (("promote",), "no launch is complete"),
        (("promote", "--candidate", "2"), "--unlaunched"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_error(tmp_path, capsys, arguments, words):
    hours = Hours(tmp_path, capsys)
    for _ in range(2):
        hours.hour()
    before = hours.status()
    _, err = hours.run(*arguments, code=3)
    assert words in err
    assert hours.status() == before
