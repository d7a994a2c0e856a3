"""``tuner.to_frame``, and what a notebook shows of plans, recommendations and studies."""

import re
import subprocess
import sys
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.extras import hide
from support.small_study import CONFIG, make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.runtime.html import MOST_ROWS, html_table
from hyperzero_torch.study.journal import MemoryJournal

KINDS = ("candidates", "rounds", "readings", "decisions")
BACKENDS = ("pandas", "polars")


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def tuner():
    tuner = make()
    play(tuner, 4)
    tuner.study.set_aside([1], "an incident")
    tuner.ask()
    return tuner


def column(frame, name):
    return list(frame[name])


def test_readings_come_back_as_they_were_told(tuner, backend):
    frame = tuner.to_frame("readings", backend=backend)
    assert type(frame).__module__.startswith(backend)
    again = make()
    for number in range(4):
        assert again.ask() == tuner.ask(number)
        if backend == "pandas":
            hour = frame[frame["round"] == number].drop(columns="counts")
        else:
            hour = frame.filter(frame["round"] == number).drop("counts")
        assert again.tell(hz.Readings.from_frame(hour)) == len(hour) > 0
        assert again.tell(reply(again.ask(number))) == 0  # the same, so nothing is new
    excluded = {r for r, c in zip(column(frame, "round"), column(frame, "counts")) if not c}
    assert excluded == {1}


def test_rounds(tuner, backend):
    frame = tuner.to_frame("rounds", backend=backend)
    plans = [tuner.ask(number) for number in range(5)]
    assert column(frame, "round") == [0, 1, 2, 3, 4]
    assert column(frame, "arms") == [len(plan) - 1 for plan in plans]
    assert column(frame, "control_share") == [plan.control_share for plan in plans]
    assert column(frame, "arms_without_readings") == [0, 0, 0, 0, len(plans[4])]
    users = [
        float(np.asarray(reply(plan).count).reshape(len(plan), -1).max(-1).sum())
        for plan in plans[:4]
    ] + [0.0]
    assert column(frame, "users") == pytest.approx(users)
    assert column(frame, "is_excluded") == [False, True, False, False, False]
    because = column(frame, "excluded_because")
    assert because[1] == "an incident"
    assert because[0] is None or because[0] != because[0]


def test_candidates(tuner, backend):
    frame = tuner.to_frame(backend=backend)
    state, belief = tuner.belief()
    num = tuner.history.num_candidates
    assert column(frame, "candidate") == list(range(num))
    assert [column(frame, f"parameter.{name}")[0] for name in ("a", "b")] == [0.4, 0.6]
    theta = np.stack([column(frame, "parameter.a"), column(frame, "parameter.b")], -1)
    np.testing.assert_array_equal(theta, tuner.history.theta.numpy())
    np.testing.assert_array_equal(column(frame, "mean.gain"), state.bucket.mean[:, 0])
    np.testing.assert_array_equal(column(frame, "posterior_var.guard"), belief.delta_var[:, 1])
    served = [0] * num
    for number in range(5):
        for candidate in tuner.ask(number).candidate_ids:
            served[candidate] += 1
    assert column(frame, "rounds_served") == served
    best = tuner.recommend()
    at = column(frame, "candidate").index(best.candidate_id)
    assert column(frame, "objective_lcb")[at] == pytest.approx(best.objective_lcb)
    assert column(frame, "prob_feasible")[at] == pytest.approx(best.prob_feasible)


def test_decisions(tuner, backend):
    frame = tuner.to_frame("decisions", backend=backend)
    wanted = [(d.round, d.kind, d.reason) for d in tuner.decisions]
    assert list(zip(*(column(frame, n) for n in ("round", "kind", "reason")))) == wanted
    assert any(reason == "an incident" for *_, reason in wanted)
    assert column(frame, "at") == [None] * len(wanted)  # its journal is in memory


def test_decisions_name_their_authors_and_times(tmp_path, backend):
    tuner = hz.Tuner(make().problem, CONFIG, f"sqlite:///{tmp_path}/study.db", "feed")
    play(tuner, 2)
    tuner.study.pause("a holiday", by="ann")
    tuner.study.note("note", "nobody said this")
    frame = tuner.to_frame("decisions", backend=backend)
    by = dict(zip(column(frame, "reason"), column(frame, "by")))
    assert by["nobody said this"] is None
    assert "ann" in by.values()
    for name in ("decisions", "rounds"):
        shown = tuner.to_frame(name, backend=backend)
        times = column(shown, "at" if name == "decisions" else "planned_at")
        moments = [datetime.fromisoformat(text) for text in times]
        assert moments == sorted(moments)
        assert len(moments) == len(shown) > 0


def test_a_study_without_a_round_has_empty_frames_of_the_same_columns(tuner, backend):
    fresh = make()
    for kind in KINDS:
        frame = fresh.to_frame(kind, backend=backend)
        assert len(frame) == 0
        assert list(frame.columns) == list(tuner.to_frame(kind, backend=backend).columns)
    fresh.ask()
    frame = fresh.to_frame(backend=backend)
    assert len(frame) == fresh.history.num_candidates
    assert np.isnan(np.array(column(frame, "objective_mean"))[1:]).all()


def test_options_of_several_types_are_texts(backend):
    options = ["a", 2]
    space = hz.SearchSpace([hz.Choice("m", options), hz.Choice("n", [1, 2]), hz.Int("i", 0, 3)])
    problem = hz.Problem(space, {"m": "a", "n": 1, "i": 2}, ["gain"], "gain")
    tuner = hz.Tuner(problem, CONFIG)
    tuner.ask()
    frame = tuner.to_frame(backend=backend)
    assert set(column(frame, "parameter.m")) <= {"a", "2"}
    assert set(column(frame, "parameter.n")) <= {1, 2}
    assert "int" in str(frame["parameter.i"].dtype).lower()


def test_what_is_no_frame_is_refused(tuner, monkeypatch):
    with pytest.raises(hz.ConfigError, match="candidates, rounds, readings, decisions, got 'x'"):
        tuner.to_frame("x")
    with pytest.raises(hz.ConfigError, match="'pandas' or 'polars', got 'duckdb'"):
        tuner.to_frame(backend="duckdb")
    hide(monkeypatch, *BACKENDS)
    for name in BACKENDS:
        with pytest.raises(hz.MissingExtraError, match=rf"{name}.*hyperzero-torch\[frames\]"):
            tuner.to_frame(backend=name)


# --- what a notebook shows --------------------------------------------------------------------


class Shown(HTMLParser):
    """The texts and the tags of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data + " "


ALLOWED = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_reprs_are_one_short_line(tuner):
    plan = tuner.ask(4)
    for value in (plan, tuner.recommend(), tuner.explain(), tuner):
        assert "\n" not in repr(value)
        assert len(repr(value)) < 200
    assert repr(plan) == (
        f"Plan(round=4, arms={len(plan) - 1}, control_share={plan.control_share:.4g})"
    )
    assert repr(tuner.explain()).startswith("Explanation(round=4, arms=")


def test_a_notebook_shows_what_counts(tuner):
    plan, best = tuner.ask(4), tuner.recommend()
    text = Shown(plan._repr_html_()).text
    assert "Plan of round 4" in text
    for candidate, share in zip(plan.candidate_ids[1:], plan.shares[1:]):
        assert str(candidate) in text
        assert f"{share:.2%}" in text
    text = Shown(best._repr_html_()).text
    assert best.reason in text
    assert f"{best.prob_feasible:.1%}" in text
    text = Shown(tuner.explain()._repr_html_()).text
    assert "the control: every delta is measured against it" in text
    text = Shown(tuner._repr_html_()).text
    assert "Study default" in text
    assert "guard >= -5%" in text
    assert "an incident" in text


NASTY = "<script>alert(1)</script>\x1b[31m&\"'"


def test_every_name_is_escaped():
    space = hz.SearchSpace([hz.Float(NASTY, 0.0, 1.0), hz.Choice("m", ["<img src=x>", "b"])])
    base = {NASTY: 0.5, "m": "<img src=x>"}
    problem = hz.Problem(space, base, ["gain", "<i>"], "gain")
    tuner = hz.Tuner(problem, CONFIG, MemoryJournal(), "<u>study</u>")
    play(tuner, 3)
    tuner.study.set_aside([0], NASTY)
    for value in (tuner.ask(), tuner.recommend(), tuner.explain(), tuner):
        html = value._repr_html_()
        assert set(Shown(html).tags) <= ALLOWED
        assert "\x1b" not in html


@given(st.lists(st.text(), min_size=1, max_size=3), st.text(), st.lists(st.text(), max_size=2))
def test_a_table_holds_its_texts_and_no_tag_of_theirs(cells, title, notes):
    shown = Shown(html_table(title, cells, [cells], notes))
    assert set(shown.tags) <= ALLOWED
    for text in (title, *cells, *notes):
        if text.isprintable():
            assert text in shown.text


def test_a_long_table_says_what_is_left_out():
    html = html_table("t", ["a"], [(i,) for i in range(MOST_ROWS + 7)])
    assert html.count("<tr>") == MOST_ROWS + 1
    assert "7 more rows" in html


def test_dir_shows_public_names_only_and_plots_are_imported_late():
    assert dir(hz) == sorted(hz.__all__)
    assert not any(name.startswith("_") for name in dir(hz))
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        hz.plots  # noqa: B018
    code = (
        "import sys, hyperzero_torch as hz; "
        "before = 'hyperzero_torch.report' in sys.modules; hz.plot; "
        "print(before, 'hyperzero_torch.report.plot' in sys.modules, 'plotly' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"False True False\n", done.stdout)
