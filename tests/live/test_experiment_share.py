"""An experiment for a part of all users: served, logged, counted, simulated and shown."""

import json
import warnings

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch import cli
from hyperzero_torch.live import (
    Aggregator,
    FlagdUpdater,
    TableUpdater,
    ThetaClient,
    bucket,
    read_table,
    takes_part,
)
from hyperzero_torch.live import assign as assign_by_table
from hyperzero_torch.live.simulated import LivingRecommender, closed_circle
from hyperzero_torch.simulate import GuardrailWorld, ValueModelWorld
from hyperzero_torch.simulate import run as simulate
from hyperzero_torch.testing.platforms import assert_independent, example_plan

SMALL = {
    "num_draws": 60, "num_samples": 64, "initial_candidates": 4, "num_proposals": 1,
    "num_starts": 0, "verification_share": 0.0,
}  # fmt: skip
USERS = [f"user {i}" for i in range(20_000)]


def tuner_of(share=1.0, journal=None, **config):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4}, ["gain", "guard"], "gain", ["guard >= -5%"])
    config = hz.TunerConfig(**SMALL, experiment_share=share, **config)
    return hz.Tuner(problem, config, journal)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan"), "all"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(hz.ConfigError, match="experiment_share"):
        hz.TunerConfig(experiment_share=share)


def test_a_plan_carries_it_and_the_shares_still_sum_to_one():
    plan = tuner_of(0.25).ask()
    assert plan.experiment_share == 0.25
    assert sum(plan.shares) == pytest.approx(1.0)
    assert plan.to_dict()["experiment_share"] == 0.25
    whole = tuner_of().ask()
    assert "experiment_share" not in whole.to_dict()
    assert whole.shares == plan.shares  # it only says of whom they are shares


def test_it_can_be_changed_during_a_study_and_old_plans_keep_theirs(tmp_path):
    journal = f"sqlite:///{tmp_path / 'study.db'}"
    assert tuner_of(1.0, journal).ask(0).experiment_share == 1.0
    assert tuner_of(0.1, journal).ask(1).experiment_share == 0.1
    again = tuner_of(0.5, journal)
    assert again.ask(2).experiment_share == 0.5
    assert [again.ask(r).experiment_share for r in (0, 1, 2)] == [1.0, 0.1, 0.5]
    stored = {r: p.details for r, p in again.history.plans.items()}
    assert "experiment_share" not in stored[0]  # as earlier versions wrote it
    assert stored[1]["experiment_share"] == 0.1


@given(
    share=st.floats(1e-6, 1.0), more=st.floats(0, 1.0), user=st.text(max_size=20), salt=st.text()
)
@settings(max_examples=200, deadline=None)
def test_who_takes_part_at_a_share_does_at_every_larger_one(share, more, user, salt):
    if takes_part(user, share, salt):
        assert takes_part(user, min(1.0, share + more), salt)
    assert takes_part(user, 1.0, salt)


def test_taking_part_is_independent_of_the_arm_and_of_other_experiments():
    inside = [takes_part(u, 0.3, "feed") for u in USERS]
    assert_independent(inside, [int(4 * bucket(u, 17, "feed")) for u in USERS])
    assert_independent(inside, [takes_part(u, 0.3, "shorts") for u in USERS])


def test_in_a_flag_it_is_independent_of_the_arm(tmp_path):
    plan = example_plan(3, (0.25,) * 4, experiment_share=0.999999)
    FlagdUpdater(tmp_path / "flags.json").apply(plan)
    with ThetaClient.open(tmp_path / "flags.json", plan.parameters[0]) as client:
        arm = [client.assign(u).candidate for u in USERS]
        part = example_plan(3, (0.25,) * 4, experiment_share=0.3)
        FlagdUpdater(tmp_path / "other.json").apply(part)
        with ThetaClient.open(tmp_path / "other.json", plan.parameters[0]) as other:
            served = [other.assign(u) for u in USERS]
    assert_independent(arm, [a.round is not None for a in served])
    assert all(a.candidate == c for a, c in zip(served, arm) if a.round is not None)
    assert {a.reason for a in served if a.round is None} == {"outside the experiment"}


def test_the_control_that_is_served_is_the_flags_for_everybody(tmp_path):
    """Users outside see what the control sees, even where an application's own base is older."""
    plan = example_plan(3, (0.5, 0.5), [{"w": 0.25}, {"w": 0.5}], experiment_share=0.5)
    FlagdUpdater(tmp_path / "flags.json").apply(plan)
    with ThetaClient.open(tmp_path / "flags.json", {"w": 0.1}) as client:
        served = [client.assign(u) for u in USERS[:200]]
        assert client.served_round() == 3
    assert {a.parameters["w"] for a in served if a.candidate == 0} == {0.25}


def test_a_flag_of_everybody_is_as_it_was(tmp_path):
    plan = example_plan(3, (0.5, 0.5))
    FlagdUpdater(tmp_path / "flags.json").apply(plan)
    flag = json.loads((tmp_path / "flags.json").read_text())["flags"]["value-model"]
    (condition, _) = flag["targeting"]["if"]
    assert condition == {"var": "targetingKey"}
    TableUpdater(tmp_path / "table.json").apply(plan)
    assert json.loads((tmp_path / "table.json").read_text())["version"] == 1
    assert "experiment_share" not in json.loads((tmp_path / "table.json").read_text())


def test_a_table_of_a_part_is_of_version_2_and_checked(tmp_path):
    path = tmp_path / "table.json"
    plan = example_plan(3, (0.5, 0.5), experiment_share=0.2)
    TableUpdater(path, salt="feed").apply(plan)
    table = read_table(path)
    assert (table["version"], table["experiment_share"]) == (2, 0.2)
    inside = {u for u in USERS if assign_by_table(table, u).round == 3}
    assert inside == {u for u in USERS if takes_part(u, 0.2, "feed")}
    for change in ({"version": 1}, {"experiment_share": 0}, {"experiment_share": "all"}):
        path.write_text(json.dumps(table | change))
        with pytest.raises(hz.ConfigError, match="not an assignment table"):
            read_table(path)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_exposures_of_users_outside_are_counted_as_such_only(tmp_path, engine):
    users, shares = USERS[:4000], {0: 0.5, 7: 0.5}
    inside = [u for u in users if takes_part(u, 0.25, "feed")]
    arm = {u: 0 if bucket(u, 1, "feed") < 0.5 else 7 for u in inside}
    exposures = pl.DataFrame(
        {"user": users, "round": [1] * len(users), "candidate": [arm.get(u, -1) for u in users]}
    )
    exposures = pl.concat([exposures, exposures[:100]])  # repeated rows count once
    events = pl.DataFrame(
        {"user": users, "round": [1] * len(users), "metric": ["views"] * len(users)}
    ).with_columns(value=pl.Series([2.0 if u in arm else 100.0 for u in users]))
    if engine == "duckdb":
        for name, frame in (("exposures", exposures), ("events", events)):
            frame.write_parquet(tmp_path / f"{name}.parquet")
        exposures, events = tmp_path / "exposures.parquet", tmp_path / "events.parquet"
    got = Aggregator(["views"]).aggregate(exposures, events, as_of=2, planned={1: shares})
    assert got.excluded_rounds == {}
    assert got.excluded_users[1]["outside"] == len(users) - len(inside)
    assert not got.faults
    assert set(got.readings.mean.tolist()) == {2.0}
    assert int(got.readings.count.sum()) == len(inside)


def test_a_log_in_which_everybody_is_outside_has_no_reading():
    exposures = pl.DataFrame({"user": [1, 2, 2], "round": [1, 1, 1], "candidate": [-1, -1, -1]})
    events = pl.DataFrame({"user": [1], "round": [1], "metric": ["views"], "value": [1.0]})
    got = Aggregator(["views"]).aggregate(exposures, events[:0], as_of=2, planned={1: {0: 1.0}})
    assert got.readings is None
    assert got.excluded_users[1]["outside"] == 2


def test_users_outside_are_not_taken_for_sticky_ones():
    users, aggregator = USERS[:4000], Aggregator(["views"])
    for round_ in (1, 2):
        arm = [
            (0 if bucket(u, round_, "feed") < 0.5 else 7) if takes_part(u, 0.25, "feed") else -1
            for u in users
        ]
        exposures = pl.DataFrame({"user": users, "round": [round_] * 4000, "candidate": arm})
        events = exposures.select("user", "round", metric=pl.lit("views"), value=pl.lit(1.0))
        got = aggregator.aggregate(
            exposures, events, as_of=round_ + 1, planned={round_: {0: 0.5, 7: 0.5}}
        )
        assert got.excluded_rounds == {}


def test_a_world_with_a_part_reports_a_part_of_the_users():
    whole, part = (
        GuardrailWorld(3).serve(tuner.ask())
        for tuner in (
            hz.Tuner(GuardrailWorld(3).problem, hz.TunerConfig(experiment_share=s))
            for s in (1.0, 0.1)
        )
    )
    counts = [float(sum(d.readings.count.sum() for d in world)) for world in (whole, part)]
    assert counts[1] == pytest.approx(0.1 * counts[0], rel=0.02)


def test_the_simulated_recommender_counts_the_same_users_every_hour():
    world = ValueModelWorld(1, num_users=4000, panel=100)
    config = hz.TunerConfig(**SMALL, experiment_share=0.25)
    tuner = hz.Tuner(world.problem, config)
    visits = world.audience.visits(0)
    got = world.serve(tuner.ask(0))[0].readings
    num_visitors = int((visits > 0).sum())
    num_counted = float(got.count.sum()) / len(set(got.metric))
    assert num_counted == pytest.approx(0.25 * num_visitors, rel=0.15)


def test_exposed_violation_is_that_of_all_users():
    world = GuardrailWorld(3)
    records = []
    for share in (1.0, 0.1):
        tuner = hz.Tuner(world.problem, hz.TunerConfig(experiment_share=share))
        records.append(next(iter(simulate(tuner, world, 1))))
    plan = tuner.ask(0)
    truth = world.truth(plan.theta, 0).violation
    inside = float((torch.tensor(plan.shares, dtype=torch.float64) * truth).sum())
    assert records[0].exposed_violation == pytest.approx(inside)
    assert records[1].exposed_violation == pytest.approx(0.1 * inside + 0.9 * float(truth[0]))


def test_the_live_recommender_with_a_part_of_the_users(tmp_path):
    """Flags, application, log, aggregation, and the sample ratio within the experiment."""
    world = ValueModelWorld(2, num_users=6000, bots=0, panel=100)
    app = LivingRecommender(world, tmp_path)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL, experiment_share=0.2), seed=3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", hz.TunerWarning)
            list(closed_circle(tuner, app).run(4))
    finally:
        app.close()
    assert not tuner.history.status.excluded_rounds
    exposures = pl.read_parquet(tmp_path / "exposures/*.parquet")
    visitors = set(pl.read_parquet(tmp_path / "events/*.parquet")["user"])
    inside = set(exposures["user"])
    assert inside < visitors
    assert 0.14 < len(inside) / len(visitors) < 0.26
    by_round = dict(exposures.group_by("round").agg(pl.col("user")).iter_rows())
    assert sorted(by_round) == [0, 1, 2]  # the last hour has not passed yet
    events = pl.read_parquet(tmp_path / "events/*.parquet")
    for round_, served in by_round.items():  # the same users take part every hour
        here = set(events.filter(pl.col("round") == round_)["user"])
        assert set(served) == inside & here
    assert len(tuner.history.tables[0].candidates) > 1
    assert tuner.history.num_messages > 0


def test_a_smaller_experiment_from_one_hour_to_the_next_is_no_mismatch():
    """An hour that begins under the plan before has more of its users, where that was larger."""
    tuner = tuner_of(1.0)
    first = tuner.ask(0)
    tuner.study.configure(hz.TunerConfig(**SMALL, experiment_share=0.1))
    second = tuner.ask(1)
    total, late = 200_000, 0.25
    before = dict(zip(first.candidate_ids, first.shares))
    users = [
        total * (late * before.get(c, 0.0) + (1 - late) * 0.1 * s)
        for c, s in zip(second.candidate_ids, second.shares)
    ]
    count = torch.tensor(users).round()
    ones = torch.ones(len(users), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", hz.TunerWarning)
        readings = hz.Readings(1, second.candidate_ids, count, 10 * ones, ones)
        tuner.tell(readings)
        plan = tuner.ask(2)
    assert not [note for note in plan.notes if "ratio" in note]


def test_the_command_line_names_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as done:
            cli.main(arguments)
        assert not done.value.code
        return capsys.readouterr()

    run("init")
    text = (tmp_path / "tuning.yaml").read_text()
    assert "# experiment_share: 0.1" in text
    text = text.replace("  # experiment_share: 0.1  ", "  experiment_share: 0.1  ")
    (tmp_path / "tuning.yaml").write_text(text)
    said = run("step", "-c", "tuning.yaml", "--plan", "plan.json")
    assert "of an experiment with 0.1 of all users" in " ".join(said.err.split())
    assert json.loads((tmp_path / "plan.json").read_text())["experiment_share"] == 0.1
    out = run("status", "-c", "tuning.yaml").out
    assert "0.1 of all users take part; the base is served to all others" in " ".join(out.split())
    assert json.loads(run("status", "-c", "tuning.yaml", "--json").out)["experiment_share"] == 0.1
