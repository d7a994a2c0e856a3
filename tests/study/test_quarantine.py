"""Absurd readings are set aside, not believed and not fatal; what was stopped can come back."""

import warnings

import numpy as np
import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.study.compaction import compact
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.journal.trace import Remark, decision_trace

CONFIG = hz.TunerConfig(
    num_draws=60,
    num_samples=32,
    num_starts=0,
    initial_candidates=8,
    drift_alpha=None,
    verification_share=0.0,
)
USERS = 50_000


def make(constraints=("guard >= -5%",), journal=None, **config):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", list(constraints))
    return hz.Tuner(problem, CONFIG.model_copy(update=config), journal)


def platform(plan, level=(30.0, 10.0), deviation=(27.0, 8.0)):
    """Count, mean and variance of an hour without any difference between arms, by metric."""
    rng = np.random.default_rng(plan.round)
    count = np.array([max(2, round(USERS * s)) for s in plan.shares], dtype=float)
    count = np.stack([count, count], -1)
    mean = np.array(level) + np.array(deviation) / np.sqrt(count) * rng.standard_normal(count.shape)
    return count, mean, np.broadcast_to(np.square(deviation), count.shape).copy()


def tell(tuner, plan, count, mean, var, revision=0):
    """The messages of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, var, revision=revision))
    return [str(w.message) for w in caught]


def play(tuner, rounds, spoil=lambda *_: None):
    said = []
    for _ in range(rounds):
        plan = tuner.ask()
        count, mean, var = platform(plan)
        spoil(plan, count, mean, var)
        said += tell(tuner, plan, count, mean, var)
    return said


def without(tuner, rounds, missing):
    """A study to which the cells ``(round, row, metric)`` were never sent."""
    other = make()
    for _ in range(rounds):
        plan = other.ask()
        count, mean, var = platform(plan)
        count[
            [r for t, r, _ in missing if t == plan.round],
            [m for t, _, m in missing if t == plan.round],
        ] = 0
        tell(other, plan, count, mean, var)
    return other


ABSURD = {
    "count": lambda count, mean, var: count.fill(1e300),
    "crowd": lambda count, mean, var: count.fill(1e12),
    "mean": lambda count, mean, var: mean.fill(1e150),
    "var": lambda count, mean, var: var.fill(1e308),
    "hundredfold": lambda count, mean, var: np.multiply(mean, 100, out=mean),
}


@pytest.mark.parametrize("what", [*ABSURD, "a time"])
@pytest.mark.parametrize("at", [0, 3])
def test_an_absurd_reading_counts_as_if_it_had_not_come(what, at):
    def spoil(plan, count, mean, var):
        if plan.round != at:
            return
        cell = (slice(2, 3), slice(1, 2))
        if what == "a time":
            n = count[cell].copy()
            mean[cell] += 1.7e9 / n
            var[cell] += 1.7e9**2 / n
        else:
            ABSURD[what](count[cell], mean[cell], var[cell])

    tuner = make()
    said = play(tuner, 5, spoil)
    arm = tuner.history.plans[at].candidates[2]
    assert [tuple(cell) for cell in tuner.history.quarantined] == [(at, arm, 1)]
    assert not tuner.stopped
    assert len(said) == 1
    assert "'guard'" in said[0]
    assert f"candidate {arm}" in said[0]
    if what == "a time":
        assert "looks like a time" in said[0]
    (decision,) = [d for d in tuner.decisions if d.kind == "quarantined"]
    assert decision.reason == said[0]
    # Everything else is as in a study that never had it.
    clean = without(tuner, at + 1, [(at, 2, 1)])
    spoiled = make()
    play(spoiled, at + 1, spoil)
    assert torch.equal(spoiled.bucket().mean.nan_to_num(-9), clean.bucket().mean.nan_to_num(-9))
    assert torch.equal(spoiled.bucket().var.nan_to_num(-9), clean.bucket().var.nan_to_num(-9))
    # What came is in the journal as it came.
    table = tuner.history.tables[at]
    assert table.revision[2, 1] == 0
    assert np.isnan(table.counted("count")[2, 1])


def test_a_control_that_is_absurd_gives_no_deltas_in_that_metric():
    def spoil(plan, count, mean, var):
        if plan.round == 1:
            mean[0, 1] *= 100

    tuner = make()
    play(tuner, 2, spoil)
    assert [tuple(c) for c in tuner.history.quarantined] == [(1, 0, 1)]
    deltas = tuner.bucket().deltas
    rows = deltas.round == 1
    assert deltas.delta.mean[rows, 1].isnan().all()
    assert deltas.delta.mean[rows, 0].isfinite().all()


def test_ordinary_readings_are_never_touched():
    tuner = make()
    assert play(tuner, 6) == []
    assert not tuner.history.quarantined
    assert not tuner.decisions


def test_a_person_accepts_and_a_revision_replaces(tmp_path):
    def spoil(plan, count, mean, var):
        if plan.round == 1:
            mean[2:4, 1] *= 100

    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = make(journal=url)
    play(tuner, 2, spoil)
    plan = tuner.study.plan(1)
    first, second = plan.candidate_ids[2:4]
    count, mean, var = platform(plan)
    # A corrected row is judged anew, and counts.
    row = slice(2, 3)
    tuner.tell(hz.Readings(1, [first], count[row], mean[row], var[row], revision=1))
    assert [c.candidate for c in tuner.history.quarantined] == [second]
    before = tuner.bucket().mean[second, 1]
    with pytest.raises(hz.ReadingsError, match="none of the 1 readings"):
        tuner.study.accept_readings("a mistake", rounds=[0])
    with pytest.raises(hz.RoundError, match="reason"):
        tuner.study.accept_readings(" ")
    assert tuner.study.accept_readings("it was a sale", metrics=["guard"]) == 1
    assert not tuner.history.quarantined
    assert float(tuner.bucket().mean[second, 1]) != float(before)
    assert tuner.decisions[-1].kind == "readings accepted"
    assert "it was a sale" in tuner.decisions[-1].reason
    again = make(journal=url)
    assert not again.history.quarantined
    assert torch.equal(again.bucket().mean[1:], tuner.bucket().mean[1:])
    saved = make()
    saved.load_state_dict(tuner.state_dict())
    assert saved.decisions == tuner.decisions


def in_blocks():
    """A study with a reading set aside in the first of its settled blocks of two rounds."""

    def spoil(plan, count, mean, var):
        if plan.round == 0:
            mean[2, 1] *= 100

    tuner = make()
    play(tuner, 6, spoil)
    return tuner, Pooling("precision", 24, calibrate=True, block_rounds=2)


def test_accepting_a_reading_of_a_settled_block_pools_it_anew():
    tuner, pooling = in_blocks()
    arm, cache = tuner.history.plans[0].candidates[2], {}
    before = float(gather(tuner.history, pooling, cache).mean[arm, 1])
    tuner.study.accept_readings("it was a sale")
    after = gather(tuner.history, pooling, cache).mean[arm, 1]
    assert float(after) > before + 1
    assert after == gather(tuner.history, pooling).mean[arm, 1]


def test_a_compacted_round_keeps_nothing_set_aside():
    tuner, pooling = in_blocks()
    before = gather(tuner.history, pooling).mean
    tuner.study.append(lambda history: (compact(history, pooling, 0)[0], None))
    assert 0 not in tuner.history.tables
    assert not tuner.history.quarantined
    assert torch.equal(gather(tuner.history, pooling).mean[1:], before[1:])


UNITS = {
    "variance of a mean": lambda var, count: var / count,
    "standard deviation": lambda var, count: np.sqrt(var),
    "variance of a sum": lambda var, count: var * count,
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_variance_in_another_unit_is_named_once_for_its_metric(unit):
    def spoil(plan, count, mean, var):
        var[:, 0] = UNITS[unit](var[:, 0], count[:, 0])

    tuner = make(("guard >= -5%", "gain >= -1%"))
    hours = 3 if unit != "standard deviation" else 16
    said = play(tuner, hours, spoil)
    assert said
    assert all("'gain'" in s for s in said)
    assert any(f"looks like the {unit}" in s or f"looks like a {unit}" in s for s in said)
    assert len(said) <= 2 * hours
    assert tuner.history.quarantined.keys() >= {(hours - 1, 0, 0)}
    if unit != "standard deviation":  # a scatter between hours has to show that one first
        assert not tuner.stopped
    if unit == "variance of a mean":
        best = tuner.recommend()
        assert {c.metric for c in tuner.history.quarantined} == {0}
        assert best.candidate_id == 0
        assert best.rounds_to_decide is None


def test_after_one_hour_a_squared_standard_error_proves_nothing():
    def spoil(plan, count, mean, var):
        var /= count

    tuner = make(("gain >= -1%",))
    said = play(tuner, 1, spoil)
    assert len(said) == 2
    assert all("variance of a mean" in s for s in said)
    assert tuner.recommend().candidate_id == 0
    with_right = make(("gain >= -1%",))
    play(with_right, 1)
    certified = [with_right.recommend(only_proven=True).candidate_id]
    assert certified == [0]  # no scatter between hours has confirmed the variances yet


def test_accepting_a_unit_ends_the_doubt_for_later_hours():
    def spoil(plan, count, mean, var):
        var[:, 0] /= count[:, 0]

    tuner = make()
    play(tuner, 2, spoil)
    assert tuner.history.quarantined
    tuner.study.accept_readings("these are really so alike", metrics=["gain"])
    assert play(tuner, 1, spoil) == []
    assert not tuner.history.quarantined


def test_the_report_lists_what_is_set_aside(tmp_path):
    def spoil(plan, count, mean, var):
        if plan.round == 1:
            mean[2, 1] *= 100

    tuner = make()
    play(tuner, 2, spoil)
    tuner.ask()
    write_report(tuner, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Readings set aside" in page
    assert "fifty times" in page


def test_the_right_unit_after_the_wrong_counts_at_once():
    def spoil(plan, count, mean, var):
        if plan.round < 4:
            var[:, 0] /= count[:, 0]

    tuner = make()
    play(tuner, 7, spoil)
    assert {c.round for c in tuner.history.quarantined} == {0, 1, 2, 3}


def test_an_hour_in_percent_is_named():
    def spoil(plan, count, mean, var):
        if plan.round == 2:
            mean[:, 1] *= 100
            var[:, 1] *= 1e4

    tuner = make()
    said = play(tuner, 4, spoil)
    assert {(c.round, c.metric) for c in tuner.history.quarantined} == {(2, 1)}
    assert len(said) == 1
    assert "percentage where a fraction belongs" in said[0]


def test_a_percentage_against_a_guardrail_on_the_level():
    tuner = make(("level(guard) <= 25%",))

    def spoil(plan, count, mean, var):
        rate = mean[:, 1] / 80
        mean[:, 1], var[:, 1] = 100 * rate, 1e4 * rate * (1 - rate)

    said = play(tuner, 3, spoil)
    assert {c.metric for c in tuner.history.quarantined} == {1}
    assert any("level(guard) <= 25%" in s and "percentage" in s for s in said)
    assert not tuner.stopped
    tuner.study.accept_readings("percentages are meant")
    with pytest.warns(hz.TunerWarning, match="in none of"):
        play(tuner, 1, spoil)
    assert not tuner.history.quarantined


def harmful(tuner):
    """A study in which one arm breaks the guardrail by 30 % in its first two hours only."""
    arm = tuner.ask(0).candidate_ids[1]

    def spoil(plan, count, mean, var):
        if plan.round < 2 and arm in plan.candidate_ids:
            mean[list(plan.candidate_ids).index(arm), 1] *= 0.7

    play_from(tuner, 0, spoil)
    play(tuner, 2, spoil)
    return arm


def play_from(tuner, round_, spoil):
    plan = tuner.ask(round_)
    count, mean, var = platform(plan)
    spoil(plan, count, mean, var)
    tell(tuner, plan, count, mean, var)


def test_a_stopped_candidate_is_let_back_in_and_judged_anew():
    tuner = make(evidence="own", draws="marginal")
    arm = harmful(tuner)
    assert tuner.stopped == (arm,)
    with pytest.raises(hz.RoundError, match="not stopped"):
        tuner.study.readmit([arm + 1], "a mistake")
    with pytest.raises(hz.RoundError, match="reason"):
        tuner.study.readmit([arm], "")
    tuner.study.readmit([arm], "the log was broken")
    assert tuner.stopped == ()
    assert tuner.history.status.readmitted == {arm: 2}
    assert tuner.decisions[-1].kind == "readmitted"
    # Its earlier readings do not stop it again, not even when they come once more.
    tuner.ask()
    assert tuner.stopped == ()
    # Harm after that does.
    later = make(evidence="own", draws="marginal")
    arm = harmful(later)
    later.study.readmit([arm], "once more")
    later.study.set_aside([0, 1], "the log was broken")  # so that draws serve it again

    def harm(plan, count, mean, var):
        if arm in plan.candidate_ids:
            mean[list(plan.candidate_ids).index(arm), 1] *= 0.7

    assert arm in later.ask().candidate_ids  # served at once, to be measured
    play_from(later, 3, harm)
    play(later, 12, harm)
    assert later.stopped == (arm,)


def test_a_rollback_leaves_a_candidate_readmitted():
    tuner = make(evidence="own", draws="marginal")
    arm = harmful(tuner)
    tuner.study.readmit([arm], "the log was broken")
    tuner.study.roll_back(1, "a faulty ranker")
    assert arm not in tuner.stopped
    assert arm in tuner.history.status.readmitted


def test_remarks_of_these_kinds_in_old_journals_stay_remarks():
    assert isinstance(decision_trace("quarantined", {"a": 1}), Remark)
    with pytest.raises(hz.ConfigError, match="kind"):
        make().study.note("quarantined", "a remark")
