"""``hz.plot``: the report's figures as Plotly figures."""

import json
import re
from pathlib import Path

import pytest
from support.extras import hide
from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.report.plot import THEMES

graph_objects = pytest.importorskip("plotly.graph_objects")
STYLE = Path(hz.__file__).parent / "report" / "html" / "page.css"


@pytest.fixture(scope="module")
def tuner():
    tuner = make()
    play(tuner, 6)
    return tuner


def drawn_in(page):
    """The figures of a report, as its script has them."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r"^var figures=(.*);$", text, re.M)[1])


def test_figures_are_those_of_the_report(tuner, tmp_path):
    shown = drawn_in(write_report(tuner, tmp_path / "report.html"))
    figures = hz.plot.figures(tuner)
    assert len(figures) == len(shown) >= 10
    for figure, there in zip(figures.values(), shown, strict=True):
        assert isinstance(figure, graph_objects.Figure)
        made = json.loads(figure.to_json())
        for ours, theirs in zip(made["data"], there["data"]):
            assert ours["type"] == theirs["type"]
            for axis in ("x", "y"):
                if isinstance(theirs.get(axis), list):
                    ours_axis = figure.data[made["data"].index(ours)][axis]
                    assert len(ours_axis) == len(theirs[axis])
        entries = [trace for trace in made["data"] if trace.get("showlegend")]
        assert len(made["data"]) == len(there["data"]) + len(entries)


def test_each_has_its_title_and_the_colours_of_a_theme(tuner):
    for theme, colors in THEMES.items():
        for title, figure in hz.plot.figures(tuner, theme=theme).items():
            text = figure.to_json()
            assert '"@' not in text
            assert figure.layout.paper_bgcolor == colors["paper"]
            assert title.endswith(
                figure.layout.title.text.replace("&gt;", ">")
                .replace("&lt;", "<")
                .replace("&#37;", "%")
            )


def test_colours_are_those_of_the_page():
    text = STYLE.read_text(encoding="utf-8")
    light, dark = text.partition("prefers-color-scheme:dark")[::2]
    for theme, style in (("light", light), ("dark", dark)):
        for name, color in THEMES[theme].items():
            assert f"--{name}:{color}" in style, (theme, name)


def test_each_function_gives_its_figure(tuner):
    by_title = hz.plot.figures(tuner)

    def same(figure, title):
        assert figure.to_json() == by_title[title].to_json()

    same(hz.plot.gains(tuner), "Estimated gain over base")
    same(hz.plot.traffic(tuner), "Share by round")
    same(hz.plot.deltas(tuner, "guard"), "guard by candidate")
    same(hz.plot.surface(tuner), "Gain over base")
    same(hz.plot.surface(tuner, "b"), "Gain over base along b")
    same(hz.plot.sensitivity(tuner), "Sensitivity")
    same(hz.plot.parallel(tuner), "Candidates over the parameters")
    assert "Estimated gain of" in hz.plot.progress(tuner).layout.title.text


def test_the_legend_of_a_map_is_above_its_scale_and_can_be_seen(tuner):
    for theme in THEMES:
        figure = hz.plot.surface(tuner, theme=theme)
        layout = figure.layout
        plotted = layout.height - layout.margin.t - layout.margin.b
        scale = figure.data[0].colorbar
        assert (scale.orientation, scale.yanchor) == ("h", "bottom")
        above = plotted * (layout.legend.y - scale.y)  # in pixels
        assert above >= scale.thickness + layout.font.size
        for entry in (trace for trace in figure.data if trace.showlegend):
            if entry.mode == "lines":
                assert entry.line.color != "#ffffff"
            elif entry.marker.color == "#ffffff":
                assert entry.marker.line.width


def test_what_there_is_no_figure_of_is_one_clear_error(tuner):
    with pytest.raises(hz.ConfigError, match=r"metrics are \['gain', 'guard'\], got 'x'"):
        hz.plot.deltas(tuner, "x")
    with pytest.raises(hz.ConfigError, match=r"parameters are \['a', 'b'\]"):
        hz.plot.surface(tuner, "x")
    with pytest.raises(hz.ConfigError, match="light"):
        hz.plot.gains(tuner, theme="blue")
    fresh = make()
    with pytest.raises(hz.RoundError):
        hz.plot.gains(fresh)
    fresh.ask()
    with pytest.raises(hz.RoundError, match="no estimates yet"):
        hz.plot.gains(fresh)
    assert isinstance(hz.plot.traffic(fresh), graph_objects.Figure)


def test_without_plotly_the_extra_is_named(tuner, monkeypatch):
    hide(monkeypatch, "plotly")
    with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[report\]"):
        hz.plot.gains(tuner)


def test_names_of_a_user_are_inert():
    space = hz.SearchSpace([hz.Float("<b>w</b>", 0, 1), hz.Float("@ink", 0, 1)])
    problem = hz.Problem(space, {"<b>w</b>": 0.4, "@ink": 0.6}, ["gain", "guard"], "gain")
    tuner = hz.Tuner(problem, make().config)
    play(tuner, 4)
    for figure in hz.plot.figures(tuner).values():
        assert "<b>" not in figure.to_json().replace("\\u003c", "<")
