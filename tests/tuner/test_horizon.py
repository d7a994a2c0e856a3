"""What a study can still resolve until its horizon, against what it resolves when it goes on."""

import json
import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import torch
from support.small_study import CONFIG, make, play

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling, pool
from hyperzero_torch.study.horizon import arrived_after, check_horizon, delay_of, rounds_left
from hyperzero_torch.study.journal import CandidateAdded, Configured, MemoryJournal, Planned
from hyperzero_torch.study.study import Study
from hyperzero_torch.tuner.horizon import evidence_until, resolution

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")

# Of six arms three have the even share, (1 - 0.4) / 6; the first is the leader.
SHARES = (0.4, 0.2, 0.1, 0.1, 0.1, 0.06, 0.04)
SHARE_OF = [0, 1, 1, 1]  # of the first four arms: leading, even, even, even
NOW, END = 26, 60


class Served:
    """A study with the same plan in every round, served by a world; nothing is fitted."""

    def __init__(self, world, config, shares=SHARES):
        self.world, self.shares, self.mail = world, shares, {}
        problem = world.problem
        self.study = Study(MemoryJournal(), "s", problem, config, 0)
        space = problem.space
        theta = space.from_unit(space.sobol(len(shares) - 1, seed=0))
        theta = torch.cat([problem.base_theta.unsqueeze(0), theta])
        entries = [
            CandidateAdded(i, 0, "initial", tuple(row.tolist()), parameters)
            for i, (row, parameters) in enumerate(zip(theta, space.to_parameters(theta)))
        ]
        self.study.append(lambda _: (entries, None))

    def serve(self, begin, end, **details):
        for r in range(begin, end):
            arms = tuple(range(len(self.shares)))
            plan = Planned(r, arms, (0,) + (1,) * len(arms[1:]), self.shares, None, details)
            self.study.append(lambda _, plan=plan: ([plan], None))
            for delivery in self.world.serve(self.study.plan(r)):
                self.mail.setdefault(max(delivery.due, r + 1), []).append(delivery.readings)
            if r + 1 in self.mail:
                self.study.receive(self.mail.pop(r + 1))

    @property
    def resolution(self):
        history, config = self.study.history, self.study.config
        return resolution(history, config, gather(history, Pooling.of(config)))


@pytest.fixture(scope="module")
def realised():
    """By study: predicted and realised standard errors, and errors, each (arms, metrics)."""
    rows = []
    for seed in range(10):
        world = GuardrailWorld(seed, delay=2, traffic=0.5)
        config = hz.TunerConfig(horizon=END, weights="users" if seed % 3 == 2 else "precision")
        served = Served(world, config)
        served.serve(0, NOW)
        shares = served.resolution.shares
        assert [share.share for share in shares] == pytest.approx([0.2, 0.1])
        predicted = np.array([[m.standard_error for m in s.metrics] for s in shares])[SHARE_OF]
        served.serve(NOW, END)
        tables = [(r, served.study.history.tables[r]) for r in range(NOW, END)]
        block, _ = pool(tables, Pooling.of(config), 2)
        error = block.state.mean - world.true_delta(served.study.history.theta)[block.candidates]
        std = block.state.spread.sqrt() / block.state.weight
        rows.append([predicted, std[1:5].numpy(), error[1:5].numpy()])
    return np.array(rows).swapaxes(0, 1)


def test_the_standard_error_is_the_one_that_the_study_has_at_the_horizon(realised):
    """Both rest on a dispersion of some 150 residuals, known to sqrt(2 / 150) / 2 = 6 %.

    Their ratio is known to 6 % x sqrt(2), and its mean over 10 studies and 2 metrics to 2 %; the
    six arms of a study share the dispersion.
    """
    predicted, std, _ = realised
    assert np.mean(std / predicted) == pytest.approx(1.0, abs=3 * 0.02)
    assert np.abs(np.log(std / predicted)).max() < 4 * 0.06 * math.sqrt(2)


def test_it_is_the_size_of_the_true_errors(realised):
    """The mean of squares of n correlated normals has variance (2 / n^2) sum of rho^2."""
    predicted, _, error = realised
    square = (error / predicted) ** 2  # (studies, arms, metrics)
    control, own = 1 / SHARES[0], 1 / np.array(SHARES[1:5])
    var = np.diag(own) + control
    rho = var / np.sqrt(np.outer(np.diag(var), np.diag(var)))
    spread = math.sqrt(2 * (rho**2).sum() / len(own) ** 2 / (len(square) * 2))
    assert square.mean() == pytest.approx(1.0, abs=3.5 * spread)


def test_only_what_arrives_before_the_horizon_counts():
    """By hand: an even stream, an arm's readings two rounds late in every round."""
    served = Served(GuardrailWorld(0, delay=3), hz.TunerConfig(horizon=40))
    served.serve(0, 12)
    history, config = served.study.history, served.study.config
    arrived = arrived_after(history)
    assert (arrived[:2] == 0).all()  # the world's delay is 3: nothing comes before two more plans
    assert (arrived[-1] == 1).all()
    assert (np.diff(arrived, axis=0) >= 0).all()
    assert evidence_until(history, config, 2).tolist() == [0.0, 0.0]
    # From the rounds of one hour of the day, a day later, each counts in full.
    by_length = [evidence_until(history, config, n) for n in (100, 124, 148)]
    torch.testing.assert_close(by_length[1] - by_length[0], by_length[2] - by_length[1])
    assert bool((by_length[1] > by_length[0]).all())
    assert len(arrived) - 1 >= delay_of(history) >= 2


def test_partial_rounds_and_another_experiment_share_are_scaled_to_the_whole_traffic():
    full, half = (
        Served(GuardrailWorld(0, delay=0), hz.TunerConfig(experiment_share=part))
        for part in (1.0, 0.5)
    )
    full.serve(0, 24, experiment_share=1.0)
    half.serve(0, 24, experiment_share=1.0)  # planned before the share was halved
    ratio = [evidence_until(s.study.history, s.study.config, 48) for s in (full, half)]
    torch.testing.assert_close(ratio[0], 2 * ratio[1])
    late = Served(GuardrailWorld(0, delay=4), hz.TunerConfig())
    late.serve(0, 200)  # of the last rounds only some arms have reported
    assert late.study.history.tables[195].num_waiting > 0
    early = Served(GuardrailWorld(0, delay=0), hz.TunerConfig())
    early.serve(0, 200)
    far = 24 * 100
    torch.testing.assert_close(
        *(evidence_until(s.study.history, s.study.config, far) for s in (late, early)),
        rtol=0.05, atol=0.0,
    )  # fmt: skip


def test_a_horizon_of_rounds_rolls_on_and_a_date_does_not():
    now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    tuner = make(config=CONFIG.model_copy(update={"horizon": 5}))
    left = [rounds_left(tuner.history, tuner.config)]
    for _ in range(7):
        tuner.ask()
        left.append(rounds_left(tuner.history, tuner.config))
    assert left == [5, 4, 3, 2, 1, 5, 4, 3]
    dated = CONFIG.model_copy(update={"horizon": datetime(2026, 12, 2, tzinfo=UTC)})
    assert rounds_left(tuner.history, dated, now) == 12
    assert rounds_left(tuner.history, dated, now + timedelta(minutes=1)) == 11
    passed = resolution(tuner.history, dated, tuner.bucket(), now + timedelta(days=1))
    assert passed.rounds_left == 0
    assert passed.in_words() == (
        "horizon: 2026-12-02; it has passed: name a later one (traffic.horizon)",
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (np.int64(9), 9),
        ("2026-12-05", datetime(2026, 12, 5, tzinfo=UTC)),
        (date(2026, 12, 5), datetime(2026, 12, 5, tzinfo=UTC)),
        ("2026-12-05T18:00+01:00", datetime(2026, 12, 5, 17, tzinfo=UTC)),
        (datetime(2026, 12, 5, 18), datetime(2026, 12, 5, 18, tzinfo=UTC)),
    ],
)
def test_rounds_and_dates_are_read_and_stored(value, expected):
    config = hz.TunerConfig(horizon=value)
    assert config.horizon == expected
    assert hz.TunerConfig(**json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    "value", [0, -3, 2.5, True, "soon", "72", "20261205", "2026-13-01", None, 10**9, [3],
              "0001-01-01T00:00+14:00"]
)  # fmt: skip
def test_what_is_no_horizon_is_refused(value):
    with pytest.raises(hz.ConfigError, match=r"horizon is a number of rounds .* or a date"):
        hz.TunerConfig(horizon=value)


def test_a_new_horizon_in_the_past_or_before_the_first_readings_is_refused(tmp_path):
    past = CONFIG.model_copy(update={"horizon": datetime(2020, 1, 1, tzinfo=UTC)})
    with pytest.raises(hz.ConfigError, match="the horizon 2020-01-01 has passed"):
        make(config=past)
    journal = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = make(journal)
    tuner.ask()
    with pytest.raises(hz.ConfigError, match="the horizon 2020-01-01 has passed"):
        tuner.study.configure(past)
    assert tuner.config == CONFIG
    late = Served(GuardrailWorld(0, delay=4), hz.TunerConfig())
    late.serve(0, 20)
    with pytest.raises(hz.ConfigError, match=r"horizon of 3 rounds is not longer than the delay"):
        late.study.configure(hz.TunerConfig(horizon=3))
    late.study.configure(hz.TunerConfig(horizon=30))
    soon = datetime(2026, 12, 5, tzinfo=UTC)
    check_horizon(soon, now=soon - timedelta(hours=1))
    with pytest.raises(hz.ConfigError, match="has passed"):
        check_horizon(soon, now=soon)
    # A horizon that passes while the study runs does not keep anybody from opening it.
    stored = make(f"sqlite:///{tmp_path / 'dated.db'}")
    entry = Configured(past.model_dump(mode="json"))
    stored.study.append(lambda _: ([entry], None))
    again = hz.Tuner.resume(stored.journal, problem=stored.problem, config=past)
    assert again.config == past
    assert again.ask().round == 0
    assert "it has passed" in again.resolution().why_not


def test_it_says_why_nothing_can_be_resolved():
    served = Served(GuardrailWorld(0, delay=4), hz.TunerConfig(horizon=26))
    assert served.resolution.why_not == "no round is planned yet"
    served.serve(0, 1)
    assert served.resolution.why_not == "there are no readings yet"
    served.serve(1, 24)
    short = served.resolution
    assert short.rounds_left == 2
    assert "no reading would arrive before it" in short.why_not
    served.serve(24, 26)
    assert served.resolution.rounds_left == 26
    assert served.resolution.why_not is None
    alone = Served(GuardrailWorld(0), hz.TunerConfig(), shares=(1.0,))
    alone.serve(0, 3)
    assert alone.resolution.why_not == "nothing is compared at present"


def test_words_and_values_agree():
    tuner = make()
    play(tuner, 6)
    facts = tuner.resolution()
    plain = json.loads(json.dumps(facts.to_dict()))
    assert (plain["round"], plain["date"], plain["rounds_left"]) == (72, None, 66)
    assert plain["control_share"] == tuner.history.last_plan.shares[0]
    leading, even = plain["shares"]
    assert (leading["name"], even["name"]) == ("leading", "even")
    assert leading["share"] >= even["share"]
    for share in (leading, even):
        for metric in share["metrics"]:
            expected = 1.6449 * metric["standard_error"]
            assert metric["smallest_lift"] == pytest.approx(expected, rel=1e-4)
    for better, worse in zip(leading["metrics"], even["metrics"]):
        assert better["standard_error"] <= worse["standard_error"]
    first, *lines = facts.in_words()
    assert first == "horizon: round 72, 66 rounds left"
    lift = f"gain {100 * leading['metrics'][0]['smallest_lift']:.2g} %"
    assert lift in lines[0]
    assert "leaders' share" in lines[0]
    assert "an even share" in lines[1]


def test_it_changes_no_plan():
    plans = []
    for horizon in (72, 9):
        tuner = make(config=CONFIG.model_copy(update={"horizon": horizon}))
        play(tuner, 5)
        plans.append([(p.candidates, p.slots, p.shares) for p in tuner.history.plans.values()])
    assert plans[0] == plans[1]


def test_the_evidence_is_pooled_anew_after_every_entry():
    """The last evidence is kept: every kind of entry that changes it has to be noticed."""
    tuner = make()
    play(tuner, 5)
    changes = (
        lambda: tuner.ask(),
        lambda: play(tuner, 1),
        lambda: tuner.study.set_aside([1], "an incident"),
        lambda: tuner.study.reinstate([1], "it was none"),
        lambda: tuner.study.stop([2], "a complaint", "ann"),
        lambda: tuner.study.roll_back(4, "a mistake", "ann"),
        lambda: tuner.study.configure(CONFIG.model_copy(update={"calibrate": False})),
    )
    for change in changes:
        tuner.resolution()
        tuner.bucket()
        change()
        config = tuner.config
        fresh = gather(tuner.study.sync(), Pooling.of(config))
        for name in ("mean", "var", "weight", "num_rounds"):
            torch.testing.assert_close(
                getattr(tuner.bucket(), name), getattr(fresh, name), rtol=0, atol=0, equal_nan=True
            )
        assert tuner.resolution() == resolution(tuner.history, config, fresh)
