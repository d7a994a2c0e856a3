"""The report: one file that opens alone, says what the tuner says, and runs nobody else's code."""

import ast
import base64
import hashlib
import json
import math
import os
import re
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from support.report_studies import EVIL, SMALL, mixed, serve, simulated, strings
from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.report.data import candidate_rows, late_readings, round_rows, tables
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.report.data.surfaces import at_theta, slices
from hyperzero_torch.report.figures import canvas
from hyperzero_torch.report.html import page
from hyperzero_torch.report.sections.all import sections
from hyperzero_torch.simulate import Oracle

# All arms of these studies have as many users, whatever their shares.
pytestmark = pytest.mark.filterwarnings("ignore:.*ample ratio mismatch")
SECTIONS = ["where", "progress", "traffic", "exposure", "candidates", "surface", "parameters"]
SECTIONS += ["deltas", "calibration", "late", "ended", "turns"]
OWN = {"evidence": "own", "draws": "marginal"}


def line_problem(**changes):
    parts = {
        "space": hz.SearchSpace([hz.Float("w", 0.1, 10.0, log=True)]),
        "base": {"w": 1.0},
        "metrics": ["views"],
        "objective": "views",
    }
    return hz.Problem(**(parts | changes))


def text_of(tuner, tmp_path, **more):
    path = write_report(tuner, tmp_path / "report.html", **more)
    assert os.listdir(tmp_path) == ["report.html"]  # no temporary file is left
    return path.read_text(encoding="utf-8")


def without_plotly(text):
    """The file less the two scripts' contents, and the figures."""
    figures = re.search(r"var figures=(.*);\n", text).group(1)
    return re.sub(r"<script>.*?</script>", "<script></script>", text, flags=re.S), figures


class Page(HTMLParser):
    """What a browser would make of the file."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def check_page(text):
    shell, figures = without_plotly(text)
    parsed = Page(shell)
    assert [a["id"] for tag, a in parsed.tags if tag == "section"] == SECTIONS
    scripts = [a for tag, a in parsed.tags if tag == "script"]
    assert scripts == [{}, {}, {}]
    known = (
        "html head meta title style body header p h1 h2 h3 nav a noscript main section div dl dt"
    )
    known += " dd table caption thead tbody tr th td figure figcaption ul li i details summary"
    known += " script button"
    assert {tag for tag, _ in parsed.tags} <= set(known.split())
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert tag == "meta" or "://" not in json.dumps(attributes)
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in shell
    assert "default-src 'none'" in shell
    loaded = json.loads(figures)
    plots = [a["id"] for tag, a in parsed.tags if a.get("class") == "plot"]
    assert plots == [f"plot-{i}" for i in range(len(loaded))]
    return parsed, loaded


def resolved(value, key=""):
    """A figure as the page's script hands it to plotly.js."""
    if isinstance(value, dict):
        return {k: resolved(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [resolved(v, key) for v in value]
    if isinstance(value, str) and value.startswith("@") and key.endswith("color"):
        return "rgba(1,2,3,0.5)"
    return "serif" if key == "family" else value


STATES = {
    "planned": lambda: planned(line_problem()),
    "one_param": lambda: serve(hz.Tuner(line_problem(), hz.TunerConfig(**SMALL)), 1),
    "own": lambda: serve(hz.Tuner(line_problem(), hz.TunerConfig(**SMALL, **OWN)), 1),
    "mixed": mixed,
    "no_levels_yet": lambda: planned(line_problem(objective="level(views)")),
    "control_silent": lambda: serve(
        hz.Tuner(line_problem(), hz.TunerConfig(**SMALL)), 1, skip=(0,)
    ),
    "nothing_feasible": lambda: serve(
        hz.Tuner(
            line_problem(constraints=[hz.Constraint("views", at_least=0.5, may_exclude_base=True)]),
            hz.TunerConfig(**SMALL),
        ),
        1,
    ),
    "levels": lambda: serve(
        hz.Tuner(
            line_problem(objective="-level(views)", constraints=["level(views) <= 200"]),
            hz.TunerConfig(**SMALL),
        ),
        1,
        scale=100.0,
    ),
    "single_point": lambda: planned(
        line_problem(
            space=hz.SearchSpace([hz.Int("depth", 1, 2)]), base={"depth": 1}, metrics=["views"]
        ),
        initial_candidates=1,
    ),
}


def planned(problem, **changes):
    tuner = hz.Tuner(problem, hz.TunerConfig(**(SMALL | changes)))
    tuner.ask()
    return tuner


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")  # where nothing is feasible
@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_whole_page_of_valid_figures(state, tmp_path):
    objects = pytest.importorskip("plotly.graph_objects")
    tuner = STATES[state]()
    _, figures = check_page(text_of(tuner, tmp_path))
    assert len(figures) >= 2
    for figure in figures:
        objects.Figure(resolved(figure))  # refuses attributes that plotly does not know


def test_nothing_planned_is_a_round_error_and_writes_nothing(tmp_path):
    with pytest.raises(hz.RoundError, match="ask"):
        write_report(hz.Tuner(line_problem()), tmp_path / "report.html")
    assert not os.listdir(tmp_path)


def test_planned_without_evidence_says_so_in_place_of_plots(tmp_path):
    parsed, figures = check_page(text_of(STATES["planned"](), tmp_path))
    assert len(figures) == 2  # traffic and late readings
    assert " ".join(parsed.text).count("There are no estimates yet") == 6


def test_a_simulation_adds_truth_and_oracle(tmp_path):
    tuner, records, oracle, world = simulated()
    text = text_of(tuner, tmp_path, records=iter(records), oracle=oracle, world=world)
    parsed, figures = check_page(text)
    words = " ".join(parsed.text)
    for word in ("True gain", "True violation", "oracle", "truth", "Objective", "P(feasible)"):
        assert word in words
    assert figures[0]["data"][0]["y"] == pytest.approx([r.gain for r in records])
    assert figures[0]["data"][1]["y"] == pytest.approx([oracle.gain] * 2)


def test_the_page_says_what_the_tuner_recommends(tmp_path):
    tuner = mixed()
    best = tuner.recommend()
    words = [w.strip() for w in check_page(text_of(tuner, tmp_path))[0].text if w.strip()]
    assert best.candidate_id != 0
    at = words.index("Recommended")
    assert words[at + 1 : at + 3] == [f"c{best.candidate_id}", best.reason]
    assert words.count(best.reason) == 1  # the verdict is about broken data
    assert words[words.index("P(feasible)") + 1] == f"{100 * best.prob_feasible:.1f} %"
    assert words[words.index("Objective") + 1] == f"{best.objective_mean:.4g}"
    assert words[words.index("In flight") + 1] == str(tuner.history.num_in_flight)
    assert words[words.index("Round") + 1] == str(tuner.history.last_round)


def test_the_reason_is_on_the_page_once_and_the_state_in_the_verdict(tmp_path):
    tuner = make()
    play(tuner, 4)
    best, verdict = tuner.recommend(), tuner.verdict()
    words = [w.strip() for w in check_page(text_of(tuner, tmp_path))[0].text if w.strip()]
    assert verdict.why == best.reason
    assert words.count(best.reason) == 1
    assert words[words.index(verdict.sentence) - 1] == verdict.state
    rounds = f"with evidence of {best.num_rounds} round{'s' * (best.num_rounds != 1)} of its own"
    at = words.index("Recommended")
    assert words[at + 1 : at + 3] == [f"c{best.candidate_id}", rounds]


@pytest.mark.parametrize("criterion", ["mean", "lcb", "ucb"])
def test_criterion_is_the_tuners(criterion):
    assert facts_of(mixed(), criterion).best == mixed().recommend(criterion)


def test_an_unknown_criterion_is_refused(tmp_path):
    with pytest.raises(hz.ConfigError, match="criterion"):
        write_report(mixed(), tmp_path / "report.html", criterion="median")
    assert not os.listdir(tmp_path)


def facts_of(tuner, criterion="lcb", **more):
    return collect(tuner, criterion=criterion, **more)


def test_names_are_escaped_in_html_and_inert_in_plots(tmp_path):
    text = text_of(mixed(), tmp_path)
    shell, raw_figures = without_plotly(text)
    parsed, figures = check_page(text)
    names = [EVIL, "<svg onload=alert(4)>", "<script>alert(5)", "<b onclick=alert(3)>a</b>"]
    for name in [*names, "</script><script>alert(2)"]:
        assert name not in shell
        assert name not in raw_figures
        assert name in unescape(shell)
    assert "<" not in raw_figures
    assert ">" not in raw_figures
    drawn = [s.replace("<extra></extra>", "") for s in strings(figures)]
    assert not [s for s in drawn if "<" in s]
    assert canvas.label(EVIL) in drawn
    assert "&#37;{x}" in drawn
    assert EVIL in parsed.text  # a reader sees the name as it was written


def sha256(source):
    """As a content policy names a script."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def test_a_policy_lets_only_our_scripts_run(tmp_path):
    text = text_of(STATES["planned"](), tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert len(scripts) == 3
    assert re.findall(r"sha256-([^']*)'", policy) == [sha256(s) for s in scripts]
    assert "script-src 'sha256" in policy
    assert text.count("plotly.js v") == 1


def test_json_cannot_leave_its_script():
    text = page.script_json({"a": ["</script>", math.nan, math.inf, "&<!--", range(2)]})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": ["</script>", None, None, "&<!--", [0, 1]]}


def test_traffic_adds_up_and_the_tail_is_grouped():
    tuner = serve(hz.Tuner(line_problem(), hz.TunerConfig(**SMALL | {"initial_candidates": 30})), 2)
    rows = round_rows.traffic(facts_of(tuner))
    assert rows.columns[-1].key == "others"
    assert len(rows.columns) == 3 + round_rows.MOST_SERVED
    for row in rows.rows:
        plan = tuner.ask(int(row[0]))
        assert sum(row[1:]) == pytest.approx(1.0)
        assert row[1] == plan.control_share
    totals = [sum(rows.column(c.key)) for c in rows.columns[2:-1]]
    assert rows.columns[2].label == f"c{tuner.recommend().candidate_id}"
    assert totals[1:] == sorted(totals[1:], reverse=True)


def test_evidence_and_funnel_are_the_buckets():
    facts = facts_of(mixed())
    bucket, tracked = mixed().bucket(), facts.tracked
    for m in range(3):
        rows = candidate_rows.evidence(facts, facts.posterior, m)
        ids = [int(name[1:]) for name in rows.column("candidate")]
        assert rows.column("own") == bucket.mean[ids, m].tolist()
        mean, var = mixed().posterior(bucket.theta[ids])
        assert rows.column("posterior") == pytest.approx(mean[:, m].tolist())
        assert rows.column("posterior_half") == pytest.approx((1.96 * var[:, m].sqrt()).tolist())
        by_hour = round_rows.funnel(facts, tracked, m)
        assert len(by_hour.rows) == bucket.num_rounds[tracked]
        assert by_hour.column("pooled")[-1] == pytest.approx(float(bucket.mean[tracked, m]))
        half = 1.96 * float(bucket.var[tracked, m].sqrt())
        assert by_hour.column("pooled_half")[-1] == pytest.approx(half)


def test_beliefs_and_late_readings_are_the_tuners():
    tuner = mixed()
    _, belief = tuner.belief()
    facts = facts_of(tuner)
    rows = candidate_rows.estimated_gains(facts)
    ids = [int(name[1:]) for name in rows.column("candidate")]
    assert rows.column("prob") == belief.prob_feasible[ids].tolist()
    assert rows.column("mean") == pytest.approx(belief.mean[ids].tolist())  # the base's is 0
    assert rows.column("low") == sorted(rows.column("low"), reverse=True)
    waiting = late_readings.arms(facts.history).column("waiting")
    assert sum(waiting) == tuner.history.num_in_flight
    assert waiting[:-1] == [0, 0, 0]


def test_slacks_over_deltas_and_over_levels_have_one_unit(tmp_path):
    same = ["views >= -10%", "level(views) >= 90", "sure: level(views)"]
    sure = hz.Constraint("0 * level(views)", at_least=-1.0, name=same[2])
    problem = line_problem(constraints=[*same[:2], sure], base_levels={"views": 100.0})
    tuner = serve(hz.Tuner(problem, hz.TunerConfig(**SMALL)), 1, scale=100.0)
    rows = candidate_rows.guardrails(facts_of(tuner))
    by_delta, by_level, in_its_own = rows.column("mean")
    assert by_delta == by_level
    assert by_delta.endswith(" %")
    assert in_its_own == "1"
    words = " ".join(check_page(text_of(tuner, tmp_path))[0].text)
    assert "in % of the control's value" in words
    assert f"not known for {same[2]}: its slack is in its own unit" in words
    assert f"{same[0]}: slack, % of the control" in words
    assert f"{same[1]}: slack, % of the control" in words


def test_gain_is_relative_to_the_base_and_better_is_larger():
    facts = facts_of(STATES["levels"]())  # maximise -level: the base's objective is negative
    base = facts.best.objective_base
    assert base == pytest.approx(-100.0, rel=0.02)
    better = torch.tensor([0.9 * base, 1.1 * base], dtype=torch.float64)
    assert facts.gain(better).tolist() == pytest.approx([0.1, -0.1])


def test_slices_pass_through_the_recommended_and_stay_in_the_space():
    facts = facts_of(mixed())
    best = facts.bucket.theta[facts.best.candidate_id]
    space = facts.problem.space
    here = at_theta(facts, facts.posterior, best.unsqueeze(0))
    assert float(here.gain[0]) == pytest.approx(facts.best.objective_mean, abs=2e-4)
    each = slices(facts, facts.posterior, best)
    for param, varied, _ in each:
        for theta, parameters in zip(varied, space.to_parameters(varied)):
            assert torch.allclose(space.theta(parameters), theta)
        others = [i for i in range(3) if i != param]
        assert (varied[:, others] == best[others]).all()
    assert [len(s.theta) for s in each] == [41, 8, 3]


def test_maps_say_what_the_posterior_says():
    tuner, _, oracle, _ = simulated()
    facts = facts_of(tuner, oracle=oracle)
    surface = next(s for s in sections(facts) if s.key == "surface")
    plot = surface.blocks[1]
    z = plot.figure["data"][0]
    theta = torch.tensor([[z["x"][10], z["y"][30]]], dtype=torch.float64)
    mean, _ = tuner.posterior(theta)
    gain = facts.gain(facts.problem.evaluate(mean).utility)
    assert z["z"][30][10] == pytest.approx(float(gain), abs=1e-4)
    last = plot.table.rows[-1]
    assert last[:3] == ("oracle", *oracle.theta.tolist())


def test_many_parameters_are_cut_to_those_that_matter():
    names = [f"w{i}" for i in range(30)]
    problem = line_problem(
        space=hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in names]),
        base=dict.fromkeys(names, 0.5),
    )
    facts = facts_of(serve(hz.Tuner(problem, hz.TunerConfig(**SMALL)), 1))
    surface = next(s for s in sections(facts) if s.key == "surface")
    assert len(surface.blocks) == 25
    assert "24 of 30 parameters" in surface.blocks[0]


@pytest.mark.parametrize(
    ("cell", "kind", "shown"),
    [
        (None, "percent", "–"),
        (0.01234, "percent", "1.23 %"),
        (0.01234, "signed", "+1.23 %"),
        (-0.000004, "signed", "+0.000 %"),
        (0.00042, "percent", "0.042 %"),
        (0.0, "percent", "0.00 %"),
        (0.98765, "prob", "98.8 %"),
        (1234567.0, "number", "1.235e+06"),
        (3.0, "whole", "3"),
        ("a", "number", "a"),
    ],
)
def test_numbers_are_shown_as_readers_expect(cell, kind, shown):
    assert tables.show(cell, kind) == shown


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("<!doctype html>\n<title>before · HyperZero</title>", encoding="utf-8")
    write_report(mixed(), str(path))
    after = path.read_text(encoding="utf-8")
    assert after.startswith("<!doctype html>")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(hz.InputError, match="No space left"):
        write_report(mixed(), path)
    assert path.read_text(encoding="utf-8") == after
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_or_a_folder_as_the_file_is_refused(tmp_path):
    with pytest.raises(hz.InputError, match="no folder"):
        write_report(mixed(), tmp_path / "nowhere" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(hz.InputError, match="folder"):
        write_report(mixed(), tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_missing_plotly_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(hz.MissingExtraError, match=r"plotly.*hyperzero-torch\[report\]"):
        write_report(mixed(), tmp_path / "report.html")
    assert not os.listdir(tmp_path)


def test_importing_the_room_does_not_import_plotly():
    for file in Path(canvas.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [a.name for a in getattr(node, "names", [])] + [getattr(node, "module", "")]
            assert not [n for n in names if n and n.startswith("plotly")], file


def test_an_oracle_alone_is_enough(tmp_path):
    tuner = STATES["one_param"]()
    oracle = Oracle(torch.tensor([5.0], dtype=torch.float64), 0.01)
    parsed, _ = check_page(text_of(tuner, tmp_path, oracle=oracle))
    words = [w.strip() for w in parsed.text]
    assert words[words.index("Oracle") + 1] == "+1.00 %"
