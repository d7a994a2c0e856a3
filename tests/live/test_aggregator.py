"""The aggregator against an oracle in NumPy, on every engine; its statistics by Monte Carlo."""

import math
import shutil
from collections import defaultdict

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

import hyperzero_torch as hz
from hyperzero_torch.live.aggregate.aggregator import Aggregator
from hyperzero_torch.live.aggregate.metrics import Metric
from hyperzero_torch.live.aggregate.sample_ratio import mismatch

duckdb = pytest.importorskip("duckdb")

CTR = Metric.ratio("ctr", "click", "view", winsorise=0.9, covariate=True)
METRICS = (
    "click",
    Metric("view", winsorise=0.8),
    Metric("watch", covariate=True),
    Metric.ratio("rate", "click", "watch"),
    CTR,
)
SOURCES = ("click", "view", "watch")


def exposures_of(rows):
    user, round_, candidate = zip(*rows) if rows else ((), (), ())
    return pd.DataFrame(
        {
            "user": np.array(user, dtype=np.int64),
            "round": np.array(round_, dtype=np.int64),
            "candidate": np.array(candidate, dtype=np.int64),
        }
    )


def events_of(rows, arrived=False):
    columns = {"user": np.int64, "round": np.int64, "metric": str, "value": np.float64}
    if arrived:
        columns["arrived"] = np.int64
    cells = list(zip(*rows)) if rows else [()] * len(columns)
    frame = {}
    for (name, dtype), cell in zip(columns.items(), cells):
        frame[name] = pd.Series(cell, dtype="str" if dtype is str else dtype)
    return pd.DataFrame(frame)


def covariates_of(rows):
    cells = list(zip(*rows)) if rows else [(), (), ()]
    return pd.DataFrame(
        {
            "user": np.array(cells[0], dtype=np.int64),
            "metric": pd.Series(cells[1], dtype="str"),
            "value": np.array(cells[2], dtype=np.float64),
        }
    )


def on_duckdb(*frames):
    connection = duckdb.connect()
    return [connection.from_df(frame) if frame is not None else None for frame in frames]


ENGINES = {
    "pandas": lambda *frames: list(frames),
    "polars": lambda *frames: [f if f is None else pl.from_pandas(f) for f in frames],
    "polars lazy": lambda *frames: [f if f is None else pl.from_pandas(f).lazy() for f in frames],
    "duckdb": on_duckdb,
}


# --- the oracle: every user by himself -------------------------------------------------------


def not_counted(bots=0, in_two_arms=0, unexposed=0):
    return {"bots": bots, "in_two_arms": in_two_arms, "unexposed": unexposed}


def oracle(metrics, exposures, events, covariates=(), *, as_of, lateness=6, max_events=None):
    """Rows (round, candidate, metric) -> (count, mean, var), and the excluded."""
    metrics = [Metric(m) if isinstance(m, str) else m for m in metrics]
    sources = {s for m in metrics for s in m.sources}
    seen_in = defaultdict(set)
    for user, round_, candidate in exposures:
        seen_in[user, round_].add(candidate)
    sums, number = defaultdict(float), defaultdict(int)
    for user, round_, metric, value, *arrived in events:
        if metric in sources and (not arrived or arrived[0] < as_of):
            sums[user, round_, metric] += value
            number[user, round_] += 1
    before, has = defaultdict(float), set()
    for user, metric, value in covariates:
        before[user, metric] += value
        has.add((user, metric))
    expected, excluded = {}, {}
    window = list(range(max(0, as_of - lateness + 1), as_of))
    for round_ in window:
        here = {u: arms for (u, r), arms in seen_in.items() if r == round_}
        two = {u for u, arms in here.items() if len(arms) > 1}
        bots = {
            u
            for u in here
            if u not in two and max_events is not None and number[u, round_] > max_events
        }
        ghosts = {u for (u, r) in number if r == round_ and u not in here and number[u, r]}
        if here or ghosts:
            excluded[round_] = not_counted(len(bots), len(two), len(ghosts))
        users = {u: min(arms) for u, arms in here.items() if u not in two | bots}
        for metric in metrics:
            values = oracle_metric(metric, users, round_, sums, before, has, covariates)
            for arm, row in values.items():
                if row[0] > 1 and not math.isnan(row[1]):
                    expected[round_, arm, metric.name] = row
            if 0 in values and math.isnan(values[0][1]):
                for arm in values:
                    expected.pop((round_, arm, metric.name), None)
    return expected, excluded


def oracle_metric(metric, users, round_, sums, before, has, covariates):
    names = list(users)
    arm = np.array([users[u] for u in names])
    parts = []
    for source in metric.sources:
        part = np.array([sums[u, round_, source] for u in names])
        if metric.winsorise is not None and len(part):
            part = np.minimum(part, np.quantile(part, metric.winsorise))
        parts.append(part)
    known = np.array([any((u, s) in has for s in metric.sources) for u in names], dtype=bool)
    c = np.zeros(len(names))
    if metric.covariate and names:
        c = np.array([before[u, metric.sources[0]] for u in names])
        if metric.numerator:
            above, below = (
                sum(v for _, m, v in covariates if m == source) for source in metric.sources
            )
            slope = above / below if below else 0.0
            c = c - slope * np.array([before[u, metric.sources[1]] for u in names])
    value, mean = np.zeros(len(names)), {}
    for a in set(arm.tolist()):
        at = arm == a
        if metric.numerator is None:
            mean[a], value[at] = parts[0][at].mean(), parts[0][at]
        elif parts[1][at].sum() == 0:
            mean[a], known[at], value[at] = math.nan, False, 0.0
        else:
            mean[a] = parts[0][at].sum() / parts[1][at].sum()
            value[at] = mean[a] + (parts[0][at] - mean[a] * parts[1][at]) / parts[1][at].mean()
    if metric.covariate and known.any():
        c = np.where(known, c - c[known].mean(), 0.0)
        defined = [a for a in mean if not math.isnan(mean[a])]
        top = sum(np.cov(value[arm == a], c[arm == a], ddof=0)[0, 1] * (arm == a).sum()
                  for a in defined if (arm == a).sum() > 1)  # fmt: skip
        under = sum(c[arm == a].var() * (arm == a).sum() for a in defined)
        if under > 1e-18:
            value = value - top / under * c
            mean = {a: m + (0 if math.isnan(m) else value[arm == a].mean() - m)
                    for a, m in mean.items()}  # fmt: skip
    return {
        a: (int((arm == a).sum()), mean[a],
            value[arm == a].var(ddof=1) if (arm == a).sum() > 1 else math.nan)
        for a in mean
    }  # fmt: skip


def as_dict(readings):
    if readings is None:
        return {}
    keys = zip(readings.round.tolist(), readings.candidate.tolist(), readings.metric.tolist())
    return dict(zip(keys, zip(readings.count, readings.mean, readings.var)))


def assert_equal(actual, expected, scale=1.0, rel=1e-9):
    assert actual.keys() == expected.keys()
    for key, row in expected.items():
        assert actual[key][0] == row[0]
        assert actual[key][1] == pytest.approx(row[1], rel=rel, abs=rel * scale)
        assert actual[key][2] == pytest.approx(row[2], rel=rel, abs=rel * scale**2)


def log(seed=0, num_users=400, rounds=(3, 4, 5), arms=4, num_events=4000):
    """A random log with repeats, users in two arms, ghosts, late rows and unknown metrics."""
    rng = np.random.default_rng(seed)
    exposures = [
        (u, r, int(rng.integers(arms))) for r in rounds for u in rng.permutation(num_users).tolist()
    ]
    exposures += [exposures[i] for i in rng.integers(len(exposures), size=50)]
    exposures += [(u, rounds[0], int(rng.integers(arms))) for u in range(5)]
    events = [
        (
            int(rng.integers(num_users + 20)),
            int(rng.choice(rounds)),
            str(rng.choice([*SOURCES, "junk"])),
            float(rng.lognormal()),
            int(rng.integers(2, 8)),
        )
        for _ in range(num_events)
    ]
    covariates = [
        (int(rng.integers(num_users + 9)), str(rng.choice(SOURCES)), float(rng.lognormal()))
        for _ in range(num_users * 2)
    ]
    return exposures, events, covariates


# --- engines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_what_the_oracle_gives_user_by_user(engine):
    exposures, events, covariates = log()
    frames = exposures_of(exposures), events_of(events, arrived=True), covariates_of(covariates)
    result = Aggregator(METRICS, max_events=5).aggregate(*ENGINES[engine](*frames), as_of=6)
    expected, excluded = oracle(METRICS, exposures, events, covariates, as_of=6, max_events=5)
    assert len(expected) == 3 * 4 * len(METRICS)
    assert all(e["bots"] and e["unexposed"] for e in excluded.values())
    assert excluded[3]["in_two_arms"] > 0
    assert_equal(as_dict(result.readings), expected)
    assert dict(result.excluded_users) == excluded
    assert result.excluded_rounds == {}
    assert result.omitted == {}
    assert set(zip(result.readings.round, result.readings.revision)) == {(3, 2), (4, 1), (5, 0)}


def test_parquet_files_are_read_by_duckdb_as_one_a_glob_or_a_list(tmp_path):
    exposures, events, covariates = log(1)
    expected, _ = oracle(METRICS, exposures, events, covariates, as_of=6)
    frame = events_of(events, arrived=True)
    exposures_of(exposures).to_parquet(tmp_path / "exposures.parquet")
    covariates_of(covariates).to_parquet(tmp_path / "before.parquet")
    for i in range(3):
        frame[i::3].to_parquet(tmp_path / f"events_{i}.parquet")
    several = [tmp_path / f"events_{i}.parquet" for i in range(3)]
    messages = [
        Aggregator(METRICS).aggregate(
            tmp_path / "exposures.parquet", events, str(tmp_path / "before.parquet"), as_of=6
        )
        for events in (str(tmp_path / "events_*.parquet"), several)
    ]
    for message in messages:
        assert_equal(as_dict(message.readings), expected)
    assert as_dict(messages[0].readings) == as_dict(messages[1].readings)


@pytest.fixture(scope="module")
def spark():
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java, and there is none on the PATH")
    session = (
        pyspark.sql.SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        # A session of seconds: the optimising compiler would take most of its time.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.mark.filterwarnings("default")
def test_pyspark_gives_the_same(spark):
    metrics = ("click", CTR)
    exposures, events, covariates = log()
    frames = exposures_of(exposures), events_of(events, arrived=True), covariates_of(covariates)
    spark_frames = [
        spark.createDataFrame(list(f.itertuples(index=False, name=None)), list(f.columns))
        for f in frames
    ]
    result = Aggregator(metrics, max_events=5).aggregate(*spark_frames, as_of=6)
    expected, excluded = oracle(metrics, exposures, events, covariates, as_of=6, max_events=5)
    assert_equal(as_dict(result.readings), expected)
    assert dict(result.excluded_users) == excluded
    there = Aggregator(metrics, max_events=5).aggregate(*frames, as_of=6)
    assert_equal(as_dict(result.readings), as_dict(there.readings), rel=1e-12)


values = st.one_of(
    st.integers(-4, 40).map(float), st.floats(-1e4, 1e4, allow_nan=False).map(lambda v: round(v, 6))
)
exposure_rows = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 7), st.integers(0, 2)), max_size=40
)
event_rows = st.lists(
    st.tuples(
        st.integers(0, 14),
        st.integers(1, 7),
        st.sampled_from([*SOURCES, "junk", ""]),
        values,
        st.integers(1, 9),
    ),
    max_size=40,
)
covariate_rows = st.lists(
    st.tuples(st.integers(0, 14), st.sampled_from([*SOURCES, "junk"]), values), max_size=25
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(exposure_rows, event_rows, covariate_rows, st.integers(2, 8))
def test_engines_agree_on_any_log(exposures, events, covariates, as_of):
    metrics = (*METRICS[:3], "watch_more")
    frames = exposures_of(exposures), events_of(events, arrived=True), covariates_of(covariates)
    aggregator = Aggregator(metrics, lateness=4, max_events=3)
    results = {
        name: aggregator.aggregate(*engine(*frames), as_of=as_of)
        for name, engine in ENGINES.items()
    }
    expected, excluded = oracle(
        metrics, exposures, events, covariates, as_of=as_of, lateness=4, max_events=3
    )
    first = results["pandas"]
    for result in results.values():
        assert dict(result.excluded_users) == excluded
        assert result.omitted == first.omitted
        assert_equal(as_dict(result.readings), as_dict(first.readings), scale=1e4)
    readings = as_dict(first.readings)
    assert readings.keys() <= expected.keys()
    for round_, _, metric in expected.keys() - readings.keys():  # no event in any arm
        assert not any(key[0] == round_ and key[2] == metric for key in readings)
        means = [v[1] for k, v in expected.items() if (k[0], k[2]) == (round_, metric)]
        assert max(map(abs, means)) < 1e-9
    assert_equal(readings, {key: expected[key] for key in readings}, scale=1e4)


@settings(max_examples=20, deadline=None)
@given(exposure_rows, event_rows, covariate_rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(exposures, events, covariates, random):
    def message():
        frames = exposures_of(exposures), events_of(events), covariates_of(covariates)
        return as_dict(Aggregator(METRICS).aggregate(*ENGINES["polars"](*frames), as_of=6).readings)

    events = [row[:4] for row in events]
    once = message()
    for rows in (exposures, events, covariates):
        random.shuffle(rows)
    assert message() == once


def test_many_threads_of_duckdb_give_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    num = 400_000
    frame = pd.DataFrame({
        "user": rng.integers(0, 50_000, num), "round": 3,
        "metric": rng.choice(SOURCES, num), "value": rng.lognormal(sigma=2.0, size=num),
    })  # fmt: skip
    exposures = pd.DataFrame({"user": np.arange(50_000), "round": 3})
    exposures["candidate"] = exposures["user"] % 3
    messages = []
    for threads in (1, 4, 4):
        connection = duckdb.connect(config={"threads": threads})
        frames = [connection.from_df(f) for f in (exposures, frame)]
        messages.append(Aggregator(["click", CTR_PLAIN]).aggregate(*frames, as_of=4).readings)
    assert as_dict(messages[0]) == as_dict(messages[1]) == as_dict(messages[2])
    total = frame[frame["metric"] == "click"].groupby(frame["user"] % 3)["value"].sum()
    assert messages[0].mean[0] == pytest.approx(total[0] / (exposures["candidate"] == 0).sum())


CTR_PLAIN = Metric.ratio("ctr", "click", "view")


@pytest.mark.parametrize("kind", ["text", "categorical", "unsigned"])
def test_users_may_be_named_in_other_types(kind):
    exposures, events, _ = log(2)
    frames = exposures_of(exposures), events_of([e[:4] for e in events])
    expected = as_dict(Aggregator(["click"]).aggregate(*frames, as_of=6).readings)
    as_type = {"text": pl.String, "categorical": pl.String, "unsigned": pl.UInt64}[kind]
    other = [pl.from_pandas(f).with_columns(pl.col("user").cast(as_type)) for f in frames]
    if kind == "categorical":
        other[1] = other[1].with_columns(pl.col("metric").cast(pl.Categorical))
        other = [f.with_columns(pl.col("user").cast(pl.Categorical)) for f in other]
    if kind == "unsigned":  # beside a signed one
        other[0] = other[0].with_columns(pl.col("user").cast(pl.Int32))
    assert as_dict(Aggregator(["click"]).aggregate(*other, as_of=6).readings) == expected


# --- numerics --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
def test_variances_survive_offsets_of_a_million_spreads(engine, offset):
    rng = np.random.default_rng(3)
    num = 600
    noise, arm = rng.standard_normal(num), np.arange(num) % 3
    # Arms apart by many spreads too: one shift for all of them would not do.
    value = offset * (1 + 0.01 * arm) + noise + 5.0
    exposures = exposures_of([(u, 0, int(a)) for u, a in enumerate(arm)])
    events = events_of([(u, 0, "m", float(v)) for u, v in enumerate(value)])
    frames = ENGINES[engine](exposures, events)
    readings = as_dict(Aggregator(["m"]).aggregate(*frames, as_of=1).readings)
    for a in range(3):
        exact = [math.fsum(value[arm == a]) / 200]
        exact += [math.fsum((value[arm == a] - exact[0]) ** 2) / 199]
        assert readings[0, a, "m"][1] == pytest.approx(exact[0], rel=1e-14)
        assert readings[0, a, "m"][2] == pytest.approx(exact[1], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 3e-150, 1e140])
def test_a_metrics_unit_only_rescales(scale):
    exposures, events, covariates = log(4)
    results = []
    for factor in (1.0, scale):
        frames = (
            exposures_of(exposures),
            events_of([(u, r, m, v * factor) for u, r, m, v, _ in events]),
            covariates_of([(u, m, v * factor) for u, m, v in covariates]),
        )
        aggregated = Aggregator(["click", METRICS[2], CTR]).aggregate(*frames, as_of=6)
        results.append(as_dict(aggregated.readings))
    for key, (count, mean, var) in results[0].items():
        factor = 1.0 if key[2] == "ctr" else scale
        assert results[1][key][0] == count
        assert results[1][key][1] == pytest.approx(mean * factor, rel=1e-9)
        assert results[1][key][2] == pytest.approx(var * factor**2, rel=1e-9)


# --- late rows and revisions -----------------------------------------------------------------


def test_a_round_is_revised_while_it_is_in_the_window_and_never_after():
    exposures = exposures_of([(u, r, u % 2) for r in range(12) for u in range(40)])
    events = [(u, r, "click", 1.0 + u, r + u // 2 % 4) for r in range(12) for u in range(40)]
    frames = exposures, events_of(events, arrived=True)
    aggregator = Aggregator(["click"], lateness=5)
    seen = {}
    for as_of in range(12):
        result = aggregator.aggregate(*frames, as_of=as_of).readings
        rows = [] if result is None else list(zip(result.round.tolist(), result.revision.tolist()))
        assert set(rows) == {(r, as_of - r - 1) for r in range(max(0, as_of - 4), as_of)}
        if result is not None:
            expected, _ = oracle(["click"], [tuple(r) for r in exposures.to_numpy().tolist()],
                                 events, as_of=as_of, lateness=5)  # fmt: skip
            assert_equal(as_dict(result), expected)
            for key, row in as_dict(result).items():
                seen.setdefault(key, []).append(row[1])
    means = seen[3, 1, "click"]
    assert len(means) == 4
    assert means[0] < means[1] < means[2] < means[3]


def test_the_same_as_of_twice_is_one_message_to_a_tuner_and_a_later_one_revises():
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    problem = hz.Problem(space=space, base={"w": 0.5}, metrics=["click"], objective="click")
    tuner = hz.Tuner(problem, seed=0)
    plan = tuner.ask()
    rng = np.random.default_rng(0)
    users = [(u, plan.round, int(rng.choice(plan.candidate_ids))) for u in range(4000)]
    events = [(u, plan.round, "click", float(rng.exponential()), u % 3) for u in range(4000)]
    frames = exposures_of(users), events_of(events, arrived=True)
    aggregator = Aggregator(["click"])
    tuner.tell(aggregator.aggregate(*frames, as_of=plan.round + 1).readings)
    first = tuner.state_dict()
    shuffled = [frame.sample(frac=1.0, random_state=1) for frame in frames]
    tuner.tell(aggregator.aggregate(*shuffled, as_of=plan.round + 1).readings)
    assert str(tuner.state_dict()) == str(first)
    tuner.tell(aggregator.aggregate(*frames, as_of=plan.round + 3).readings)
    assert str(tuner.state_dict()) != str(first)


def test_only_the_rounds_asked_for():
    exposures, events, covariates = log(5)
    frames = exposures_of(exposures), events_of(events, arrived=True), covariates_of(covariates)
    whole = as_dict(Aggregator(METRICS).aggregate(*frames, as_of=6).readings)
    part = as_dict(Aggregator(METRICS).aggregate(*frames, as_of=6, rounds=[5, 3]).readings)
    assert_equal(part, {key: row for key, row in whole.items() if key[0] != 4})
    assert Aggregator(METRICS).aggregate(*frames, as_of=6, rounds=[]).readings is None
    with pytest.raises(hz.ConfigError, match=r"rounds \[0, 6\] are not in the window"):
        Aggregator(METRICS).aggregate(*frames, as_of=6, rounds=[0, 5, 6])


# --- statistics ------------------------------------------------------------------------------


def simulate(rng, num, *, arms=2, noise=1.0, lift=0.1):
    """Users with a taste that shows before and during the experiment: expected means 2 and 2.2."""
    taste = rng.gamma(4.0, 0.5, num)
    arm = rng.integers(0, arms, num)
    before = taste + noise * rng.standard_normal(num) * 0.5
    value = taste * (1 + lift * arm) + noise * rng.standard_normal(num) * 0.5
    return arm, before, value


def test_cuped_reduces_the_variance_and_stays_unbiased():
    rng = np.random.default_rng(6)
    runs, num = 400, 400  # every round is an experiment on users of its own
    arm, before, value = simulate(rng, runs * num)
    user, round_ = np.arange(runs * num), np.repeat(np.arange(runs), num)
    exposures = pd.DataFrame({"user": user, "round": round_, "candidate": arm})
    events = pd.DataFrame({"user": user, "round": round_, "metric": "m", "value": value})
    covariates = pd.DataFrame({"user": user, "metric": "m", "value": before})
    covariates = covariates[rng.random(runs * num) < 0.8]
    frames = ENGINES["polars"](exposures, events, covariates)
    effects, variances = {}, {}
    for covariate in (False, True):
        aggregator = Aggregator([Metric("m", covariate=covariate)], lateness=runs + 1)
        readings = aggregator.aggregate(*frames, as_of=runs).readings
        mean, var = readings.mean.reshape(runs, 2), readings.var.reshape(runs, 2)
        effects[covariate] = mean[:, 1] - mean[:, 0]
        variances[covariate] = (var / readings.count.reshape(runs, 2)).sum(axis=1)
    assert effects[True].var() < 0.65 * effects[False].var()
    for covariate, effect in effects.items():
        assert abs(effect.mean() - 0.2) < 4 * effect.std() / math.sqrt(runs)
        # The variance that is said is the one that is seen: that of 400 runs scatters by
        # sqrt(2 / 399) = 7 %, the coverage by sqrt(0.05 * 0.95 / 400) = 1.1 points.
        rel = 4 * math.sqrt(2 / (runs - 1))
        assert variances[covariate].mean() == pytest.approx(effect.var(ddof=1), rel=rel)
        covered = (np.abs(effect - 0.2) < 1.96 * np.sqrt(variances[covariate])).mean()
        assert abs(covered - 0.95) < 4 * math.sqrt(0.05 * 0.95 / runs)


def ratio_round(rng, runs, num):
    """Rounds 0..runs-1, each an independent experiment: views vary with taste, so do clicks."""
    round_ = np.repeat(np.arange(runs), num)
    user = np.tile(np.arange(num), runs)
    arm = rng.integers(0, 2, runs * num)
    taste = rng.gamma(2.0, 0.5, runs * num)
    views = rng.poisson(10 * taste) + 0.0
    clicks = rng.binomial(views.astype(int), np.clip(0.2 * taste + 0.02 * arm, 0, 1)) + 0.0
    exposures = pd.DataFrame({"user": user, "round": round_, "candidate": arm})
    events = pd.DataFrame({
        "user": np.tile(user, 2), "round": np.tile(round_, 2),
        "metric": ["click"] * (runs * num) + ["view"] * (runs * num),
        "value": np.concatenate([clicks, views]),
    })  # fmt: skip
    return exposures, events


def test_a_ratios_variance_is_that_of_the_ratio_of_sums():
    rng = np.random.default_rng(7)
    runs, num = 600, 300
    frames = ENGINES["polars"](*ratio_round(rng, runs, num))
    aggregator = Aggregator([CTR_PLAIN, "click"], lateness=runs + 1)
    readings = aggregator.aggregate(*frames, as_of=runs).readings
    at = (readings.metric == "ctr") & (readings.candidate == 0)
    ratio, variance = readings.mean[at], readings.var[at] / readings.count[at]
    # E[clicks] / E[views] with taste ~ Gamma(2, 0.5): E[10 t * min(0.2 t, 1)] / E[10 t].
    taste = np.random.default_rng(8).gamma(2.0, 0.5, 4_000_000)
    true = (taste * np.minimum(0.2 * taste, 1)).mean() / taste.mean()
    assert abs(ratio.mean() - true) < 4 * ratio.std() / math.sqrt(runs) + 2e-4
    assert variance.mean() == pytest.approx(ratio.var(ddof=1), rel=4 * math.sqrt(2 / (runs - 1)))
    covered = (np.abs(ratio - true) < 1.96 * np.sqrt(variance)).mean()
    assert abs(covered - 0.95) < 4 * math.sqrt(0.05 * 0.95 / runs) + 0.01
    # A naive variance, views taken as independent trials, would be far too small here.
    assert variance.mean() > 1.3 * (true * (1 - true) / (10.0 * readings.count[at])).mean()


def test_the_mismatch_test_alarms_at_its_rate_and_finds_lost_users():
    rng = np.random.default_rng(9)
    runs, alpha = 4000, 0.01
    shares = {0: 0.3, 1: 0.3, 2: 0.2, 3: 0.1999, 4: 0.0001}
    for num in (300, 20_000):
        counts = rng.multinomial(num, list(shares.values()), size=runs)
        alarms = sum(
            mismatch(dict(enumerate(row.tolist())), shares, alpha)[1] is not None for row in counts
        )
        assert abs(alarms - runs * alpha) < 4 * math.sqrt(runs * alpha)
    # 5 % of one arm's users lost, 60,000 users: noncentrality 60,000 (0.3 * 0.05)^2 0.7 / 0.3 = 31.
    lost = [0.3 * 0.95, 0.3, 0.2, 0.1999, 0.0001]
    counts = rng.multinomial(60_000, np.array(lost) / sum(lost), size=300)
    mismatches = [mismatch(dict(enumerate(row.tolist())), shares, 0.0005) for row in counts]
    assert np.mean([reason is not None for _, reason in mismatches]) > 0.6
    lost[0] = 0.3 * 0.9
    row = rng.multinomial(60_000, np.array(lost) / sum(lost)).tolist()
    p, reason = mismatch(dict(enumerate(row)), shares, 0.0005)
    assert p < 1e-20
    assert "worst is arm 0: 18,000.0 users expected" in reason


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=2, max_size=6))
def test_the_mismatch_p_value_is_scipys(counts):
    stats = pytest.importorskip("scipy.stats", reason="the oracle of the p-value")
    num = sum(counts)
    shares = {i: 1 / len(counts) for i in range(len(counts))}
    p, _ = mismatch(dict(enumerate(counts)), shares, 0.05)
    if num / len(counts) >= 5:
        assert p == pytest.approx(stats.chisquare(counts).pvalue, rel=1e-9, abs=1e-300)
    assert 0 <= p <= 1


def test_a_round_with_a_mismatch_is_excluded_with_its_reason():
    exposures = [(u, 1, u % 2) for u in range(3000)] + [(u, 2, int(u % 3 > 0)) for u in range(3000)]
    exposures += [(u, 3, u % 2) for u in range(3000)] + [(u, 4, u % 3) for u in range(300)]
    events = [(u, r, "m", 1.0 + u) for r in (1, 2, 3, 4) for u in range(3000)]
    frames = exposures_of(exposures), events_of(events)
    half = {0: 0.5, 1: 0.5}
    result = Aggregator(["m"]).aggregate(*frames, as_of=5, planned={1: half, 2: half, 4: half})
    assert set(result.readings.round.tolist()) == {1}
    assert set(result.excluded_rounds) == {2, 3, 4}
    assert "worst is arm 0: 1,500.0 users expected, 1,000 counted" in result.excluded_rounds[2]
    assert "no plan names this round" in result.excluded_rounds[3]
    assert "no share: [2]" in result.excluded_rounds[4]
    untested = Aggregator(["m"]).aggregate(*frames, as_of=5)
    assert set(untested.readings.round.tolist()) == {1, 2, 3, 4}


# --- what is refused, and what is left out ---------------------------------------------------

GOOD = exposures_of([(u, 1, u % 2) for u in range(20)])
GOOD_EVENTS = events_of([(u, 1, "m", 1.0 + u, 1) for u in range(20)], arrived=True)


def broken(frame, **columns):
    return frame.assign(**columns)


BAD = {
    "a column is missing": (GOOD.drop(columns="round"), GOOD_EVENTS, r"exposures need.*'round'"),
    "a round is text": (broken(GOOD, round="1"), GOOD_EVENTS, "'round' must hold integers"),
    "a value is text": (GOOD, broken(GOOD_EVENTS, value="x"), "'value' must hold numbers"),
    "a metric is a number": (GOOD, broken(GOOD_EVENTS, metric=3), "'metric' must hold text"),
    "a user is a fraction": (broken(GOOD, user=1.5), GOOD_EVENTS, "'user' must hold integers or"),
    "users in two types": (
        broken(GOOD, user=GOOD["user"].astype("str")), GOOD_EVENTS, "name users in one type",
    ),
    "no frame at all": ([1, 2], GOOD_EVENTS, "exposures must be a frame of pandas"),
    "two engines": (pl.from_pandas(GOOD), GOOD_EVENTS, "must come from one engine"),
    "a path and a frame": ("nowhere.parquet", GOOD_EVENTS, "cannot be read as Parquet"),
    "no files": ([], [], "the list of Parquet files is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_frames_that_cannot_be_counted_are_refused(case):
    exposures, events, message = BAD[case]
    with pytest.raises(hz.ReadingsError, match=message):
        Aggregator(["m"]).aggregate(exposures, events, as_of=2)


ALL_FLAWED = {
    "a round is a fraction": (
        broken(GOOD, round=1.5), GOOD_EVENTS, "exposures with no valid round",
    ),
    "a negative round": (broken(GOOD, round=-1), GOOD_EVENTS, "exposures with no valid round"),
    "a negative arm": (
        broken(GOOD, candidate=-2), GOOD_EVENTS, "exposures with no valid candidate",
    ),
    "a NaN": (GOOD, broken(GOOD_EVENTS, value=math.nan), "users with a value of 'm' that is"),
    "an infinity": (GOOD, broken(GOOD_EVENTS, value=-math.inf), "users with a value of 'm' that"),
}  # fmt: skip


@pytest.mark.parametrize("case", ALL_FLAWED)
def test_a_table_of_rows_that_cannot_be_counted_is_no_readings_and_is_counted(case):
    exposures, events, reason = ALL_FLAWED[case]
    result = Aggregator(["m"]).aggregate(exposures, events, as_of=2)
    assert result.readings is None
    ((fault, number),) = result.faults.items()
    assert fault.startswith(reason)
    assert number == 20


@pytest.mark.parametrize("column", ["user", "round", "metric", "value", "arrived"])
@pytest.mark.parametrize("engine", ["polars", "polars lazy", "duckdb"])
def test_a_null_in_any_column_leaves_out_its_row_or_its_user(column, engine):
    events = pl.from_pandas(GOOD_EVENTS)
    events = events.with_columns(
        pl.when(pl.col("user") == 7).then(None).otherwise(pl.col(column)).alias(column)
    )
    frames = [pl.from_pandas(GOOD), events]
    if engine == "polars lazy":
        frames = [f.lazy() for f in frames]
    if engine == "duckdb":
        connection = duckdb.connect()
        frames = [connection.from_arrow(f.to_arrow()) for f in frames]
    result = Aggregator(["m"]).aggregate(*frames, as_of=2)
    assert sum(result.faults.values()) == (column != "arrived")
    odd = [1.0 + u for u in range(1, 20, 2)]
    values = {
        "arrived": odd,  # a row without an arrival has arrived
        "value": [v for v in odd if v != 8.0],  # the user is left out
    }.get(column, [0.0 if v == 8.0 else v for v in odd])  # the row is
    found = as_dict(result.readings)
    assert found[1, 0, "m"][:2] == (10, np.mean([1.0 + u for u in range(0, 20, 2)]))
    assert found[1, 1, "m"] == pytest.approx((len(values), np.mean(values), np.var(values, ddof=1)))


def test_values_whose_squares_overflow_are_omitted_with_the_reason():
    events = broken(GOOD_EVENTS, value=GOOD_EVENTS["value"] * 1e300)
    result = Aggregator(["m"]).aggregate(GOOD, events, as_of=2)
    assert result.readings is None
    assert result.omitted == {1: ("metric 'm': values too large to square in arms [0, 1]",)}


def test_relations_of_two_connections_are_one_clear_error():
    frames = [on_duckdb(GOOD)[0], on_duckdb(GOOD_EVENTS)[0]]
    with pytest.raises(hz.ReadingsError, match=r"the engine failed|cannot be read"):
        Aggregator(["m"]).aggregate(*frames, as_of=2)


def test_a_table_of_an_engine_that_is_not_supported_is_refused():
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(GOOD)
    with pytest.raises(hz.ReadingsError, match="must be a frame of pandas, Polars, DuckDB"):
        Aggregator(["m"]).aggregate(table, table, as_of=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Aggregator([]),
        lambda: Aggregator("m"),
        lambda: Aggregator(["m", Metric("m")]),
        lambda: Aggregator([3]),
        lambda: Aggregator(["m"], lateness=1),
        lambda: Aggregator(["m"], lateness=True),
        lambda: Aggregator(["m"], max_events=0),
        lambda: Aggregator(["m"], srm_alpha=1.0),
        lambda: Aggregator(["m"], srm_alpha="small"),
        lambda: Aggregator(["m"], srm_alpha=math.nan),
        lambda: Metric(""),
        lambda: Metric("m", winsorise=0.5),
        lambda: Metric("m", winsorise=math.nan),
        lambda: Metric("m", winsorise=True),
        lambda: Metric("m", covariate="yes"),
        lambda: Metric("m", numerator="a"),
        lambda: Metric.ratio("m", "a", " "),
        lambda: Aggregator(["m"]).aggregate(GOOD, GOOD_EVENTS, as_of=-1),
        lambda: Aggregator(["m"]).aggregate(GOOD, GOOD_EVENTS, as_of=2.0),
        lambda: Aggregator(["m"]).aggregate(GOOD, GOOD_EVENTS, as_of=2, rounds="1"),
        lambda: Aggregator([Metric("m", covariate=True)]).aggregate(GOOD, GOOD_EVENTS, as_of=2),
        *(
            lambda p=p: Aggregator(["m"]).aggregate(GOOD, GOOD_EVENTS, as_of=2, planned=p)
            for p in (
                3, {1: {}}, {1: {0: 0.5}}, {1: {0: math.nan, 1: 1.0}}, {1: {"0": 1.0}},
                {1: {0: -0.5, 1: 1.5}}, {-1: {0: 1.0}}, {1: {0: None}},
            )
        ),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_are_refused(make):
    with pytest.raises(hz.ConfigError):
        make()


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_frames_are_no_readings(engine):
    nothing, no_events = exposures_of([]), events_of([])
    aggregator = Aggregator(METRICS[:2])
    for exposures, events in ((nothing, no_events), (GOOD, no_events), (nothing, GOOD_EVENTS)):
        result = aggregator.aggregate(*ENGINES[engine](exposures, events), as_of=2)
        assert result.readings is None
    assert result.excluded_users == {}  # the metric of these events was not asked for
    result = aggregator.aggregate(*ENGINES[engine](GOOD, no_events), as_of=2)
    assert "no event in any arm" in result.omitted[1][0]
    result = Aggregator(["m"]).aggregate(*ENGINES[engine](nothing, GOOD_EVENTS), as_of=2)
    assert result.excluded_users == {1: not_counted(unexposed=20)}


def test_what_cannot_be_computed_is_omitted_and_named():
    exposures = exposures_of([(u, 1, min(u % 4, 2)) for u in range(40)] + [(99, 1, 3)])
    events = [(u, 1, "view", 1.0 + u) for u in range(40) if u % 4 != 1]
    events += [(u, 1, "click", 1.0) for u in range(40)] + [(99, 1, "view", 2.0)]
    metrics = ["click", CTR_PLAIN, "never"]
    result = Aggregator(metrics).aggregate(exposures, events_of(events), as_of=2)
    assert set(as_dict(result.readings)) == {
        (1, 0, "click"), (1, 1, "click"), (1, 2, "click"), (1, 0, "ctr"), (1, 2, "ctr"),
    }  # fmt: skip
    assert result.omitted[1] == (
        "arms [3]: one user, a variance needs two",
        "metric 'ctr': no denominator in arms [1]",
        "metric 'never': no event in any arm",
    )


def test_parquet_without_duckdb_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[duckdb\]"):
        Aggregator(["m"]).aggregate("a.parquet", "b.parquet", as_of=2)
