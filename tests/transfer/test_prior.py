"""Sources in the tuner: part of the journal, guarded, nothing at all where they do not count."""

import json
from collections import defaultdict
from dataclasses import replace
from functools import cache

import pytest
import torch
from support.related_sources import related, source, world

import hyperzero_torch as hz
from hyperzero_torch.study.interventions import remark
from hyperzero_torch.study.journal import Configured, StudyHeader
from hyperzero_torch.study.journal.trace import SOURCE, TRANSFER
from hyperzero_torch.transfer import ExpertOverride
from hyperzero_torch.transfer.journaled import current_override
from hyperzero_torch.transfer.model.acceptance import risk_screen
from hyperzero_torch.tuner import transfer_candidates
from hyperzero_torch.tuner.transfer_candidates import TRANSFERRED

QUICK = hz.TunerConfig(
    num_draws=64,
    num_samples=128,
    num_starts=0,
    initial_candidates=24,
    num_seeds=4,
    drift_alpha=None,
)


def rounds(tuner, place, first, last, mail=None):
    mail = defaultdict(list) if mail is None else mail
    for round_ in range(first, last):
        if mail[round_]:
            tuner.tell(mail.pop(round_))
        for delivery in place.serve(tuner.ask(round_)):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
    return mail


def plans(tuner, last=None):
    """Plans up to a round, and the settings that were candidates by then."""
    theta = [tuple(b.theta) for b in tuner.history.candidates if last is None or b.round <= last]
    return theta, [
        (p.candidates, p.slots, p.shares)
        for r, p in tuner.history.plans.items()
        if last is None or r <= last
    ]


@cache
def helped():
    """Seven rounds with two related sources, and what is still to be told; only to be read."""
    place = world()
    tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=related(place))
    return tuner, rounds(tuner, place, 0, 7)


@cache
def cold():
    """Eight rounds without a source; only to be read."""
    place = world()
    tuner = hz.Tuner(place.problem, QUICK, seed=3)
    rounds(tuner, place, 0, 8)
    return tuner


def test_related_sources_are_admitted_seed_the_bucket_and_are_journaled():
    place = world()
    first = QUICK.model_copy(update={"seed_first": True})
    tuner = hz.Tuner(place.problem, first, seed=3, sources=related(place))
    rounds(tuner, place, 0, 7)
    history = tuner.history
    assert [d.kind for d in history.decisions].count(SOURCE) == 2
    seeds = [b for b in history.candidates if b.origin == TRANSFERRED and b.round == 0]
    assert 1 <= len(seeds) <= QUICK.num_seeds
    assert history.candidates[1].origin == "initial"
    transfer = history.plans[6].trace.transfer
    assert transfer.used
    assert set(transfer.metrics) == {"gain", "guard"}
    assert sum(s.weight[0] for s in transfer.sources.values()) == pytest.approx(1, abs=1e-3)
    admitted = [d for d in history.decisions if d.kind == TRANSFER]
    assert len(admitted) == 1
    assert "domain_0" in admitted[0].reason
    json.dumps(history.plans[6].details, allow_nan=False)
    mean, var = tuner.posterior(
        place.problem.space.from_unit(place.problem.space.sobol(64, seed=5))
    )
    truth = place.true_delta(place.problem.space.from_unit(place.problem.space.sobol(64, seed=5)))
    assert float((mean - truth).square().mean().sqrt()) < 0.004
    assert bool((var > 0).all())


def test_where_sources_count_nothing_new_is_served_that_is_not_worth_it(monkeypatch):
    place = world()
    tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=related(place))
    mail = rounds(tuner, place, 0, 6)
    assert tuner.history.plans[5].trace.transfer.used
    judged = []

    def nothing_is(posterior, problem, x, generator):
        scores = risk_screen(posterior, problem, x, generator)
        judged.append(len(x))
        return scores._replace(accepted=torch.zeros_like(scores.accepted))

    monkeypatch.setattr(transfer_candidates, "risk_screen", nothing_is)
    rounds(tuner, place, 6, 9, mail)
    assert sum(judged) > 0
    kinds = {b.origin for b in tuner.history.candidates if b.round >= 6}
    assert kinds <= {"leader"}
    cold = hz.Tuner(place.problem, QUICK, seed=3)
    judged.clear()
    rounds(cold, place, 0, 9)
    assert not judged
    assert any(b.origin == "proposal" and b.round >= 6 for b in cold.history.candidates)


def test_reversed_sources_change_no_plan_at_all():
    place = world()
    misled = hz.Tuner(place.problem, QUICK, seed=3, sources=related(place, sign=-1.0))
    rounds(misled, place, 0, 8)
    assert plans(misled) == plans(cold())
    transfer = misled.history.plans[7].trace.transfer
    assert not transfer.used
    assert transfer.reason
    assert all(s.weight == (0.0, 0.0) for s in transfer.sources.values())


def test_seeds_come_when_the_sources_are_admitted():
    tuner, _ = helped()
    seeds = [b.round for b in tuner.history.candidates if b.origin == TRANSFERRED]
    traces = {r: p.trace.transfer for r, p in tuner.history.plans.items()}
    used = [r for r, transfer in traces.items() if transfer is not None and transfer.used]
    assert min(seeds) == min(used) > 0
    assert 2 <= seeds.count(min(seeds)) <= QUICK.num_seeds


def test_without_sources_nothing_of_transfer_is_written():
    tuner = cold()
    assert all(p.trace.transfer is None for p in tuner.history.plans.values())
    assert not [d for d in tuner.history.decisions if d.kind in (SOURCE, TRANSFER)]


def test_a_study_goes_on_with_its_sources_without_their_being_named(tmp_path):
    place = world()
    url = f"sqlite:///{tmp_path}/study.db"
    whole, mail = helped()
    part = hz.Tuner(place.problem, QUICK, url, seed=3, sources=related(place))
    rounds(part, place, 0, 5)
    again = hz.Tuner.resume(url, problem=place.problem)
    rounds(again, place, 0, 7)
    assert plans(again) == plans(whole)
    saved = hz.Tuner(place.problem, QUICK, seed=3)
    saved.load_state_dict(again.state_dict())
    for tuner in (again, saved):
        tuner.tell(mail[7])
    assert saved.ask(7).shares == again.ask(7).shares
    # Named again they are known already; with other evidence they replace.
    num = again.history.num_entries
    same = hz.Tuner.resume(url, problem=place.problem, sources=related(place))
    assert same.history.num_entries == num
    other = hz.Tuner.resume(url, problem=place.problem, sources=[source("domain_0", place, seed=9)])
    assert other.history.num_entries == num + 1
    assert "replaces" in other.history.decisions[-1].reason


def test_a_study_is_a_source_by_its_address(tmp_path):
    place = world()
    url = f"sqlite:///{tmp_path}/north.db"
    rounds(hz.Tuner(place.problem, QUICK, url, study="north", seed=5), place, 0, 6)
    tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=[f"{url}#north"])
    rounds(tuner, place, 0, 6)
    assert tuner.history.decisions[0].trace.source["name"] == "north"
    assert "north" in tuner.history.plans[5].trace.transfer.sources


def test_an_expert_overrules():
    place = world()
    tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=related(place))
    tuner.overrule(ExpertOverride(forbid=["domain_0"], reason="another audience"))
    mail = rounds(tuner, place, 0, 6)
    weighed = tuner.history.plans[5].trace.transfer.sources
    assert "domain_0" not in weighed
    assert max(weighed["domain_1"].weight) == pytest.approx(1.0)
    tuner.overrule(ExpertOverride(forbid=["domain_0", "domain_1"], reason="both moved"))
    rounds(tuner, place, 6, 7, mail)
    assert not tuner.history.plans[6].trace.transfer.used
    fell = [d for d in tuner.history.decisions if d.kind == TRANSFER][-1]
    assert "no longer" in fell.reason
    with pytest.raises(hz.ConfigError, match="no source 'south'"):
        tuner.overrule(ExpertOverride(forbid=["south"], reason="gone"))


def test_a_single_parameter_of_a_source_is_overruled_and_journaled(tmp_path):
    place = world()
    first = place.problem.space.names[0]
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = hz.Tuner(place.problem, QUICK, url, seed=3, sources=related(place))
    word = ExpertOverride(
        forbid=[("domain_0", first)],
        discount={("domain_1", first): 0.5, "domain_1": 0.9},
        reason="counted otherwise there",
    )
    tuner.overrule(word)
    rounds(tuner, place, 0, 6)
    again = hz.Tuner.resume(url, problem=place.problem)
    assert current_override(again.history) == word
    assert again.ask(5) == tuner.ask(5)
    whole, _ = helped()
    restricted, plain = (
        t.history.plans[5].trace.transfer.sources["domain_0"].log_bayes_factor
        for t in (tuner, whole)
    )
    assert sum(restricted) < sum(plain)
    with pytest.raises(hz.ConfigError, match="not pinned"):
        tuner.overrule(ExpertOverride(pin={("domain_0", first): 0.5}, reason="so"))
    with pytest.raises(hz.ConfigError, match="no parameter 'w_99'"):
        tuner.overrule(ExpertOverride(discount={("domain_0", "w_99"): 0.5}, reason="so"))


def test_meta_features_inform_the_bets_and_are_told():
    place = world()
    weighed = {None: helped()[0].history.plans[5].trace.transfer.sources["domain_0"]}
    for level in (1.0, 9.0):
        meta = {f"level:{place.problem.metrics[0]}": level}
        sources = [replace(s, meta_features=meta) for s in related(place)]
        tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=sources)
        rounds(tuner, place, 0, 6)
        weighed[level] = tuner.history.plans[5].trace.transfer.sources["domain_0"]
        assert any("feature similarity" in remark for remark in tuner.explain(5).remarks)
    assert weighed[None].likeness is None
    own = hz.transfer.features.of(tuner.history, 24)[f"level:{place.problem.metrics[0]}"]
    near, far = sorted((1.0, 9.0), key=lambda level: abs(level - own))
    assert weighed[near].likeness > weighed[far].likeness
    assert sum(weighed[near].log_bayes_factor) > sum(weighed[far].log_bayes_factor)


def test_what_cannot_be_a_source_is_refused_and_nothing_is_written():
    place = world()
    good = source("domain_0", place)
    journal = hz.MemoryJournal()
    with pytest.raises(hz.ConfigError, match="journal-url#study"):
        hz.Tuner(place.problem, journal=journal, sources=[3])
    with pytest.raises(hz.ConfigError, match="twice"):
        hz.Tuner(place.problem, journal=journal, sources=[good, source("domain_1", place)])
    with pytest.raises(hz.HyperZeroError):
        hz.Tuner(place.problem, journal=journal, sources=["sqlite:////nowhere/x.db#y"])
    assert journal.studies() == []
    tuner = hz.Tuner(place.problem, journal=journal, sources=[good])
    for kind in (SOURCE, "overruled"):
        with pytest.raises(hz.ConfigError):
            remark(tuner.history, kind, "by hand")


def test_a_single_source_with_one_setting_teaches_nothing_and_says_so():
    place = world()
    tuner = hz.Tuner(place.problem, QUICK, seed=3, sources=[source("tiny", place, num=1)])
    rounds(tuner, place, 0, 6)
    assert plans(tuner) == plans(cold(), last=5)
    transfer = tuner.history.plans[5].trace.transfer
    assert "no source has usable evidence" in transfer.reason
    assert transfer.silent == {"tiny": tuple(place.problem.metrics)}


@pytest.mark.parametrize("word", [None, {"forbid": ["north"]}, "north"])
def test_an_overrule_is_one(word):
    tuner = hz.Tuner(world().problem, QUICK, sources=related(world()))
    with pytest.raises(hz.ConfigError, match="ExpertOverride"):
        tuner.overrule(word)
    with pytest.raises(hz.ConfigError, match="list"):
        tuner.learn_from(3)


def test_a_source_that_does_not_fit_leaves_no_study_behind():
    place, journal = world(), hz.MemoryJournal()
    other = replace(source("north", place), metrics=["clicks", "hides"])
    with pytest.raises(hz.ConfigError, match="none of the metrics"):
        hz.Tuner(place.problem, QUICK, journal, sources=[other])
    assert journal.studies() == []


@pytest.mark.parametrize("stored", ["shared", "ensemble"])
def test_the_option_that_is_gone_is_refused_where_it_is_given_and_dropped_where_it_is_stored(
    stored, tmp_path
):
    with pytest.raises(hz.ConfigError, match="'transfer' no longer exists"):
        hz.TunerConfig(transfer=stored)
    file = tmp_path / "config.yaml"
    file.write_text(f"transfer: {stored}\n")
    with pytest.raises(hz.ConfigError, match="'transfer' no longer exists"):
        hz.TunerConfig.from_file(file)
    journal = hz.MemoryJournal()
    place = world()
    entries = [Configured(QUICK.model_dump(mode="json") | {"transfer": stored})]
    journal.create(StudyHeader("feed", 3, place.problem.spec()), entries)
    tuner = hz.Tuner.resume(journal, "feed", problem=place.problem)
    assert tuner.config == QUICK
    assert tuner.ask() == hz.Tuner(place.problem, QUICK, study="feed", seed=3).ask()
