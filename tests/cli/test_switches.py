"""Switches as a user throws them: from an empty folder, and what the platform's file holds then."""

import json
import re

import pytest

import hyperzero_torch as hz
from hyperzero_torch import cli
from hyperzero_torch.live.serving import platform_of
from hyperzero_torch.study.config import StudyConfig

STUDY = """
study: feed
journal: sqlite:///study.db
parameters:
  - {kind: float, name: w, low: 0.0, high: 1.0}
base: {w: 0.4}
metrics: [views, watch_time]
objective: views
constraints: [watch_time >= -5%]
traffic: {max_untested_share: 1, max_untested_total: 1,
          num_draws: 42, num_samples: 32, num_starts: 0, num_proposals: 1,
          initial_candidates: 3, verification_share: 0TRAFFIC}
"""
LIVE = "live: {exposures: 'x/*.parquet', events: 'e/*.parquet', flags: flags.json}\n"
TABLE = "live: {exposures: 'x/*.parquet', events: 'e/*.parquet', table: table.json}\n"


class User:
    """A person at a shell in an empty folder."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def write(self, live=LIVE, traffic=""):
        (self.folder / "tuning.yaml").write_text(STUDY.replace("TRAFFIC", traffic) + live)

    def run(self, command, *arguments, code=0):
        with pytest.raises(SystemExit) as done:
            cli.main([command, *map(str, arguments), "-c", "tuning.yaml"])
        out, err = self.capsys.readouterr()
        assert (done.value.code or 0) == code, err
        return out, " ".join(err.split())

    def tuner(self):
        config = StudyConfig.from_file("tuning.yaml")
        return hz.Tuner.resume("sqlite:///study.db", "feed", problem=config.problem())

    def serve(self, round_):
        """A round as the loop plans and serves it."""
        _, _ = self.run("step", "--round", round_, "--plan", "plan.json")
        config = StudyConfig.from_file("tuning.yaml")
        if config.live is not None:
            tuner = self.tuner()
            plan = tuner.ask(round_)
            platform_of(tuner, config.live, self.folder).apply(plan)
        return self.plan()

    def plan(self):
        return json.loads((self.folder / "plan.json").read_text())

    def flag(self):
        return json.loads((self.folder / "flags.json").read_text())["flags"]["value-model"]

    def served(self):
        """Candidates that the flag serves, with its round; the control alone has no targeting."""
        flag = self.flag()
        values = list(flag["variants"].values())
        assert flag["defaultVariant"] == "control"
        assert ("targeting" in flag) == (len(values) > 1 or values[0]["round"] is not None)
        return {v["candidate"] for v in values}, {v["round"] for v in values}

    def decisions(self):
        return [(d.kind, d.reason, getattr(d.trace, "by", None)) for d in self.tuner().decisions]


@pytest.fixture
def user(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "berta")
    there = User(tmp_path, capsys)
    there.write()
    return there


def shares(plan):
    return {arm["candidate"]: arm["share"] for arm in plan["arms"]}


def test_withdraw_takes_everybody_to_the_control_at_once_and_in_every_plan(user):
    user.serve(0)
    assert user.served() == ({0, 1, 2, 3}, {0})
    _, err = user.run("withdraw", "--reason", "an incident", "--by", "anna")
    assert "only the control is served" in err
    assert user.served() == ({0}, {None})
    assert ("traffic withdrawn", "an incident", "anna") in user.decisions()
    plan = user.serve(1)
    assert shares(plan) == {0: 1.0}
    assert any("withdrawn by anna" in note for note in plan["notes"])
    assert user.served() == ({0}, {1})  # the control's readings go on
    out, _ = user.run("status")
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[1] == (
        "The study is withdrawn by anna: all traffic goes to the control (an incident)"
    )
    out, _ = user.run("doctor", "--json")
    assert "withdrawn by anna" in json.loads(out)["findings"][0]["what"]
    user.run("resume", "--reason", "it is over")
    assert set(shares(user.serve(2))) == {0, 1, 2, 3}
    assert ("resumed", "it is over", "berta") in user.decisions()


def test_resumed_within_the_round_the_plan_is_served_again(user):
    user.serve(0)
    before = user.flag()
    user.run("withdraw", "--reason", "an incident")
    user.run("resume", "--reason", "a false alarm")
    assert user.flag() == before


def test_a_step_that_is_repeated_does_not_bring_back_what_was_withdrawn(user):
    user.serve(0)
    user.run("withdraw", "--reason", "an incident", "--plan", "plan.json")
    control = {"round": None, "arms": [user.plan()["arms"][0]]}
    assert user.plan() == control
    assert shares(control) == {0: 1.0}
    _, err = user.run("step", "--round", 0, "--plan", "plan.json")
    assert user.plan() == control
    assert "only the control is served" in err
    out, _ = user.run("step", "--round", 0)
    assert json.loads(out) == control
    user.run("resume", "--reason", "over", "--plan", "plan.json")
    assert set(shares(user.plan())) == {0, 1, 2, 3}


def test_pause_repeats_the_plan_without_new_candidates(user):
    first = user.serve(0)
    before = user.flag()
    _, err = user.run("pause", "--reason", "a release")
    assert "round 0 is served" in err
    assert user.flag() == before
    for round_ in (1, 2):
        plan = user.serve(round_)
        assert shares(plan) == shares(first)
        assert plan["round"] == round_
    assert user.tuner().history.num_candidates == 4
    out, _ = user.run("status", "--json")
    facts = json.loads(out)
    assert (facts["mode"], facts["mode_by"], facts["mode_reason"]) == (
        "paused",
        "berta",
        "a release",
    )
    user.run("stop", 2, "--reason", "it crashes")
    stopped = shares(user.serve(3))
    assert 2 not in stopped
    assert stopped[0] == pytest.approx(shares(first)[0] + shares(first)[2])
    assert stopped[1] == shares(first)[1]


def test_paused_before_the_first_plan_the_control_alone_is_planned(tmp_path, user):
    user.run("step", "--round", 0, "--dry-run")
    tuner = hz.Tuner(
        StudyConfig.from_file("tuning.yaml").problem(), None, "sqlite:///study.db", "feed"
    )
    tuner.study.pause("not yet")
    assert tuner.ask().shares == (1.0,)
    tuner.study.resume("now")
    assert len(tuner.ask()) > 1


def test_a_stopped_candidate_is_not_served_from_this_moment(user):
    user.serve(0)
    user.run("stop", 2, "--reason", "it crashes", "--by", "anna")
    assert user.served() == ({0}, {None})
    assert ("stopped by hand", "it crashes", "anna") in user.decisions()
    assert set(shares(user.serve(1))) == {0, 1, 3}
    assert user.served() == ({0, 1, 3}, {1})
    user.run("let-back", 2, "--reason", "mended", "--by", "carl")
    assert ("readmitted", "mended", "carl") in user.decisions()
    assert user.served() == ({0, 1, 3}, {1})  # round 1 is served as planned
    assert set(shares(user.serve(2))) == {0, 1, 2, 3}
    user.run("stop", 1, 3, "--reason", "both")
    assert set(shares(user.serve(3))) == {0, 2}
    user.run("candidates", "readmit", "--candidate", 1, "--reason", "the same under its old name")
    assert set(shares(user.serve(4))) == {0, 1, 2}


def test_a_pinned_candidate_has_its_share_in_the_next_plans(user):
    first = user.serve(0)
    before = user.flag()
    user.run("pin", 2, 0.05, "--reason", "the partner", "--by", "anna")
    assert user.flag() == before  # users do not change arms within a round
    plan = user.serve(1)
    assert shares(plan)[2] == 0.05
    assert sum(shares(plan).values()) == pytest.approx(1)
    assert shares(plan)[1] == pytest.approx(shares(plan)[3])
    control = 0.3 + 0.2 * 2 / 24  # its limit, which grows from 0.3 to 0.5 in a day
    assert shares(plan)[0] == pytest.approx(control)
    assert shares(plan)[1] == pytest.approx((1 - control - 0.05) / 2)
    assert any("pinned: candidate 2 at 0.05 by anna" in note for note in plan["notes"])
    out, _ = user.run("status")
    assert "candidate 2 is pinned at 0.05 by anna" in out
    user.run("unpin", 2, "--reason", "seen")
    assert shares(user.serve(2))[2] == pytest.approx(shares(first)[2], rel=0.1)
    user.run("pin", 2, 0.1, "--reason", "again")
    user.run("stop", 2, "--reason", "it crashes")
    assert 2 not in shares(user.serve(3))
    assert not user.tuner().history.status.switches.pins


def test_a_rollback_takes_the_flags_along(user):
    user.serve(0)
    user.serve(1)
    _, err = user.run("rollback", "--to-round", 1, "--reason", "a faulty ranker")
    assert "only the control is served" in err
    assert user.served() == ({0}, {None})
    user.serve(2)
    assert len(user.served()[0] - {0}) > 0
    assert ("rolled back", "a faulty ranker", "berta") in user.decisions()


def test_a_table_is_brought_up_to_date_too(user):
    user.write(TABLE)
    user.serve(0)
    user.run("withdraw", "--reason", "an incident")
    table = json.loads((user.folder / "table.json").read_text())
    assert table["round"] is None
    assert [arm["candidate"] for arm in table["arms"]] == [0]


def test_without_a_platform_it_says_what_is_left_to_do(user):
    user.write("")
    user.serve(0)
    _, err = user.run("withdraw", "--reason", "an incident")
    assert "names no platform, so nothing was written" in err
    assert "--plan" in err


def test_a_plan_over_the_limit_waits_for_somebody_else(user):
    user.write(traffic=", approval_above: 0.24")
    first = user.serve(0)  # three candidates share what the control leaves
    assert max(shares(first)[c] for c in (1, 2, 3)) < 0.24
    user.run("pin", 3, 0.4, "--reason", "a promise", "--by", "anna")
    plan = user.serve(1)
    assert shares(plan) == shares(first)  # the last approved plan, under the new round
    assert plan["round"] == 1
    assert any("waiting for approval" in note for note in plan["notes"])
    out, _ = user.run("status")
    assert out.splitlines()[1].startswith("The study is waiting for approval")
    waiting = json.loads(user.run("status", "--json")[0])["waiting_for_approval"]
    assert waiting["candidates"] == [3]
    assert waiting["proposers"] == ["anna", "berta"]
    for proposer in ("anna", "berta"):
        _, err = user.run("approve", "--reason", "fine", "--by", proposer, code=3)
        assert "somebody else has to approve it" in err
    assert shares(user.serve(2)) == shares(first)
    asked = [kind for kind, *_ in user.decisions() if kind == "approval needed"]
    assert len(asked) == 1  # once, not every hour
    user.run("approve", "--reason", "fine", "--by", "carl")
    assert shares(user.serve(3))[3] == 0.4
    assert shares(user.serve(4))[3] == 0.4  # and it stays
    user.run("stop", 3, "--reason", "it crashes")
    user.run("let-back", 3, "--reason", "mended")
    user.run("pin", 3, 0.4, "--reason", "again")
    assert 3 not in shares(user.serve(5))  # stopped meanwhile: it has to be approved again


def test_a_first_plan_over_the_limit_serves_the_control_alone(user):
    user.write(traffic=", approval_above: 0.1")
    assert shares(user.serve(0)) == {0: 1.0}
    user.run("approve", "--reason", "go", "--by", "carl")
    assert set(shares(user.serve(1))) == {0, 1, 2, 3}


REFUSED = [
    (["pause", "--reason", "again"], ["pause", "--reason", "x"], "paused already, by berta"),
    (["withdraw", "--reason", "again"], ["withdraw", "--reason", "x"], "withdrawn already"),
    (["pause", "--reason", "x"], ["withdraw", "--reason", "x"], "the study is withdrawn already"),
    (["resume", "--reason", "x"], None, "nothing to resume"),
    (["stop", 99, "--reason", "x"], None, "99 does not exist; there are candidates 1 to 3"),
    (["stop", 0, "--reason", "x"], None, "candidate 0 is the control"),
    (["stop", 2, "--reason", "x"], ["stop", 2, "--reason", "x"], r"\[2\] are stopped already"),
    (["let-back", 2, "--reason", "x"], None, "are not stopped"),
    (["pin", 99, 0.1, "--reason", "x"], None, "candidate 99 does not exist"),
    (["pin", 0, 0.1, "--reason", "x"], None, "candidate 0 is the control"),
    (["pin", 2, 1.5, "--reason", "x"], None, "above 0 and below 1, got 1.5"),
    (["pin", 2, "nan", "--reason", "x"], None, "above 0 and below 1"),
    (["pin", 2, 0.1, "--reason", "x"], ["stop", 2, "--reason", "x"], "candidate 2 is stopped"),
    (["pin", 2, 0.5, "--reason", "x"], None, "must stay below 1"),
    (["pin", 2, 0.3, "--reason", "x"], ["pin", 1, 0.3, "--reason", "x"], "must stay below 1"),
    (["unpin", 2, "--reason", "x"], None, "candidate 2 is not pinned; pinned: none"),
    (["approve", "--reason", "x"], None, "no plan waits for approval"),
    (["pause", "--reason", " "], None, "give a reason"),
    (["pause", "--reason", "x", "--by", " "], None, "give who throws the switch"),
]  # fmt: skip


@pytest.mark.parametrize(("switch", "before", "message"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_cannot_be_is_one_error_and_changes_nothing(user, switch, before, message):
    user.serve(0)
    if before is not None:
        user.run(*before)
    entries, flags = user.tuner().history.num_entries, (user.folder / "flags.json").read_bytes()
    _, err = user.run(*switch, code=3)
    assert err.startswith("error: ")
    assert re.search(message, err), err
    assert user.tuner().history.num_entries == entries
    assert (user.folder / "flags.json").read_bytes() == flags


@pytest.mark.parametrize("command", ["pause", "withdraw", "resume", "stop", "pin", "approve"])
def test_a_reason_is_required(user, command):
    user.serve(0)
    arguments = {"stop": [1], "pin": [1, 0.1]}.get(command, [])
    _, err = user.run(command, *arguments, code=2)
    assert "--reason" in err


def test_flags_that_cannot_be_written_are_said_to_be_unchanged(user):
    user.serve(0)
    (user.folder / "flags.json").write_text("not JSON")
    _, err = user.run("withdraw", "--reason", "an incident", code=3)
    assert "the switch is in the journal" in err
    assert "could not be changed" in err
    assert user.tuner().history.status.switches.mode == "withdrawn"


def test_a_plan_file_that_cannot_be_written_is_refused_before_anything_else(user):
    user.serve(0)
    user.run("withdraw", "--reason", "x", "--plan", "nowhere/plan.json", code=3)
    assert user.tuner().history.status.switches.mode == "running"
