"""The bench of the server, in small: a long study written in bulk, and its page."""

import json

import pytest
from support.browser import find

import hyperzero_torch as hz
from bench import long_study
from bench.speed import serve
from hyperzero_torch.simulate import GuardrailWorld

CONFIG = hz.TunerConfig(
    block_rounds=24, num_draws=40, num_samples=32, num_starts=0, initial_candidates=6, max_arms=6,
    num_proposals=1, max_candidates=24, verification_share=0,
)  # fmt: skip


def test_what_is_written_in_bulk_is_a_study_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(long_study, "WEEK", 24)
    monkeypatch.setattr(long_study, "SERVED_FOR", 3)
    world = GuardrailWorld(0)
    url = f"sqlite:///{tmp_path / 'long.db'}"
    tuner = hz.Tuner(world.problem, CONFIG, url)
    tuner.ask()
    long_study.write_rounds(tuner, world, 70, 30)
    again = hz.Tuner.resume(url, problem=world.problem)
    assert again.study.verify()
    history = again.history
    assert history.last_round == 70
    assert history.num_candidates > 4 * 70
    assert history.compacted
    assert history.num_in_flight == 0
    served = [plan.candidates for plan in history.plans.values()]
    assert {len(arms) for arms in served[2:]} == {13}
    assert set(history.status.retired) >= set(range(1, served[-1][1]))
    assert len(again.bucket().tested) > 200
    assert again.ask().round == 71


def test_the_page_of_a_long_study_is_measured_and_shown(tmp_path, monkeypatch):
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    monkeypatch.setattr(serve, "PLANNED", 1)
    monkeypatch.setattr(long_study, "SERVED_FOR", 2)
    results = tmp_path / "serve.json"
    watched = {"viewers": 50, "slower": 0.012, "load": 0.5, "cpus": 2}
    results.write_text(json.dumps({"watched": watched}))
    serve.main(["--only", "page", "--rounds", "5", "--results", str(results)])
    page = json.loads(results.read_text())["page"]
    assert (page["rounds"], page["candidates"] > 12) == (5, True)
    assert 0 < page["fetched"] <= page["slowest_fetch"]
    assert all(0 < seconds < 60 for seconds in page["painted"])
    assert len(page["painted"]) == (10 if find() else 0)
    assert 5_000 < page["page_bytes"] < page["bytes"] < 300_000
    shown = serve.table(results)
    assert "of a study of 5 rounds" in shown
    assert "(2 processors) before each part: watched 0.5, page " in shown
    assert "| a round while 50 watch the page | +1.2 % time | +5 % |" in shown
