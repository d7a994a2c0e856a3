"""What a report says of transfer is what the journal says, and opens in a browser."""

import importlib.util
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch
from support.browser import Browser, find
from support.transfer_study import EVIL, make, play

from hyperzero_torch.report import write_comparison, write_report
from hyperzero_torch.report.data import transfer_rows
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.report.data.tables import Table
from hyperzero_torch.report.figures import maps
from hyperzero_torch.report.sections.all import sections
from hyperzero_torch.report.sections.transfer import transfer
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import Decision
from hyperzero_torch.study.journal.trace import DriftFound
from hyperzero_torch.transfer import correlation, similarity
from hyperzero_torch.transfer.model.source_posterior import fit_source

OVERFLOW = """Array.from(document.querySelectorAll('#transfer *')).filter(e=>{
  let box=e.getBoundingClientRect();
  return box.right>innerWidth+1&&!e.closest('.scroll,.pan')&&box.width>0
}).map(e=>e.tagName+'.'+e.className).join()"""


def facts_of(tuner):
    return collect(tuner)


@pytest.fixture
def study(told_study):
    return told_study


@pytest.fixture(scope="module")
def facts(told_study):
    return facts_of(told_study)


def sheets(section):
    return {b.title: b.table for b in section.blocks if hasattr(b, "table")}


def cells(rows: Table, key: str, value: object) -> dict:
    """The row whose ``key`` is this, by column."""
    row = next(r for r, k in zip(rows.rows, rows.column(key)) if k == value)
    return dict(zip([c.key for c in rows.columns], row))


def test_only_a_study_with_sources_has_the_section(facts, tmp_path):
    assert [s.key for s in sections(facts)].count("transfer") == 1
    alone = make(tmp_path, given=[])
    play(alone, 2)
    assert transfer(facts_of(alone)) == []
    assert "transfer" not in [s.key for s in sections(facts_of(alone))]


def test_sources_stand_with_their_packages(facts):
    rows = transfer_rows.sources(facts)
    north = cells(rows, "name", "north")
    terms = transfer_rows.used_sources(facts)[0].terms
    assert north["origin"] == f"package {terms.sha256[:12]}"
    assert north["scopes"] == "feed/eu"
    assert north["expires"] == terms.expires.isoformat(" ", "minutes")
    assert north["privacy"] == "no noise added"
    assert (north["settings"], north["rounds"], north["round"]) == ("40 of 40", 48, 0)
    assert cells(rows, "name", EVIL)["privacy"] == "epsilon 2 at delta 1e-06"
    assert cells(rows, "name", "reversed")["origin"] == "given in Python"
    assert cells(rows, "name", "reversed")["expires"] == "–"


def test_every_round_is_told_as_it_was_decided(study, facts):
    rows = transfer_rows.by_round(facts)
    kept = {
        r: p.trace.transfer
        for r, p in study.history.plans.items()
        if p.trace.transfer is not None and p.trace.transfer.metrics is not None
    }
    assert rows.column("round") == [*map(float, kept)]
    assert len(kept) >= 6
    for round_, trace in kept.items():
        row = cells(rows, "round", round_)
        assert row["log_e_value"] == trace.log_e_value
        assert row["needed"] == trace.needed
        assert row["taken"].startswith("with sources" if trace.used else "own evidence only")
        for metric, held_out in trace.held_out.items():
            difference = held_out.transferred - held_out.cold
            assert row[f"held:{metric}"] == pytest.approx(difference)
        for name, weighed in trace.sources.items():
            weight = sum(weighed.weight) / len(trace.metrics) if trace.used else 0.0
            assert row[f"weight:{name}"] == pytest.approx(weight)
        if trace.used:  # parts of one whole
            total = sum(row[f"weight:{name}"] for name in trace.sources)
            assert total == pytest.approx(1.0, abs=1e-3)
    assert any(trace.used for trace in kept.values())
    assert rows.column("weight:reversed")[-1] == 0.0


def test_similarities_are_documented_by_features_and_by_what_was_learned(study, facts):
    looks = transfer_rows.by_features(facts)
    rows = transfer_rows.similarities(facts, looks)
    latest = study.history.plans[8].trace.transfer.sources
    for i, name in enumerate(["north", EVIL, "reversed"]):
        row = cells(rows, "name", name)
        assert row["features"] == pytest.approx(float(looks.value[i, 3]))
        assert 0 < row["features"] < 1
        if name == "reversed":  # forbidden before the last round
            assert name not in latest
            assert row["weight:gain"] is None
            continue
        for m, metric in enumerate(study.problem.metrics):
            assert row[f"similarity:{metric}"] == latest[name].similarity[m]
            assert row[f"weight:{metric}"] == latest[name].weight[m]


def test_what_parameters_carry_over_is_told_of_the_round_that_is_shown(study, facts):
    latest = study.history.plans[8].trace.transfer
    rows = transfer_rows.parameters(facts)
    assert latest.used == bool(rows.rows)
    assert {row[0]: tuple(row[1:]) for row in rows.rows} == latest.parameters


def test_each_change_of_mind_has_a_reason_and_its_alternative(facts):
    rows = transfer_rows.decisions(facts)
    assert rows.column("round") == sorted(rows.column("round"), reverse=True)
    assert all(all(cell for cell in row[1:]) for row in rows.rows)
    first = cells(rows, "round", 0)
    assert "first design" in first["taken"]
    judged = transfer_rows.weighed_rounds(facts)
    states = [(t.used, t.metrics) for _, t in judged]
    turned = [r for (r, _), now, old in zip(judged, states, [None, *states]) if now != old]
    assert set(turned) < set(rows.column("round"))


def test_what_experts_said_is_told_and_the_latest_holds(facts):
    rows = transfer_rows.overrides(facts)
    assert rows.column("words") == ["forbid reversed", "discount north = 0.5"]
    assert rows.column("holds") == ["yes", "no, replaced"]
    assert "<i>ranker</i>" in rows.rows[0][-1]


def test_criteria_of_refreshing_are_looked_at(facts):
    met = dict(
        zip(
            transfer_rows.criteria(facts).column("criterion"),
            transfer_rows.criteria(facts).column("met"),
        )
    )
    assert met["its package has expired"] == f"yes: {EVIL}"
    assert met["drift was detected after it was added"] == "no"
    assert met["it had no weight in the latest round"] == "yes: reversed"
    later = transfer_rows.criteria(facts, datetime.now(UTC) + timedelta(days=31))
    assert later.column("met")[0] == f"yes: north, {EVIL}"
    drifted = History(2, facts.history.metrics)
    drifted.__dict__.update(facts.history.__dict__)
    drifted.decisions = [
        *facts.history.decisions,
        Decision.of(6, "it turned", DriftFound(metrics=(0,), before=6, factor=0.25)),
    ]
    rows = transfer_rows.criteria(replace(facts, history=drifted))
    assert rows.column("met")[1] == f"yes: north, {EVIL}, reversed"


def test_a_study_that_has_not_begun_to_weigh_says_so(tmp_path):
    tuner = make(tmp_path)
    tuner.ask()
    (section,) = transfer(facts_of(tuner))
    assert any("No round has weighed" in b for b in section.blocks if isinstance(b, str))
    assert "Sources and their terms" in sheets(section)


def test_cells_of_a_heat_map_are_legible_on_their_colours():
    value = torch.tensor([[1.0, -0.9], [0.1, torch.nan]], dtype=torch.float64)
    drawn = maps.heat_map(["a", "b"], value, [["1", "2"], ["3", "4"]], signed=True)
    inks = [n["font"]["color"] for n in drawn["layout"]["annotations"]]
    assert inks == ["#ffffff", "#000000", "#000000", "@ink"]
    assert drawn["data"][0]["z"] == [[1.0, -0.9], [0.1, None]]
    assert drawn["data"][0]["zmin"] == -1.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find() is None or importlib.util.find_spec("plotly") is None:
        pytest.skip("needs chromium and plotly")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_it_opens_fits_and_runs_nobodys_code(browser, study, tmp_path, width, dark):
    browser.errors.clear()
    write_report(study, tmp_path / "report.html")
    browser.show(tmp_path / "report.html", width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    browser.value("document.querySelectorAll('#transfer details').forEach(d=>d.open=true)")
    assert browser.value(OVERFLOW) == ""
    alive = "document.querySelectorAll('main img,#transfer i:not([class])').length"
    assert browser.value(alive) == 0
    text = browser.value("document.getElementById('transfer').textContent")
    assert EVIL in text
    assert "<i>ranker</i>" in text
    assert browser.errors == []


def test_domains_compared_make_a_page_of_their_own(browser, study, tmp_path):
    browser.errors.clear()
    facts = facts_of(study)
    looks = transfer_rows.by_features(facts)
    aligned = facts.model.prior.aligned
    looks = similarity.by_features({a.name: a.meta for a in aligned})
    acts = correlation.by_evidence(
        {a.name: fit_source(a, study.problem) for a in aligned},
        study.problem.metrics,
        study.problem.space.sobol(64, seed=0),
        torch.Generator().manual_seed(0),
        num_draws=32,
    )
    path = write_comparison(tmp_path / "domains.html", looks, acts)
    browser.show(path, 390)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    drawn = browser.value("document.querySelector('main').textContent")
    assert f"{float(acts.mean[1, 0, 0]):.2f}" in drawn
    assert f"{float(looks.value[2, 0]):.2f}" in drawn
    assert browser.value("document.querySelectorAll('main img').length") == 0
    assert browser.errors == []
    # A heat map's cells are an image that plotly makes itself.
    assert [u for u in browser.requests if not u.startswith(("file:///", "data:"))] == []


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("signed", [True, False])
def test_every_cells_text_has_the_contrast_that_readers_need(signed):
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), over the whole scale of colours."""
    values = torch.linspace(-1.0 if signed else 0.0, 1.0, 201, dtype=torch.float64)
    row = values.unsqueeze(0)
    text = [["x"] * 201]
    for start in range(201):
        one = row[:, start : start + 1]
        drawn = maps.heat_map(["a"], one, text, signed)
        colors = [c for _, c in drawn["data"][0]["colorscale"]]
        at = (float(one) - drawn["data"][0]["zmin"]) / (1 - drawn["data"][0]["zmin"])
        place = at * (len(colors) - 1)
        low = min(int(place), len(colors) - 2)
        ends = [[int(colors[k][i : i + 2], 16) for i in (1, 3, 5)] for k in (low, low + 1)]
        mixed = [round(a + (place - low) * (b - a)) for a, b in zip(*ends)]
        cell = luminance("#" + "".join(f"{p:02x}" for p in mixed))
        ink = luminance(drawn["layout"]["annotations"][0]["font"]["color"])
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5, float(one)
