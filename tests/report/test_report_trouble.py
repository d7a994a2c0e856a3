"""What the report says of a study to which everything happened, and of those of which little is."""

import itertools
import json
import math
import re
from functools import cache
from html import unescape
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.report_studies import calm, strings, troubled
from support.troubled_study import CONFIG, METRICS, TURNS_AT, lift, make, play

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.report.data import (
    calibration,
    candidate_rows,
    decisions,
    late_readings,
    round_rows,
    sensitivity,
    tables,
)
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.report.data.retrospect import MOST_MOMENTS, look_back
from hyperzero_torch.report.figures import canvas, parallel
from hyperzero_torch.report.html import page
from hyperzero_torch.report.sections.all import sections
from hyperzero_torch.report.sections.blocks import Plot, Section, Sheet, Tile
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    MemoryJournal,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from hyperzero_torch.study.journal.trace import STOPPED
from hyperzero_torch.tuner.drift import NUM_WARM_UP
from hyperzero_torch.tuner.model import conditioned

f64 = torch.float64


def facts_of(tuner, **more):
    return collect(tuner, world=more.get("world"))


@cache
def seen(which=troubled):
    facts = facts_of(which())
    return facts, look_back(facts)


def section_of(facts, key):
    return next(s for s in sections(facts) if s.key == key)


def tables_of(section):
    return {b.title: b.table for b in section.blocks if hasattr(b, "table")}


def words_of(section):
    return " ".join(b for b in section.blocks if isinstance(b, str))


# What was believed by hour


def test_the_last_moment_is_what_is_believed_today():
    facts, past = seen()
    rows = round_rows.estimates(facts, past)
    gain = [float(facts.gain(f[facts.tracked])) for f in (facts.belief.mean, facts.belief.lcb)]
    assert rows.column("mean")[-1] == pytest.approx(gain[0], abs=1e-4)
    assert rows.column("low")[-1] == pytest.approx(gain[1], abs=2e-3)  # another set of draws
    assert rows.column("best")[-1] == f"c{facts.best.candidate_id}"
    assert rows.column("round")[-1] == facts.last_round + 1
    assert rows.column("round") == sorted(set(rows.column("round")))


def test_a_moment_is_the_posterior_of_the_readings_before_it():
    """Against a study of its own, into which only those readings were ever told."""
    facts, past = seen(calm)
    moment = past.moments[6]
    tuner = calm()
    entries = tuner.journal.read(tuner.study.name)
    journal = MemoryJournal()
    kept = [
        e for e in entries if not (isinstance(e, ReadingsReceived) and min(e.round) >= moment.round)
    ]
    journal.create(tuner.journal.header(tuner.study.name), kept)
    other = hz.Tuner.resume(journal, tuner.study.name, problem=tuner.problem)
    model, _ = other.belief()
    posterior = conditioned(
        model.problem,
        tuner.config,
        model.bucket,
        model.fit_set,
        facts.posterior,
    )
    x = tuner.problem.space.to_unit(facts.bucket.theta[facts.tracked]).unsqueeze(0)
    mean, _ = posterior.marginal(x)
    expected = float(mean[0, 0] + 0.2 * mean[0, 1])  # the objective is linear
    assert float(moment.tracked.gain[0, 0]) == pytest.approx(expected, abs=1e-5)
    slack = 0.03 - float(mean[0, 2])
    assert float(moment.tracked.slack[0, 0, 0]) == pytest.approx(slack, abs=1e-5)


def test_no_moment_recommends_whom_harm_had_stopped():
    facts, past = seen()
    stopped = {
        c: d.round for d in facts.history.decisions if d.kind == STOPPED
        for c in d.trace.candidates
    }  # fmt: skip
    assert stopped
    for moment in past.moments:
        assert stopped.get(moment.recommended, math.inf) >= moment.round
    assert facts.best == troubled().recommend()


def test_moments_are_few_and_evenly_spread():
    facts, past = seen()
    assert past.num_rounds > len(past.moments) - 2
    assert len(past.moments) <= MOST_MOMENTS + 1
    assert not facts.history.status.excluded_rounds.keys() & {m.round for m in past.moments[:-1]}


# Calibration


def test_honest_uncertainty_covers_what_it_claims_and_drift_shows():
    facts, past = seen(calm)
    rows = calibration.coverage(facts, past)
    assert rows.column("metric") == list(METRICS)
    for m in range(3):
        rounds, z = calibration.residuals(past, m)
        assert len(z) == rows.column("num")[m] == len(rounds)
        assert min(rounds) >= NUM_WARM_UP
        # Five standard deviations of a share and of a spread, if all is as claimed; noise is
        # estimated, so a fifth more on either side.
        edge = 5 * math.sqrt(0.8 * 0.2 / len(z))
        assert abs(rows.column("c0.8")[m] - 0.8) < 1.2 * edge
        assert abs(float(z.std()) - 1) < 1.2 * 5 / math.sqrt(2 * len(z))
    facts, past = seen()
    spread = calibration.coverage(facts, past).column("std")
    assert spread[0] > 1.4  # the metric that turned
    assert max(spread[1:]) < 1.3
    by_round = calibration.by_round(facts, past)
    wild = dict(zip(by_round.column("round"), by_round.column("m0")))
    assert max(wild, key=wild.get) >= TURNS_AT


@given(st.lists(st.floats(-8, 8), max_size=40), st.sampled_from(calibration.CURVE))
def test_coverage_is_a_count(values, level):
    z = torch.tensor(values, dtype=f64)
    edge = -float(torch.special.ndtri(torch.tensor((1 - level) / 2, dtype=f64)))
    share = calibration.share_within(z, level)
    if values:
        inside = sum(abs(v) <= edge for v in values)
        outer = sum(abs(v) <= edge * (1 + 1e-12) for v in values)
        assert inside / len(values) <= share <= outer / len(values)
        low, high = calibration.sampling_interval(level, len(values))
        assert 0 <= low <= level <= high <= 1
    else:
        assert math.isnan(share)


# Sensitivity


def shares(monkeypatch, function):
    """Total effects of a known function of u, on the calm study's space: ``(params,)``."""
    facts, _ = seen(calm)

    def at_draws(_, __, x):
        value = function(facts.problem.space.from_unit(x))
        return value.unsqueeze(-1).expand(*value.shape, 4).unsqueeze(-1)

    monkeypatch.setattr(sensitivity, "_at_draws", at_draws)
    return sensitivity.sensitivity(facts, facts.posterior).share[0, 0]


def test_total_effects_of_known_functions(monkeypatch):
    """w_watch ~ U(0, 1), log10 w_share ~ U(-1, 1), depth uniform on 1 to 6, mode on 0 to 2."""
    watch, share, depth, mode = 1 / 12, 4 / 12, 35 / 12, 8 / 12 / 1
    mode = 2 / 3
    effects = shares(monkeypatch, lambda t: 6 * t[..., 0] + t[..., 1].log10())
    total = 36 * watch + share
    expected = [36 * watch / total, share / total, 0, 0]
    assert effects.tolist() == pytest.approx(expected, abs=0.05)
    effects = shares(monkeypatch, lambda t: t[..., 3] * 1.0)
    assert effects.tolist() == pytest.approx([0, 0, 0, 1], abs=0.05)
    effects = shares(monkeypatch, lambda t: t[..., 2] - 3 * t[..., 3])
    total = depth + 9 * mode
    assert effects.tolist() == pytest.approx([0, 0, depth / total, 9 * mode / total], abs=0.05)
    # A product of two that are 0 on average is all interaction: it counts for both.
    effects = shares(monkeypatch, lambda t: (t[..., 0] - 0.5) * t[..., 1].log10())
    assert effects.tolist() == pytest.approx([1, 1, 0, 0], abs=0.1)
    assert shares(monkeypatch, lambda t: 0 * t[..., 0] + 7).isnan().all()


def test_sensitivity_finds_what_the_world_was_made_of():
    facts, _ = seen(calm)
    effects = sensitivity.sensitivity(facts, facts.posterior)
    assert effects.share.shape == (3, 3, 4)
    assert effects.lengthscale.shape == (3, 4)
    mean, low, high = effects.share
    assert (low <= mean + 1e-9).all()
    assert (mean <= high + 1e-9).all()
    assert mean[0].argmax() == 0  # the objective: w_watch
    assert mean[1].argmax() == 3  # reports: mode, and surely
    assert low[1, 3] > high[1, :3].max()
    other = facts_of(calm())
    again = sensitivity.sensitivity(other, other.posterior)
    assert torch.equal(again.share, effects.share)  # the same report twice


def test_a_metric_of_another_unit_changes_no_share_and_no_residual():
    plans = calm().journal.read(calm().study.name)

    def scaled(entry):
        if not isinstance(entry, ReadingsReceived):
            return entry
        unit = [1e6 if m == 1 else 1.0 for m in entry.metric]
        mean = tuple(x * u for x, u in zip(entry.mean, unit))
        var = tuple(v * u * u for v, u in zip(entry.var, unit))
        return ReadingsReceived(*entry.__dict__.values()).__class__(
            entry.round, entry.candidate, entry.metric, entry.revision, entry.count, mean, var
        )

    journal = MemoryJournal()
    journal.create(calm().journal.header(calm().study.name), [scaled(e) for e in plans])
    other = facts_of(hz.Tuner.resume(journal, calm().study.name, problem=calm().problem))
    facts, past = seen(calm)
    shares_of = [sensitivity.sensitivity(f, f.posterior).share for f in (facts, other)]
    torch.testing.assert_close(*shares_of, rtol=1e-4, atol=1e-5, equal_nan=True)
    z = [calibration.residuals(p, 1)[1] for p in (past, look_back(other))]
    torch.testing.assert_close(*z, rtol=1e-4, atol=1e-5)


# Parallel coordinates


def test_lines_stand_where_the_parameters_are():
    facts, _ = seen()
    rows = candidate_rows.over_parameters(facts, [0, 1, 2, 3])
    drawn, width = parallel.draw(facts, rows, [0, 1, 2, 3])
    assert width > 390  # it scrolls on a phone
    assert rows.rows[-1][0] == "base"
    base = next(t for t in drawn["data"] if t["line"]["dash"] == "dash")
    assert base["y"][:4] == pytest.approx([0.4, 0.5, 0.2, 0.0])
    assert base["y"][5] is None
    heights = [y for t in drawn["data"] for y in t["y"] if y is not None]
    assert 0 <= min(heights) <= max(heights) <= 1
    names = drawn["layout"]["xaxis"]["ticktext"]
    assert names == ["w_watch", "w_share &lt;i&gt;", "depth", "mode", "gain"]
    labels = [a["text"] for a in drawn["layout"]["annotations"]]
    assert "&lt;mixed&gt;" in labels
    assert "fresh &amp; …" in labels or "fresh &amp; new" in labels


# The audit trail


def test_who_was_stopped_withdrawn_or_retired_and_why():
    facts, _ = seen()
    standing = facts.history.status
    rows = decisions.retired_and_stopped(facts)
    what = {
        int(str(name)[1:]): w for name, w in zip(rows.column("candidate"), rows.column("status"))
    }
    assert {c for c, w in what.items() if w in ("stopped", "withdrawn")} == standing.stopped
    assert {c for c, w in what.items() if w == "retired"} == standing.retired - standing.stopped
    reasons = dict(zip(what, rows.column("reason")))
    modes = facts.bucket.theta[:, 3].tolist()
    for candidate, kind in what.items():
        if kind == "stopped":
            assert modes[candidate] == 2  # who breaks "reports"
            assert f"Stopped: candidate {candidate} breaks 'reports <= 3%'" in reasons[candidate]
        elif kind == "withdrawn":
            assert reasons[candidate] == "a wrong release went out at 19"
        else:
            assert "Retired: not selected in 4 rounds" in reasons[candidate]
    section = section_of(facts, "ended")
    assert f"{len(standing.stopped)} candidates are stopped or withdrawn" in words_of(section)


def test_suspect_rounds_with_their_reasons_and_what_became_of_them():
    facts, _ = seen()
    rows = decisions.excluded_rounds(facts)
    assert [row[:2] for row in rows.rows] == [
        ("19 to 20", "rolled back"),
        ("7", "reinstated"),
        ("6 to 7", "excluded"),
        ("5", "excluded"),
    ]
    assert rows.column("still") == ["19 to 20", "none", "6", "5"]
    assert "12,001 users" in rows.column("reason")[-1]
    late = late_readings.arms(facts.history)
    of = {row[0]: dict(zip([c.key for c in late.columns], row)) for row in late.rows}
    assert [r for r, row in of.items() if row["excluded"]] == [5, 6, 19, 20]
    assert {r: row["revised"] for r, row in of.items() if row["revised"]} == {18: of[18]["arms"]}
    assert sum(row["waiting"] for row in of.values()) == facts.history.num_in_flight


def test_how_late_readings_came_is_read_from_the_order_of_the_journal():
    def message(round_, revision=0, num=2):
        whole = [(round_,) * num, (0,) * num, tuple(range(num)), (revision,) * num]
        return ReadingsReceived(*whole, *[(1.0,) * num] * 3)

    def plan(round_):
        return Planned(round_, (0,), (0,), (1.0,))

    entries = [
        message(3),
        plan(4),
        message(4),
        message(2),
        plan(7),
        message(4, 1),
        message(1, 0, 5),
    ]
    counts = late_readings.count(entries)
    assert counts.first == {0: 2, 2: 2, 6: 5}
    assert counts.revised == {3: 2}
    rows = late_readings.arrivals(counts)
    assert rows.column("first") == [2, 0, 2, 0, 0, 0, 5]
    assert rows.column("revised") == [0, 0, 0, 2, 0, 0, 0]
    assert rows.column("by_then")[2] == pytest.approx(4 / 9)
    assert rows.column("by_then")[-1] == 1
    far = late_readings.arrivals(late_readings.count([plan(500), message(0), message(499)]))
    assert len(far.rows) == late_readings.MOST_LATE
    assert far.column("first")[-1] == 2
    assert sum(far.column("first")) == 4
    facts, _ = seen()
    num_readings = sum(int((t.revision >= 0).sum()) for t in facts.history.tables.values())
    assert sum(facts.delays.first.values()) == num_readings
    assert facts.delays.first.keys() == {0}
    assert facts.delays.revised == {2: 3 * len(facts.history.plans[18].candidates)}


def test_drift_and_roll_backs_are_marked_by_round_and_told():
    facts, _ = seen()
    drift = [d.round for d in facts.history.decisions if d.kind == "drift"]
    assert drift
    turned = decisions.drift_and_rollbacks(facts)
    assert turned.column("event").count("drift") == len(drift)
    assert "watch" in turned.column("where")
    assert [w for w in turned.column("where") if w.startswith("to ")] == ["to round 19"]
    assert decisions.notes(facts).column("reason") == ["serving round 18 took long <script>"]
    for key in ("progress", "traffic", "late", "calibration"):
        plots = [b for b in section_of(facts, key).blocks if hasattr(b, "figure")]
        marked = [p for p in plots if "yaxis2" in p.figure["layout"]]
        assert marked, key
        for plot in marked:
            spots = [
                t for t in plot.figure["data"]
                if t.get("yaxis") == "y2" and t["mode"] == "markers"
            ]  # fmt: skip
            symbols = {t["marker"]["symbol"]: t["x"] for t in spots}
            assert symbols["triangle-down"] == drift
            assert symbols["triangle-left"] == [19]
            assert set(symbols["x-thin-open"]) <= {5, 6, 19, 20}
            labels = {k.label for k in plot.keys}
            assert {"drift detected", "rolled back to", "excluded round"} <= labels


@given(st.sets(st.integers(0, 60)))
def test_runs_of_rounds_are_written_as_one(rounds):
    written = decisions.ranges(sorted(rounds))
    assert len(written) <= 9
    if not written or not written[-1].startswith("and "):
        back = [
            r for one in written for a, _, b in [one.partition(" to ")]
            for r in range(int(a), int(b or a) + 1)
        ]  # fmt: skip
        assert back == sorted(rounds)


# Long studies


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=300), st.integers(1, 40))
def test_blocks_keep_every_round_once_in_order(rounds, most):
    rounds = sorted(rounds)
    blocks = tables.blocks(rounds, most)
    assert [r for block in blocks for r in block] == rounds
    assert len(blocks) <= most
    assert len({len(block) for block in blocks[:-1]}) <= 1
    averages = tables.in_words(rounds, "averages")
    assert (averages == "") == (len(rounds) <= tables.MOST_ROUNDS)


def long_study(rounds, arms=5):
    """A journal of many rounds, written without a tuner's thinking."""
    problem = make().problem
    config = hz.TunerConfig(block_rounds=24, max_candidates=48, num_starts=0)
    journal = MemoryJournal()
    first = [Configured(config.model_dump(mode="json"))]
    journal.create(StudyHeader("long", 0, problem.spec()), first)
    space = problem.space
    theta = space.from_unit(space.sobol(2 * rounds + 2, seed=0))
    theta[0] = problem.base_theta
    generator = torch.Generator().manual_seed(0)
    true = lift(calm(), theta)
    entries, born = [], 0
    for r in range(rounds):
        for c in range(born, 2 * r + 2):
            (parameters,) = space.to_parameters(theta[c : c + 1])
            entries.append(
                CandidateAdded(
                    c, r, "base" if not c else "draw", tuple(theta[c].tolist()), parameters
                )
            )
        born = 2 * r + 2
        drawn = torch.randint(1, born, (arms,), generator=generator).tolist()
        served = sorted({0, 1, *drawn})
        shares_ = [0.4, *[0.6 / (len(served) - 1)] * (len(served) - 1)]
        slots = (0, *[1] * (len(served) - 1))
        entries.append(Planned(r, tuple(served), slots, tuple(shares_), None, {"crowded_out": []}))
        count = 40_000 * torch.tensor(shares_, dtype=f64)
        noise = torch.randn(len(served), 3, dtype=f64, generator=generator)
        mean = 10 * (1 + true[served]) + 2 * noise / count.sqrt().unsqueeze(-1)
        rows = [
            (r, c, m, 0, float(count[i]), float(mean[i, m]), 4.0)
            for i, c in enumerate(served) for m in range(3)
        ]  # fmt: skip
        entries.append(ReadingsReceived(*map(tuple, zip(*rows))))
        if r % 20 == 19:
            gone = {"candidates": list(range(max(1, born - 60), born - 20))}
            entries.append(Decision(r, "retired", "no draw won", gone))
    journal.append("long", entries, after=1)
    return hz.Tuner.resume(journal, "long", problem=problem)


def test_a_long_study_has_a_small_report_that_says_what_it_leaves_out(tmp_path):
    tuner = long_study(490)
    path = write_report(tuner, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    figures = json.loads(re.search(r"var figures=(.*);\n", text).group(1))
    assert len(json.dumps(figures)) < 600_000
    for figure in figures:
        for trace in figure["data"]:
            assert len(trace.get("x", [])) <= max(3 * tables.MOST_ROUNDS, calibration.MOST_POINTS)
    facts = facts_of(tuner)
    words = " ".join(words_of(s) for s in sections(facts))
    assert "490 rounds are drawn in blocks of 3" in words
    assert re.search(r"\d+ of \d+ rounds whose deltas are kept are drawn", words)
    num = len(decisions.retired_and_stopped(facts).rows)
    assert f"The first {decisions.MOST_ROWS} of {num} are listed" in words
    for one in sections(facts):
        for table in tables_of(one).values():
            assert len(table.rows) <= tables.MOST_ROUNDS
    traffic = round_rows.traffic(facts)
    for row in traffic.rows:
        assert sum(row[1:]) == pytest.approx(1.0)


def test_what_is_pooled_for_good_stays_in_the_funnel():
    tuner = long_study(80)
    facts = facts_of(tuner)
    bucket = facts.bucket
    assert 0 < len(set(bucket.deltas.round.tolist())) < 80
    for m in range(3):
        rows = round_rows.funnel(facts, 1, m)  # served in every round
        assert len(rows.rows) < 80
        assert rows.column("pooled")[-1] == pytest.approx(float(bucket.mean[1, m]), rel=1e-6)
        half = 1.96 * float(bucket.var[1, m].sqrt())
        assert rows.column("pooled_half")[-1] == pytest.approx(half, rel=1e-6)
        assert rows.column("pooled_half")[0] < 3 * half  # older rounds are in it


# Little is known


class Text(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def page_of(tuner, tmp_path):
    text = write_report(tuner, tmp_path / "report.html").read_text(encoding="utf-8")
    shell = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    return Text(shell), shell


def test_where_all_were_stopped_the_report_says_so(tmp_path):
    tuner = make(config=CONFIG.model_copy(update={"proposal_probability": 0.0}))
    play(tuner, 3)
    everyone = list(range(1, tuner.history.num_candidates))
    already = set(tuner.history.status.stopped)
    entry = Decision(2, STOPPED, "harm <to> all", {"candidates": everyone})
    tuner.study.append(lambda history: ([entry], None))
    shown, shell = page_of(tuner, tmp_path)
    facts = facts_of(tuner)
    assert facts.best.candidate_id == 0
    assert "all candidates with evidence are stopped: stay with the base" in shown.texts
    assert len(decisions.retired_and_stopped(facts).rows) == len(everyone)
    assert decisions.retired_and_stopped(facts).column("reason").count("harm <to> all") == len(
        everyone
    ) - len(already)
    assert "<to>" not in shell


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_an_objective_that_is_nan_has_a_report_without_numbers(tmp_path):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(
        space, {"a": 0.4, "b": 0.6}, ["m"], lambda d: torch.full_like(d[..., 0], math.nan)
    )
    small = CONFIG.model_copy(update={"initial_candidates": 6})
    tuner = hz.Tuner(problem, small)
    for _ in range(8):
        plan = tuner.ask()
        generator = torch.Generator().manual_seed(plan.round)
        mean = 1 + 0.01 * torch.randn(len(plan), 1, generator=generator, dtype=f64)
        tuner.tell(
            hz.Readings(
                plan.round, plan.candidate_ids, torch.full((len(plan), 1), 1e4), mean, 0 * mean + 1
            )
        )
    shown, shell = page_of(tuner, tmp_path)
    assert not [s for s in shown.texts if s.strip().lower().lstrip("+-").startswith("nan")]
    assert "–" in shown.texts
    cells = re.findall(r"<t[dh][^>]*>([^<]*)<", shell)
    assert not [c for c in cells if c.strip().lower() in ("nan", "inf", "-inf", "none", "null")]


def test_a_study_whose_rounds_are_all_set_aside_has_a_report(tmp_path):
    tuner = make()
    play(tuner, 2)
    tuner.study.set_aside([0, 1], "the log was <lost>")
    shown, shell = page_of(tuner, tmp_path)
    assert "<lost>" not in shell
    assert "the log was <lost>" in shown.texts
    assert "2 rounds are excluded today." in shown.texts


def test_what_users_wrote_is_escaped_everywhere(tmp_path):
    tuner = troubled()
    shown, shell = page_of(tuner, tmp_path)
    for raw in ("<u>counted", "long <script>", "share <b>", "w_share <i>", "<mixed>"):
        assert raw not in shell
        assert raw in unescape(shell)
    assert not {"u", "b", "i", "img"} & set(shown.tags) - {"i"}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    figures = re.search(r"var figures=(.*);\n", text).group(1)
    drawn = json.loads(figures)

    texts = [s.replace("<extra></extra>", "") for s in strings(drawn)]
    assert [s for s in texts if "<" in s] == []


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
def test_any_text_is_shown_as_it_is_and_adds_nothing(text):
    """Whatever a user may name: the same tags, and the text itself for the reader."""

    def rendered(name):
        rows = tables.table(("a", name, "text", [name]), ("b", "b", "number", [1.0]))
        figure = canvas.figure([], 100, {"title": canvas.short(name)}, {})
        blocks = [name, [Tile(name, name, name)], Sheet(name, rows)]
        blocks.append(Plot(name, figure, rows, (canvas.Key(name, "#000000", "circle"),)))
        text = page.render(name, name, [Section("where", name, blocks)], "")
        shell, figures = re.sub(r"<script>.*?</script>", "", text, flags=re.S), text
        drawn = json.loads(re.search(r"var figures=(.*);\n", figures).group(1))
        return Text(shell), drawn[0]["layout"]["xaxis"]["title"]["text"]

    plain, _ = rendered("name")
    given_, title = rendered(text)
    assert given_.tags == plain.tags
    assert given_.texts.count(text) >= 9
    assert not {"<", ">"} & set(title)
    assert unescape(title) == (text if len(text) <= 28 else text[:27] + "…")


@pytest.mark.parametrize("every", [0, -1, math.nan, math.inf, True, "5", [1]])
def test_what_is_no_number_of_seconds_is_refused(every, tmp_path):
    with pytest.raises(hz.ConfigError, match="number of seconds"):
        write_report(troubled(), tmp_path / "report.html", reload_every=every)
    assert not list(tmp_path.iterdir())


# Reading it


def test_every_table_names_itself_its_columns_and_its_rows(tmp_path):
    _, shell = page_of(troubled(), tmp_path)
    tables = re.findall(r"<table>.*?</table>", shell, flags=re.S)
    assert len(tables) > 25
    for table in tables:
        assert re.search(r"<caption>[^<]+</caption>", table)
        head, body = table.split("</thead>")
        assert head.count("<th") - 1 == head.count('scope="col"')  # less <thead>
        assert body.count("<tr>") == body.count('scope="row"')
    levels = [int(n) for n in re.findall(r"<h([1-6])", shell)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme):
    """WCAG 2.2, 1.4.3: text at 4.5 to 1, in both themes."""
    block = next(b for b in re.findall(r"\{([^{}]*)\}", page.STYLE) if f"color-scheme:{theme}" in b)
    colors = dict(re.findall(r"--(\w+):(#\w{6})", block))
    for ground in ("paper", "page"):
        for ink in ("ink", "muted", "accent"):
            a, b = sorted((luminance(colors[ink]), luminance(colors[ground])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, ground)
