"""Studies of many blocks of rounds: the same answers, readings compacted, bounded work."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.errors import JournalCorruptError
from hyperzero_torch.simulate import run
from hyperzero_torch.simulate.guardrail import GuardrailWorld
from hyperzero_torch.study.evidence.active_set import competing, fit_set, max_competing
from hyperzero_torch.study.evidence.blocks import settled
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import Compacted, ReadingsReceived
from hyperzero_torch.study.journal.arrays import array_flaw, pack_array, unpack_array

# These tests ask for rounds without telling of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(no readings? ha(s|ve) arrived|arms have readings)"
)
BLOCK = 24
ROUNDS = 4 * BLOCK  # blocks 0 to 2 are settled


def config(**changes):
    values = {
        "block_rounds": BLOCK, "num_draws": 60, "num_samples": 64, "num_starts": 0,
        "initial_candidates": 8, "max_arms": 8, "num_proposals": 1, "rounds_per_day": 6,
        "drift_alpha": None, "max_candidates": 40, "max_untested_share": 1.0,
        "max_untested_total": 1.0, "max_risky_total": 1.0, "max_risk": 1.0,
        "verification_share": 0.0,
    }  # fmt: skip
    return hz.TunerConfig(**(values | changes))


@pytest.fixture(scope="module")
def world():
    return GuardrailWorld(0)


@pytest.fixture(scope="module")
def long_study(world):
    """A study's state after four blocks of rounds."""
    tuner = hz.Tuner(world.problem, config(), seed=1)
    list(run(tuner, world, ROUNDS))
    return tuner.state_dict()


@pytest.fixture(params=["memory", "sqlite"])
def tuner(request, world, long_study, tmp_path):
    url = None if request.param == "memory" else f"sqlite:///{tmp_path / 'study.db'}"
    tuner = hz.Tuner(world.problem, config(), url, seed=1)
    tuner.load_state_dict(long_study)
    return tuner


def bits(bucket):
    """All that is known, as bytes."""
    fields = [bucket.mean, bucket.var, bucket.weight, bucket.num_rounds, bucket.base_levels]
    fields += [
        bucket.round_precision,
        bucket.dispersion,
        bucket.shared(torch.arange(len(bucket.mean))),
    ]
    return [f.nan_to_num(-7.0).numpy().tobytes() for f in fields]


def test_all_but_the_latest_full_block_are_settled(tuner):
    blocks = settled(tuner.history, Pooling("precision", 6, True, BLOCK))
    assert list(blocks) == [0, 1, 2]
    assert [len(r) for r in blocks.values()] == [BLOCK] * 3
    assert settled(tuner.history, Pooling("precision", 6, True, None)) == {}
    assert set(tuner.bucket().deltas.round.tolist()) <= set(range(3 * BLOCK, ROUNDS))


@pytest.mark.parametrize("weights", ["users", "precision"])
def test_pooling_by_blocks_is_pooling_where_nothing_is_calibrated(long_study, world, weights):
    """Without calibration a block is plain sums, so blocks add up to what one pool gives."""
    tuner = hz.Tuner(world.problem, config(), seed=1)
    tuner.load_state_dict(long_study)
    whole = gather(tuner.history, Pooling(weights, 6))
    parts = gather(tuner.history, Pooling(weights, 6, False, BLOCK))
    for name in ("mean", "var", "weight", "num_rounds", "round_precision"):
        one, other = getattr(whole, name), getattr(parts, name)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0, equal_nan=True)
    rows = torch.arange(1, len(whole.mean))
    torch.testing.assert_close(whole.shared(rows), parts.shared(rows), rtol=1e-5, atol=1e-14)


def test_calibrated_blocks_say_nearly_what_one_pool_says(tuner):
    whole = gather(tuner.history, Pooling("precision", 6, True))
    parts = gather(tuner.history, Pooling("precision", 6, True, BLOCK))
    known = whole.tested
    assert bool((known == parts.tested).all())
    gap = (whole.mean - parts.mean)[known].abs() / whole.var[known].sqrt()
    assert float(gap.median()) < 0.25  # standard deviations
    ratio = (parts.var / whole.var)[known]
    assert 0.8 < float(ratio.median()) < 1.25


def test_the_memo_changes_nothing_and_is_used(tuner, monkeypatch):
    pooling, memo = Pooling("precision", 6, True, BLOCK), {}
    first = bits(gather(tuner.history, pooling, memo))
    calls = []
    monkeypatch.setattr("hyperzero_torch.study.evidence.blocks.settle", lambda *a: calls.append(a))
    assert bits(gather(tuner.history, pooling, memo)) == first
    assert not calls


def late(tuner, round_):
    """A revised reading of a round's second arm."""
    plan = tuner.history.plans[round_]
    table = tuner.history.tables[round_]
    row = next(i for i in range(1, len(plan.candidates)) if (table.revision[i] >= 0).all())
    return hz.Readings(
        round=round_, candidate_ids=[plan.candidates[row]], count=table.count[row : row + 1],
        mean=table.mean[row : row + 1] * 1.3, var=table.var[row : row + 1],
        metrics=list(tuner.problem.metrics), revision=9,
    )  # fmt: skip


def test_late_readings_and_rounds_set_aside_reach_a_settled_block(tuner):
    before = bits(tuner.bucket())
    assert tuner.tell(late(tuner, 3)) > 0
    revised = bits(tuner.bucket())
    assert revised != before
    tuner.study.set_aside([4], "a broken split")
    assert bits(tuner.bucket()) not in (before, revised)
    tuner.study.reinstate([4], "it was not")
    assert bits(tuner.bucket()) == revised


def test_compaction_changes_no_estimate_and_no_plan(tuner, world, long_study):
    other = hz.Tuner(world.problem, config(), seed=1)
    other.load_state_dict(long_study)
    before, best = bits(tuner.bucket()), tuner.recommend()
    told_ = tuner.study.compact(keep=BLOCK)
    assert told_.why_not is None
    assert told_.rounds == tuple(range(3 * BLOCK))
    assert told_.kept_from == 3 * BLOCK
    assert bits(tuner.bucket()) == before
    assert tuner.recommend() == best
    again = hz.Tuner.resume(tuner.journal, problem=world.problem)
    assert bits(again.bucket()) == before
    for _ in range(3):
        assert again.ask() == other.ask()


def test_compaction_says_what_it_would_do_and_does_nothing(tuner):
    entries = tuner.journal.read("default")
    told_ = tuner.study.compact(keep=2 * BLOCK, dry_run=True)
    assert told_.rounds == tuple(range(2 * BLOCK))
    assert told_.rows > 0
    assert tuner.journal.read("default") == entries
    assert tuner.study.compact(keep=ROUNDS).rounds == ()
    assert "settled" in tuner.study.compact(keep=ROUNDS).why_not
    assert tuner.journal.read("default") == entries


def test_the_lineage_of_a_compacted_block_are_its_messages(tuner):
    entries = tuner.journal.read("default")
    brought = {
        i for i, e in enumerate(entries, 1)
        if isinstance(e, ReadingsReceived) and set(e.round) & set(range(BLOCK))
    }  # fmt: skip
    tuner.study.compact(keep=3 * BLOCK)
    (entry,) = (e for e in tuner.journal.read("default") if isinstance(e, Compacted))
    assert set(entry.messages) == brought
    assert entry.rounds == tuple(range(BLOCK))
    left = [tuner.journal.read("default")[i - 1] for i in brought]
    assert all(
        isinstance(e, ReadingsReceived) and not set(e.round) & set(range(BLOCK)) for e in left
    )


def test_compacting_twice_goes_on_where_it_was(tuner):
    before = bits(tuner.bucket())
    assert len(tuner.study.compact(keep=3 * BLOCK).rounds) == BLOCK
    assert tuner.study.compact(keep=BLOCK).rounds == tuple(range(BLOCK, 3 * BLOCK))
    assert bits(tuner.bucket()) == before
    assert tuner.study.compact(keep=BLOCK).rounds == ()


def test_what_needs_compacted_readings_is_refused_and_nothing_is_written(tuner):
    tuner.study.compact(keep=BLOCK)
    num = len(tuner.journal.read("default"))
    plan = tuner.history.plans[3]
    message = hz.Readings(
        round=3, candidate_ids=[plan.candidates[1]], count=[[9.0] * 2], mean=[[1.0] * 2],
        var=[[1.0] * 2], metrics=list(tuner.problem.metrics)[:2],
    )  # fmt: skip
    with pytest.raises(hz.ReadingsError, match="round 3 was compacted"):
        tuner.tell(message)
    for call in (tuner.study.set_aside, tuner.study.reinstate):
        with pytest.raises(hz.RoundError, match=r"\[3\] were compacted .* is 72"):
            call([3], "late")
    with pytest.raises(hz.RoundError, match="compacted"):
        tuner.study.roll_back(3, "back")
    for keep in (-1, 2.5, True, "10"):
        with pytest.raises(hz.ConfigError, match="number of rounds"):
            tuner.study.compact(keep)
    assert len(tuner.journal.read("default")) == num


def test_explanations_go_on_where_they_can(tuner):
    known = tuner.explain(ROUNDS - 1)
    early = tuner.explain(BLOCK - 1)
    tuner.study.compact(keep=2 * BLOCK)
    after = tuner.explain(ROUNDS - 1)
    for one, other in zip(known.arms, after.arms):  # but for the readings that are gone
        kept = tuple(r for r in one.readings if r.round >= 2 * BLOCK)
        assert dataclasses.replace(one, readings=kept) == other
    assert early.round == BLOCK - 1
    with pytest.raises(hz.RoundError, match="compacted into evidence since"):
        tuner.explain(BLOCK - 1)


def test_a_drift_found_later_discounts_settled_and_compacted_blocks_alike(tuner, world, long_study):
    from hyperzero_torch.study.journal import Decision

    entry = Decision(
        ROUNDS - 1, "drift", "moved", {"metrics": [0], "before": 3 * BLOCK + 5, "factor": 0.25}
    )
    split = Decision(
        ROUNDS - 2, "drift", "moved", {"metrics": [1], "before": BLOCK + 5, "factor": 0.5}
    )
    tuner.study.append(lambda h: ([split], None))
    plain = gather(tuner.history, Pooling("precision", 6, True))
    before = tuner.bucket()
    tuner.study.append(lambda h: ([entry], None))
    after = bits(tuner.bucket())
    assert after != bits(before)
    # The same precision is left as where all rounds are pooled at once.
    whole = gather(tuner.history, Pooling("precision", 6, True))
    ratio = (tuner.bucket().weight / before.weight)[before.tested]
    torch.testing.assert_close(
        ratio.median(0).values, (whole.weight / plain.weight)[plain.tested].median(0).values,
        rtol=0.1, atol=0,
    )  # fmt: skip
    tuner.study.compact(keep=BLOCK)
    assert bits(tuner.bucket()) == after
    with pytest.raises(hz.RoundError, match="compacted with the drift found"):
        tuner.study.roll_back(3 * BLOCK, "back before the first drift was noticed, nearly")


def test_a_damaged_block_is_found(tuner, world):
    tuner.study.compact(keep=BLOCK)
    entry = tuner.history.compacted[0]
    state = tuner.state_dict()
    packed = next(e for e in state["entries"] if e["entry"] == "compacted")
    evidence = json.loads(packed["evidence"])
    arrays = {name: unpack_array(array) for name, array in evidence.items()}
    damages = ["[]", "3", '{"candidate": 1}', packed["evidence"].replace('"data": "', '"data": "?')]
    for name, array in {
        "weight": -arrays["weight"],
        "mean": arrays["mean"][:1],
        "candidate": arrays["candidate"].astype(float),
        "exposed_row": arrays["exposed_row"] + 10**6,
        "num_rounds": arrays["num_rounds"][0],
        "power": np.full_like(arrays["power"], np.nan),
    }.items():
        damages.append(json.dumps(evidence | {name: pack_array(np.array(array))}))
    damages.append(json.dumps({n: a for n, a in evidence.items() if n != "weight"}))
    for damage in damages:
        broken = {**state, "entries": [*state["entries"]]}
        at = broken["entries"].index(packed)
        broken["entries"][at] = {**packed, "evidence": damage}
        with pytest.raises(hz.ConfigError, match="damaged"):
            hz.Tuner(world.problem, seed=1).load_state_dict(broken)
    history = History(world.problem.space.num_params, world.problem.metrics)
    with pytest.raises(JournalCorruptError, match=r"compacts rounds .* were not planned"):
        history.extend([entry])


@pytest.mark.parametrize("dtype", ["i8", "f8", "f4"])
def test_arrays_come_back_bit_for_bit(dtype):
    array = (np.random.default_rng(0).standard_normal((3, 4)) * 1e6).astype(dtype)
    packed = pack_array(array)
    assert array_flaw(packed) is None
    assert unpack_array(packed).tobytes() == array.tobytes()
    assert unpack_array(packed).shape == (3, 4)


@pytest.mark.parametrize(
    "packed",
    [
        None, 3, {}, {"type": "<f8"}, {"type": "<O", "shape": [1], "data": ""},
        {"type": "<f8", "shape": [2], "data": "AAAA"}, {"type": "<f8", "shape": "1", "data": ""},
        {"type": "<f8", "shape": [-1], "data": ""}, {"type": "<f8", "shape": [0], "data": "%"},
        pack_array(np.array([np.nan])),
    ],
)  # fmt: skip
def test_what_is_no_array_is_told(packed):
    assert array_flaw(packed)


def test_candidates_in_view_are_bounded_and_hold_all_that_compete(tuner):
    history, chosen = tuner.history, tuner.config
    assert history.num_candidates > chosen.max_candidates + 1
    assert len(competing(history, chosen)) <= max_competing(chosen) + chosen.max_arms
    bucket = tuner.bucket()
    view = fit_set(history, bucket, chosen).tolist()
    assert len(view) <= chosen.max_candidates + 1
    assert {0, *competing(history, chosen), *history.last_plan.candidates} <= set(view)
    # Of the others those with the most evidence.
    others = set(view) - {0, *competing(history, chosen), *history.last_plan.candidates}
    others -= history.status.stopped
    for plan in history.plans.values():
        others -= set(plan.trace.leaders)
    left = set(bucket.tested.nonzero().flatten().tolist()) - set(view)
    doubt = bucket.var.log().sum(-1)
    assert max(float(doubt[c]) for c in others) <= min(float(doubt[c]) for c in left)
    assert fit_set(history, bucket, config(max_candidates=None)).tolist() == [
        *range(history.num_candidates)
    ]
    assert len(tuner.surrogate().x) <= chosen.max_candidates + 1


def test_a_crowd_makes_room_and_says_so(tuner):
    reasons = [d.reason for d in tuner.history.decisions if d.kind == "retired"]
    assert any("candidates compete, the limit is" in r for r in reasons)
    most = max_competing(tuner.config)
    assert len(competing(tuner.history, tuner.config)) <= most + tuner.config.num_proposals + 2


def test_a_plan_that_settles_a_block_is_followed_by_the_plan_of_a_resumed_study(world):
    """Evidence moves when a block settles, although no message came."""
    url_free, num = hz.MemoryJournal(), 2 * BLOCK
    tuner = hz.Tuner(world.problem, config(max_candidates=None), url_free, seed=1)
    list(run(tuner, world, num - 1))
    tuner.ask(num - 1)  # with these two blocks are full, and the first settles
    again = hz.Tuner.resume(url_free, problem=world.problem)
    assert tuner.recommend() == again.recommend()
    other = hz.Tuner(world.problem, config(max_candidates=None), seed=1)
    other.load_state_dict(tuner.state_dict())
    assert tuner.ask(num) == other.ask(num)


def test_a_resumed_study_goes_on_as_the_uninterrupted_one(world, long_study):
    one = hz.Tuner(world.problem, config(), seed=1)
    one.load_state_dict(long_study)
    for _ in range(3):
        other = hz.Tuner(world.problem, config(), seed=1)
        other.load_state_dict(one.state_dict())
        assert one.ask() == other.ask()
        assert one.recommend() == other.recommend()


def test_who_was_stopped_is_not_born_again():
    """In a small space, with few in view, leaders come back to the same points."""
    space = hz.SearchSpace([hz.Int("a", 0, 7), hz.Int("b", 0, 7)])
    problem = hz.Problem(space, {"a": 1, "b": 1}, ["gain", "guard"], "gain", ["guard >= -0.5%"])
    tuner = hz.Tuner(problem, config(max_candidates=16, harm_alpha=0.05, max_share=1.0), seed=2)
    generator = torch.Generator().manual_seed(3)
    for _ in range(70):
        plan = tuner.ask()
        lift = plan.theta.double().sum(-1) / 100
        mean = torch.stack([1 + lift, 1 - 3 * (lift - 0.06).clamp_min(0)], -1)
        count = 2_000_000 * torch.tensor(plan.shares, dtype=torch.float64).clamp_min(1e-4)
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        count = count.round().unsqueeze(-1).expand_as(mean)
        mean = mean + noise / count.sqrt()
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    history = tuner.history
    assert len(history.status.stopped) > 3
    theta = [tuple(b.theta) for b in history.candidates]
    assert len(set(theta)) == len(theta)
    served_later = set(history.last_plan.candidates)
    assert served_later.isdisjoint(history.status.stopped)


def test_base_levels_rest_on_all_rounds_where_the_latest_know_less_of_the_day():
    history = History(1, ["m"])
    from hyperzero_torch.study.journal import CandidateAdded, Planned

    history.extend([CandidateAdded(i, 0, "x", (float(i),), {}) for i in range(2)])
    period, num = 96, 264
    for r in range(num):
        level = 10 + 5 * np.sin(2 * np.pi * r / period)
        history.extend([Planned(r, (0, 1), (0, 1), (0.5, 0.5))])
        history.extend(
            [
                ReadingsReceived(
                    (r, r), (0, 1), (0, 0), (0, 0), (100.0,) * 2, (level,) * 2, (1.0,) * 2
                )
            ]
        )
    bucket = gather(history, Pooling("users", period, False, 24))
    assert bucket.level_hours == period
    assert float(bucket.base_levels) == pytest.approx(10.0, abs=1e-6)


@pytest.mark.parametrize("between", [0.0, 0.02])
def test_weeks_that_differ_widen_the_variance(between):
    """One arm, effects that differ by block: the mean of blocks is as unsure as it claims."""
    from hyperzero_torch.stats.delta import Delta
    from hyperzero_torch.stats.evidence import EvidenceState, summarise
    from hyperzero_torch.study.evidence.bucket import excess_scatter
    from hyperzero_torch.study.evidence.pooling import Block

    num, blocks, var = 200, 6, 1e-4
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(blocks, num, 1, generator=generator, dtype=torch.float64)
    deltas = deltas * (var + between**2) ** 0.5
    one = torch.ones(num, 1, dtype=torch.float64)
    ids = torch.arange(num)
    parts = [Block(ids, EvidenceState(one, d, one * var), *[None] * 7) for d in deltas]
    state = summarise(
        ids.repeat(blocks), Delta(deltas.reshape(-1, 1), one.repeat(blocks, 1) * var),
        one.repeat(blocks, 1), num,
    )  # fmt: skip
    excess = float(excess_scatter(parts, state))
    freedom = num * (blocks - 1)
    want = 1 + between**2 / var
    # A chi-square over its degrees of freedom, with the prior's 20 at 1.
    want = max(1.0, (20 + freedom * want) / (20 + freedom))
    assert excess == pytest.approx(want, abs=5 * want * (2 / freedom) ** 0.5)
    claimed = (excess * var / blocks) ** 0.5
    inside = float((state.mean.abs() < 1.96 * claimed).double().mean())
    assert inside == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / num) ** 0.5)


def test_an_explanation_does_not_know_what_was_decided_later(tuner):
    tuner.study.set_aside([4, 5], "an incident, found late")
    tuner.study.compact(keep=2 * BLOCK)
    with pytest.raises(hz.RoundError, match="differs from the evidence"):
        tuner.explain(ROUNDS - 2)
    tuner.ask()
    assert tuner.explain(ROUNDS).round == ROUNDS


def test_lineage_holds_where_a_state_was_loaded_into_a_database(tuner, world, tmp_path):
    tuner.study.compact(keep=BLOCK)
    other = hz.Tuner(world.problem, config(), f"sqlite:///{tmp_path / 'other.db'}", seed=1)
    other.load_state_dict(tuner.state_dict())
    entries = other.journal.read("default")
    (one, *_) = (e for e in entries if isinstance(e, Compacted))
    assert all(isinstance(entries[n - 1], ReadingsReceived) for n in one.messages)
    assert bits(other.bucket()) == bits(tuner.bucket())
