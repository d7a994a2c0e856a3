"""The report of a study whose goals were changed: which held when, on the page and in its plots."""

import json

from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.report.data import decisions
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.report.figures import round_plots
from hyperzero_torch.report.sections.goals import changed_goals


def goals(objective, constraints, a):
    space = hz.SearchSpace([hz.Float("a", *a), hz.Float("b", 0.0, 1.0)])
    return hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], objective, constraints)


def changed():
    tuner = make()
    play(tuner, 4)
    tuner.change_goals(goals("gain", ["guard >= -2%"], (0.0, 0.5)), reason="strict", by="ann")
    play(tuner, 2)
    tuner.change_goals(goals("gain + guard", [], (0.1, 0.8)), reason="<b>free</b>", by="bo")
    play(tuner, 1)
    return tuner


def test_a_report_says_which_goals_held_when(tmp_path):
    tuner = changed()
    facts = collect(tuner)
    (section,) = changed_goals(facts)
    assert "changed 2 times" in section.blocks[0]
    rows = section.blocks[1].table
    assert rows.column("rounds") == ["from 6 on", "4 to 5", "0 to 3"]
    assert rows.column("objective") == ["gain + guard", "gain", "gain"]
    assert rows.column("guardrails") == ["", "guard >= -2%", "guard >= -5%"]
    assert rows.column("by") == ["bo", "ann", ""]
    assert rows.column("bounds")[0] == "a in [0.1, 0.8], b in [0, 1]"
    out = decisions.retired_and_stopped(facts)
    outside = {f"c{c}" for c in facts.history.status.outside}
    assert outside
    by_status = dict(zip(out.column("candidate"), out.column("status")))
    assert {c for c, status in by_status.items() if status == "outside the bounds"} == outside
    assert "new goals" in {key.label for key in round_plots.event_keys(facts)}
    path = write_report(tuner, tmp_path / "report.html")
    page = path.read_text()
    assert "Which goals held when" in page
    assert "&lt;b&gt;free" in page
    assert "<b>free" not in page


def test_the_first_round_under_new_goals_is_marked_on_the_timeline():
    facts = collect(changed())
    drawn = round_plots.with_events(facts, {"data": [], "layout": {}}, list(range(8)))
    lines = [t for t in drawn["data"] if t.get("mode") == "lines"]
    assert [x for t in lines for x in t["x"] if x is not None] == [4, 4, 6, 6]
    json.dumps(drawn)


def test_a_study_with_the_goals_of_its_beginning_has_no_such_section():
    tuner = make()
    play(tuner, 2)
    assert changed_goals(collect(tuner)) == []
