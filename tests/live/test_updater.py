"""Updaters: plans as flagd flag definitions and as tables, served by real clients."""

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import threading
import time
from bisect import bisect_right
from contextlib import nullcontext
from fractions import Fraction
from itertools import pairwise, product
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.extras import hide

import hyperzero_torch as hz
from hyperzero_torch.live import (
    Assignment,
    FlagdUpdater,
    TableUpdater,
    ThetaClient,
    assign,
    bucket,
    read_table,
)
from hyperzero_torch.live.serve import flagd, updater
from hyperzero_torch.runtime import files
from hyperzero_torch.testing.platforms import (
    UpdaterContract,
    assert_independent,
    assert_shares,
    example_plan,
)
from hyperzero_torch.testing.values import HARD_TEXTS, bits

pytest.importorskip("openfeature.contrib.provider.flagd")
from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.contrib.tools.flagd.core.targeting import custom_ops
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

BASE = {"w_click": 0.2, "depth": 3, "mode": "a", "fresh": False}
SHARES = (0.3, 0.5, 0.2)
OTHERS = {
    "$schema": "https://flagd.dev/schema/v0/flags.json",
    "flags": {
        "zürich": {"state": "DISABLED", "variants": {"on": True}, "defaultVariant": "on"},
        "banner": {
            "state": "ENABLED",
            "variants": {"old": {"x": [1, 1.0, -0.0, 1e-300]}, "new": {"x": "</script>"}},
            "defaultVariant": "old",
            "targeting": {"if": [{"$ref": "staff"}, "new", "old"]},
            "metadata": {"owner": "shop"},
        },
    },
    "$evaluators": {"staff": {"ends_with": [{"var": "targetingKey"}, "@staff"]}},
    "metadata": {"version": 7},
}


def no_space():
    return patch("os.replace", side_effect=OSError(errno.ENOSPC, "No space left on device"))


def wait_for(condition, seconds=10.0):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def client(tmp_path):
    """A client that looks at ``flags.json`` twenty times a second."""
    with ThetaClient.open(tmp_path / "flags.json", BASE, poll_seconds=0.05) as opened:
        yield opened


class TestFlagdKeepsTheLaws(UpdaterContract):
    num_users = 5_000  # a client takes a while for each; the bounds are those of so many

    def make_updater(self, tmp_path):
        return FlagdUpdater(tmp_path / "flags.json")

    def served(self, updater, users, base):
        with ThetaClient.open(updater.path, base, poll_seconds=0.05) as client:
            return [client.assign(user) for user in users]

    def broken(self, updater):
        return no_space()


class TestTableKeepsTheLaws(UpdaterContract):
    def make_updater(self, tmp_path):
        return TableUpdater(tmp_path / "table.json")

    def served(self, updater, users, base):
        if not updater.path.exists():
            return [Assignment(0, None, dict(base), "no table") for _ in users]
        table = read_table(updater.path)
        return [assign(table, user) for user in users]

    def broken(self, updater):
        return no_space()


UPDATERS = [
    pytest.param(lambda folder: FlagdUpdater(folder / "plan.json"), id="flagd"),
    pytest.param(lambda folder: TableUpdater(folder / "plan.json"), id="table"),
]


# Weights


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any),
    st.integers(1, 10),
)
def test_no_other_weights_have_a_smaller_largest_error(parts, total):
    exact = [Fraction(part, sum(parts)) for part in parts]

    def largest(weights):
        return max(abs(Fraction(w, total) - share) for w, share in zip(weights, exact))

    weights = flagd.weights(exact, total)
    assert sum(weights) == total
    assert all(w == 0 for w, share in zip(weights, exact) if share == 0)
    others = (w for w in product(range(total + 1), repeat=len(parts)) if sum(w) == total)
    assert largest(weights) == min(map(largest, others))
    assert largest(weights) <= Fraction(len(parts) - 1, len(parts) * total)


def shares_strategy():
    """1 to 60 shares, many of them tiny or none, as a tuner would sum them."""
    part = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 1e-12, 1e-9, 1e-6, 1.0]))
    parts = st.lists(part, min_size=1, max_size=60).filter(lambda p: sum(p) > 1e-6)
    return parts.map(lambda p: tuple(x / sum(p) for x in p))


def hash_starts(weights):
    """The first of the 2**32 hashes that flagd's rule gives to each arm, and the end."""
    total, ends = sum(weights), [0]
    for weight in weights:
        ends.append(ends[-1] + weight)
    return [-((-end << 32) // total) for end in ends]


@given(shares_strategy())
def test_shares_over_all_hashes_keep_the_stated_bound(shares):
    weights = flagd.weights(shares)
    assert sum(weights) == flagd.MAX_TOTAL_WEIGHT == custom_ops.MAX_WEIGHT_SUM
    starts = hash_starts(weights)
    bound = Fraction(1, flagd.MAX_TOTAL_WEIGHT) + Fraction(1, 2**32)
    assert bound < 7e-10
    total = sum(map(Fraction, shares))
    for share, start, end in zip(shares, starts, starts[1:]):
        assert abs(Fraction(end - start, 2**32) - Fraction(share) / total) < bound


@given(shares_strategy())
@settings(max_examples=30)
def test_the_provider_cuts_the_hashes_where_the_bound_says(shares):
    """The provider's own operator at the first and the last hash of every arm."""
    weights = flagd.weights(shares)
    starts = hash_starts(weights)
    arms = [[f"candidate-{i}", weight] for i, weight in enumerate(weights)]
    for i, (start, end) in enumerate(pairwise(starts)):
        for value in {start, end - 1} if end > start else ():
            with patch.object(custom_ops.mmh3, "hash", lambda *_, value=value, **__: value):
                assert custom_ops.fractional({}, "any user", *arms) == f"candidate-{i}"


# Any plan


def plans():
    text = st.one_of(st.text(max_size=20), st.sampled_from(HARD_TEXTS))
    number = st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70)
    )

    @st.composite
    def plan(draw):
        shares = draw(shares_strategy())
        names = draw(st.lists(text, min_size=1, max_size=5, unique=True))
        values = st.one_of(number, text, st.booleans())
        several = st.lists(values, min_size=len(names), max_size=len(names))
        parameters = [dict(zip(names, draw(several))) for _ in shares]
        ids = draw(
            st.lists(
                st.integers(1, 10**6),
                min_size=len(shares) - 1,
                max_size=len(shares) - 1,
                unique=True,
            )
        )
        number_of = draw(st.integers(0, 2**53))
        return example_plan(number_of, shares, parameters, [0, *sorted(ids)])

    return plan()


@given(plan=plans(), text=st.text(min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_plan_is_served_as_it_is(tmp_path_factory, plan, text):
    folder = tmp_path_factory.mktemp("plan")
    FlagdUpdater(folder / "flags.json", flag=text).apply(plan)
    written = (folder / "flags.json").read_text("ascii")
    core = FlagdCore()
    core.set_flags(written)
    by_id = dict(zip(plan.candidate_ids, plan.parameters))
    share_of = dict(zip(plan.candidate_ids, plan.shares))
    for i in range(20):
        resolved = core.resolve_object_value(text, {}, EvaluationContext(f"user {i}"))
        assert resolved.reason == "TARGETING_MATCH"
        assert resolved.value["round"] == plan.round
        assert share_of[resolved.value["candidate"]] > 0
        assert bits(resolved.value["parameters"]) == bits(by_id[resolved.value["candidate"]])
    variants = json.loads(written)["flags"][text]["variants"]
    assert len(variants) == len(plan)
    for variant in variants.values():
        assert bits(variant["parameters"]) == bits(by_id[variant["candidate"]])

    _, *served = json.loads(written)["flags"][text]["targeting"]["if"][1]["fractional"]
    weight_of = {variants[name]["candidate"]: weight for name, weight in served}
    assert sum(weight_of.values()) == flagd.MAX_TOTAL_WEIGHT
    total = sum(map(Fraction, plan.shares))
    for candidate, share in share_of.items():
        weight = Fraction(weight_of.get(candidate, 0), flagd.MAX_TOTAL_WEIGHT)
        assert abs(weight - Fraction(share) / total) < Fraction(1, flagd.MAX_TOTAL_WEIGHT)

    TableUpdater(folder / "table.json").apply(plan)
    table = read_table(folder / "table.json")
    assert (folder / "table.json").read_text("ascii")
    assert [arm["candidate"] for arm in table["arms"]] == list(plan.candidate_ids)
    assert [arm["from"] for arm in table["arms"]][1:] == [arm["to"] for arm in table["arms"]][:-1]
    lacking = abs(1 - sum(map(Fraction, plan.shares)))
    for arm, share, parameters in zip(table["arms"], plan.shares, plan.parameters):
        assert bits(arm["parameters"]) == bits(parameters)
        width = Fraction(arm["to"]) - Fraction(arm["from"])
        assert abs(width - Fraction(share)) <= Fraction(1e-15) + lacking
    for i in range(20):
        got = assign(table, f"user {i}")
        assert share_of[got.candidate] > 0
        assert bits(got.parameters) == bits(by_id[got.candidate])


# The flag definition


def test_other_flags_are_kept_and_work(tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(OTHERS, indent=4, ensure_ascii=False), encoding="utf-8")
    writer = FlagdUpdater(path)
    for number in (1, 2):
        writer.apply(example_plan(number, SHARES))
        kept = json.loads(path.read_text())
        assert list(kept["flags"]) == ["zürich", "banner", "value-model"]
        del kept["flags"]["value-model"]
        assert json.dumps(kept) == json.dumps(OTHERS)
    core = FlagdCore()
    core.set_flags(path.read_text())
    staff = core.resolve_object_value("banner", {}, EvaluationContext("eve@staff"))
    assert (staff.variant, staff.value) == ("new", {"x": "</script>"})
    control = json.loads(path.read_text())["flags"]["value-model"]["variants"]["control"]
    writer.withdraw()
    kept = json.loads(path.read_text())
    assert list(kept["flags"]) == ["zürich", "banner", "value-model"]
    assert kept["flags"].pop("value-model") == {
        "state": "ENABLED",
        "variants": {"control": {**control, "round": None}},
        "defaultVariant": "control",
    }
    assert json.dumps(kept) == json.dumps(OTHERS)


@pytest.mark.parametrize("context", [None, EvaluationContext(), EvaluationContext("")])
def test_without_a_targeting_key_every_application_gets_the_default(tmp_path, context):
    """Also one that asks OpenFeature itself: the control, by a reason that is no assignment."""
    FlagdUpdater(tmp_path / "flags.json").apply(example_plan(1, (0.0, 1.0)))
    core = FlagdCore()
    core.set_flags((tmp_path / "flags.json").read_text())
    resolved = core.resolve_object_value("value-model", {}, context)
    assert (resolved.variant, resolved.value["candidate"], resolved.reason) == (
        "control",
        0,
        "DEFAULT",
    )
    named = core.resolve_object_value("value-model", {}, EvaluationContext("0"))
    assert (named.variant, named.reason) == ("candidate-1", "TARGETING_MATCH")


def test_two_flags_in_one_file_assign_users_independently(tmp_path):
    path = tmp_path / "flags.json"
    for flag in ("feed", "shorts"):
        FlagdUpdater(path, flag=flag).apply(example_plan(4, SHARES))
    with (
        ThetaClient.open(path, BASE, flag="feed", poll_seconds=0.05) as feed,
        ThetaClient.open(path, BASE, flag="shorts", poll_seconds=0.05) as shorts,
    ):
        users = [f"user {i}" for i in range(10_000)]
        pairs = [(feed.assign(u).candidate, shorts.assign(u).candidate) for u in users]
    assert len(set(pairs)) == 9
    assert_independent(*zip(*pairs))


BAD_DEFINITIONS = {
    "empty": b"",
    "text": b"flags: {}\n",
    "list": b"[]",
    "other": b'{"name": "app", "version": "1.0"}',
    "list of flags": b'{"flags": []}',
    "a flag that is a text": b'{"flags": {"a": "on"}}',
    "no state": b'{"flags": {"a": {"variants": {"on": true}}}}',
    "no variants": b'{"flags": {"a": {"state": "ENABLED", "variants": {}}}}',
    "list of evaluators": b'{"flags": {}, "$evaluators": []}',
    "list of metadata": b'{"flags": {}, "metadata": []}',
    "half": b'{"flags": {"a": {"state": "ENA',
    "NaN": b'{"flags": {"a": {"state": "ENABLED", "variants": {"on": NaN}}}}',
    "too large": b'{"flags": {"a": {"state": "ENABLED", "variants": {"on": 1e999}}}}',
    "Latin-1": '{"flags": {}, "metadata": {"é": 1}}'.encode("latin-1"),
    "deep": b'{"flags": ' + b"[" * 100_000,
    "digits": b'{"flags": {}, "x": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("content", BAD_DEFINITIONS.values(), ids=BAD_DEFINITIONS)
@pytest.mark.parametrize("make", UPDATERS)
def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path, make, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    for change in (lambda w: w.apply(example_plan(1, SHARES)), lambda w: w.withdraw()):
        with pytest.raises(hz.InputError) as caught:
            change(make(tmp_path))
        assert len(str(caught.value)) < 500
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == 10**18
    assert os.listdir(tmp_path) == ["plan.json"]


def test_neither_takes_the_file_of_the_other(tmp_path):
    path = tmp_path / "plan.json"
    for first, second in ((FlagdUpdater, TableUpdater), (TableUpdater, FlagdUpdater)):
        path.unlink(missing_ok=True)
        first(path).apply(example_plan(1, SHARES))
        before = path.read_bytes()
        with pytest.raises(hz.ConfigError, match="was not changed"):
            second(path).apply(example_plan(1, SHARES))
        assert path.read_bytes() == before


def test_withdrawing_a_flag_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(OTHERS))
    before = path.read_bytes()
    with pytest.raises(hz.ConfigError, match="no variant 'control'"):
        FlagdUpdater(path, flag="banner").withdraw()
    FlagdUpdater(path).withdraw()  # not there: nothing to do
    assert path.read_bytes() == before


def test_a_parameter_is_never_a_reference(tmp_path):
    """flagd puts an evaluator in the place of {"$ref": its name}, wherever that stands."""
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(OTHERS))
    writer = FlagdUpdater(path)

    def plan(value):
        return example_plan(1, (0.0, 1.0), [{"$ref": "none"}, {"$ref": value}])

    before = path.read_bytes()
    with pytest.raises(hz.InputError, match="rename the parameter"):
        writer.apply(plan("staff"))
    assert path.read_bytes() == before
    for value in ("staffer", '"staff"', 1, "other"):
        writer.apply(plan(value))
        with ThetaClient.open(path, {"$ref": "none"}, poll_seconds=0.05) as client:
            assert client.assign("u").parameters == {"$ref": value}


@pytest.mark.parametrize("text", [*HARD_TEXTS, *(f'x{t}": ' for t in HARD_TEXTS[:5])])
def test_names_are_data_in_a_definition_and_in_its_key(tmp_path, text):
    """As flag, parameter and value, beside evaluators; nothing in the file ends a script."""
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(OTHERS))
    base = {text: text, "b": 1}
    FlagdUpdater(path, flag=text).apply(example_plan(1, (0.0, 1.0), [base, {**base, "b": 2}]))
    with ThetaClient.open(path, base, flag=text, poll_seconds=0.05) as client:
        got = client.assign(text)
    assert (got.candidate, got.round, got.parameters) == (1, 1, {text: text, "b": 2})
    written = path.read_text("ascii")
    assert not set("<>&") & set(written)


@pytest.mark.parametrize(
    ("path", "match"),
    [("flags.yaml", "JSON"), ("flags.YML", "JSON"), ("", "not a path"), ("a\0b", "not a path")],
)
def test_paths_that_cannot_be(tmp_path, path, match):
    with pytest.raises(hz.ConfigError, match=match):
        FlagdUpdater(tmp_path / path if path.startswith("flags") else path)


def test_keys_and_salts_that_cannot_be(tmp_path):
    for key in ("", None, 3):
        with pytest.raises(hz.ConfigError):
            FlagdUpdater(tmp_path / "flags.json", flag=key)
        with pytest.raises(hz.ConfigError):
            TableUpdater(tmp_path / "table.json", salt=key)
    with pytest.raises(hz.ConfigError, match="NUL"):
        TableUpdater(tmp_path / "table.json", salt="a\0b")


# Writing


@pytest.mark.parametrize("make", UPDATERS)
@pytest.mark.parametrize("where", ["os.replace", "os.fsync"])
@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), SystemExit(9)])
def test_a_crash_before_the_rename_leaves_the_old_file_whole(tmp_path, make, where, error):
    writer = make(tmp_path)
    writer.apply(example_plan(1, SHARES))
    before = writer.path.read_bytes()
    with patch(where, side_effect=error), pytest.raises((hz.ConfigError, SystemExit)):
        writer.apply(example_plan(2, SHARES))
    assert writer.path.read_bytes() == before
    if isinstance(error, OSError):
        assert os.listdir(tmp_path) == ["plan.json"]
    writer.apply(example_plan(2, SHARES))
    assert b'"round": 2' in writer.path.read_bytes()


# From Python 3.12 on it warns of threads; this child runs none of their code.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("make", UPDATERS)
def test_killed_in_the_middle_of_writing_the_old_file_is_whole(tmp_path, make):
    """A process that dies by SIGKILL at the rename; the next one writes as if nothing had been."""
    writer = make(tmp_path)
    writer.apply(example_plan(1, SHARES))
    before = writer.path.read_bytes()
    child = os.fork()  # a process of its own that need not import anything
    if not child:
        try:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            writer.apply(example_plan(2, (0.5, 0.5)))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert writer.path.read_bytes() == before
    writer.apply(example_plan(2, SHARES))
    assert b'"round": 2' in writer.path.read_bytes()


@pytest.mark.parametrize("make", UPDATERS)
def test_folders_that_cannot_be_written_to(tmp_path, make):
    with pytest.raises(hz.ConfigError, match="folder"):
        make(tmp_path / "none").apply(example_plan(1, SHARES))
    folder = tmp_path / "kept"
    folder.mkdir()
    writer = make(folder)
    writer.apply(example_plan(1, SHARES))
    before = writer.path.read_bytes()
    folder.chmod(0o555)
    denied = PermissionError(errno.EACCES, "Permission denied")
    # Root may write anywhere, so it is told otherwise.
    patched = patch("hyperzero_torch.runtime.files.os.open", side_effect=denied)
    try:
        with (
            patched if os.geteuid() == 0 else nullcontext(),
            pytest.raises(hz.ConfigError, match="cannot be written"),
        ):
            writer.apply(example_plan(2, SHARES))
    finally:
        folder.chmod(0o755)
    assert writer.path.read_bytes() == before
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        make(tmp_path).apply(example_plan(1, SHARES))


@pytest.mark.parametrize("make", UPDATERS)
def test_permissions_are_the_files_own(tmp_path, make):
    writer = make(tmp_path)
    before = os.umask(0o027)
    try:
        writer.apply(example_plan(1, SHARES))
        assert stat.S_IMODE(writer.path.stat().st_mode) == 0o640
        for mode in (0o600, 0o664):
            writer.path.chmod(mode)
            writer.apply(example_plan(mode, SHARES))
            assert stat.S_IMODE(writer.path.stat().st_mode) == mode
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@pytest.mark.parametrize("make", UPDATERS)
def test_the_same_plan_again_does_not_touch_the_file(tmp_path, make):
    writer = make(tmp_path)
    writer.apply(example_plan(1, SHARES))
    os.utime(writer.path, ns=(10**18, 10**18))
    inode = writer.path.stat().st_ino
    writer.apply(example_plan(1, SHARES))
    make(tmp_path).apply(example_plan(1, SHARES))
    assert (writer.path.stat().st_mtime_ns, writer.path.stat().st_ino) == (10**18, inode)
    writer.apply(example_plan(1, (0.3, 0.7)))
    assert writer.path.stat().st_mtime_ns > 10**18


@pytest.mark.parametrize("make", UPDATERS)
def test_a_link_is_followed_and_stays(tmp_path, make):
    (tmp_path / "real").mkdir()
    (tmp_path / "plan.json").symlink_to(tmp_path / "real" / "plan.json")
    make(tmp_path).apply(example_plan(1, SHARES))
    make(tmp_path).apply(example_plan(2, SHARES))
    assert (tmp_path / "plan.json").is_symlink()
    assert b'"round": 2' in (tmp_path / "real" / "plan.json").read_bytes()


@pytest.mark.parametrize("make", UPDATERS)
def test_readers_never_see_a_broken_file(tmp_path, make):
    writer = make(tmp_path)
    writer.apply(example_plan(0, (0.5, 0.5)))
    seen, wrong, done = [], [], threading.Event()

    def read():
        last = 0
        while not done.is_set():
            try:
                document = json.loads(writer.path.read_text())
                flag = document.get("flags", {}).get("value-model")
                arms = list(flag["variants"].values()) if flag else document["arms"]
                number = arms[0]["round"] if flag else document["round"]
                assert len(arms) == 1 + number % 50 + 1
                assert number >= last
                last = number
                seen.append(number)
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 201):
            arms = 1 + number % 50
            writer.apply(example_plan(number, (0.5, *(0.5 / arms,) * arms)))
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not wrong, wrong[:3]
    assert len(set(seen)) > 20
    assert os.listdir(tmp_path) == ["plan.json"]


def test_two_writers_of_one_file_lose_nothing(tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(OTHERS))
    wrong = []

    def write(flag):
        try:
            for number in range(50):
                FlagdUpdater(path, flag=flag).apply(example_plan(number, SHARES))
                mine = json.loads(path.read_text())["flags"][flag]
                assert mine["variants"]["control"]["round"] == number
        except Exception as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(f"flag {i}",)) for i in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert not wrong, wrong[:3]
    assert list(json.loads(path.read_text())["flags"])[:2] == list(OTHERS["flags"])


def test_a_lock_that_is_held_is_not_waited_for_in_vain(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.1)
    path = tmp_path / "flags.json"
    with files.locked(path), pytest.raises(hz.ConfigError, match="locked by another"):
        FlagdUpdater(path).apply(example_plan(1, SHARES))
    FlagdUpdater(path).apply(example_plan(1, SHARES))


# The client


def test_the_client_follows_the_file(tmp_path, client):
    """No file, a plan, the next plan, a broken file, no file: never without an answer."""
    path = tmp_path / "flags.json"
    missing = client.assign("u")
    assert (missing.candidate, missing.round, missing.parameters) == (0, None, BASE)
    assert missing.reason == "FLAG_NOT_FOUND" or "NOT_READY" in missing.reason
    writer = FlagdUpdater(path)
    times = []
    for number in (1, 2, 3):
        writer.apply(example_plan(number, SHARES))
        begun = time.monotonic()
        wait_for(lambda number=number: client.assign("u").round == number)
        times.append(time.monotonic() - begun)
    assert max(times) < 3.0
    last = client.assign("u")
    path.write_text("{ half")
    time.sleep(0.3)
    assert client.assign("u") == last
    path.unlink()
    time.sleep(0.3)
    assert client.assign("u") == last
    writer.apply(example_plan(4, SHARES))
    wait_for(lambda: client.assign("u").round == 4)
    writer.withdraw()
    wait_for(lambda: client.assign("u").round is None)


def test_the_usual_polling_sees_the_next_hour_within_seconds(tmp_path):
    writer = FlagdUpdater(tmp_path / "flags.json")
    writer.apply(example_plan(1, SHARES))
    with ThetaClient.open(writer.path, BASE) as client:
        assert client.assign("u").round == 1
        writer.apply(example_plan(2, SHARES))
        wait_for(lambda: client.assign("u").round == 2, seconds=3.0)


def test_the_client_misses_no_change_when_the_clock_steps_back(tmp_path, client):
    writer = FlagdUpdater(tmp_path / "flags.json")
    writer.apply(example_plan(1, SHARES))
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(writer.path, ns=(ahead, ahead))
    wait_for(lambda: client.assign("u").round == 1)
    time.sleep(0.2)  # the file of the future has been read
    for number in (2, 3):
        writer.apply(example_plan(number, SHARES))
        wait_for(lambda number=number: client.assign("u").round == number)


def test_two_changes_within_a_tick_are_both_seen(tmp_path, client):
    writer = FlagdUpdater(tmp_path / "flags.json")
    now = time.time_ns()
    for number in range(1, 6):
        writer.apply(example_plan(number, SHARES))
        first = writer.path.stat().st_mtime_ns
        assert first > now + 10**5
        now = first
    wait_for(lambda: client.assign("u").round == 5)


def test_the_client_gives_base_where_a_variant_does_not_fit(tmp_path):
    path = tmp_path / "flags.json"
    FlagdUpdater(path).apply(example_plan(1, (0.0, 1.0)))
    other = {"w_click": 0.1}
    with ThetaClient.open(path, other, poll_seconds=0.05) as client:
        got = client.assign("u")
        assert (got.candidate, got.round, got.parameters) == (0, None, other)
    hand_made = [True, "text", 3, {}, {"candidate": 1}, {"candidate": 1, "round": 2}, []]
    hand_made += [{"candidate": "1", "round": 2, "parameters": BASE}]
    hand_made += [{"candidate": 1, "round": None, "parameters": BASE}]
    hand_made += [{"candidate": 1, "round": 2, "parameters": [1]}]
    for value in hand_made:
        flag = {"state": "ENABLED", "variants": {"a": value}, "defaultVariant": "a"}
        flag["targeting"] = {"fractional": [["a", 1]]}
        path.write_text(json.dumps({"flags": {"value-model": flag}}))
        with ThetaClient.open(path, BASE, poll_seconds=0.05) as client:
            got = client.assign("u")
            assert (got.candidate, got.round, got.parameters) == (0, None, BASE)
            assert got.reason != "planned"


@pytest.mark.parametrize("user", ["", None, 3.5, ["u"], "\ud800"])
def test_users_who_cannot_be_hashed_take_no_part(tmp_path, client, user):
    FlagdUpdater(tmp_path / "flags.json").apply(example_plan(1, (0.0, 1.0)))
    wait_for(lambda: client.assign("u").round == 1)
    got = client.assign(user)
    assert (got.candidate, got.round, got.parameters) == (0, None, BASE)


def test_what_an_application_does_to_its_parameters_changes_nothing(tmp_path, client):
    FlagdUpdater(tmp_path / "flags.json").apply(example_plan(1, (0.0, 1.0)))
    wait_for(lambda: client.assign("u").round == 1)
    for user in ("u", ""):
        first = dict(client.assign(user).parameters)
        client.assign(user).parameters.clear()
        assert client.assign(user).parameters == first
    TableUpdater(tmp_path / "table.json").apply(example_plan(1, (0.0, 1.0)))
    table = read_table(tmp_path / "table.json")
    first = dict(assign(table, "u").parameters)
    assign(table, "u").parameters.clear()
    assert assign(table, "u").parameters == first != {}


def test_clients_and_the_applications_own_provider_do_not_disturb_each_other(tmp_path):
    own = InMemoryProvider({"dark": InMemoryFlag("on", {"on": True})})
    api.set_provider_and_wait(own)
    try:
        for name, arms in (("a", (0.0, 1.0)), ("b", (1.0, 0.0))):
            FlagdUpdater(tmp_path / f"{name}.json").apply(example_plan(1, arms))
        a = ThetaClient.open(tmp_path / "a.json", BASE, poll_seconds=0.05)
        b = ThetaClient.open(tmp_path / "b.json", BASE, poll_seconds=0.05)
        assert (a.assign("u").candidate, b.assign("u").candidate) == (1, 0)
        assert api.get_client().get_boolean_value("dark", False) is True
        a.close()
        a.close()
        assert (a.assign("u").round, b.assign("u").round) == (None, 1)
        b.close()
        wait_for(lambda: not watching(a, b))
    finally:
        api.clear_providers()


def watching(*_clients):
    return [t for t in threading.enumerate() if t.name == "FlagdFileWatcherWorkerThread"]


def test_a_provider_that_raises_gives_base(tmp_path):
    class Down:
        def get_object_details(self, *_):
            raise TimeoutError("no flagd there")

    got = ThetaClient(Down(), BASE).assign("u")
    assert (got.candidate, got.round, got.parameters) == (0, None, BASE)
    assert got.reason == "TimeoutError: no flagd there"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e-4])
def test_polling_times_that_cannot_be(tmp_path, seconds):
    with pytest.raises(hz.ConfigError, match="poll_seconds"):
        ThetaClient.open(tmp_path / "flags.json", BASE, poll_seconds=seconds)


def test_without_the_extra_only_the_client_is_missing(tmp_path, monkeypatch):
    hide(monkeypatch, "openfeature")
    FlagdUpdater(tmp_path / "flags.json").apply(example_plan(1, (0.5, 0.5)))
    TableUpdater(tmp_path / "table.json").apply(example_plan(1, (0.5, 0.5)))
    for make in (lambda: ThetaClient.open("flags.json", {}), lambda: ThetaClient(0, {})):
        with pytest.raises(hz.MissingExtraError, match=r"pip install 'hyperzero-torch\[flags\]'"):
            make()


# The table


def test_buckets_are_pinned_and_the_same_in_every_process():
    """By hashlib here and by b2sum; a table's readers in other languages rely on it."""
    for user, number, salt in (("u1", 17, "value-model"), ("点击率", 0, "s"), ("", 2**53, "é")):
        message = b"\0".join([salt.encode(), str(number).encode(), user.encode()])
        digest = hashlib.blake2b(message).digest()
        expected = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        assert bucket(user, number, salt) == expected
    assert bucket("\ud800", 1, "s") != bucket("\ud801", 1, "s")  # half characters are names too
    shell = "printf 'value-model\\00017\\000u1' | b2sum"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        first = int(done.stdout[:16], 16)
        assert bucket("u1", 17, "value-model") == (first >> 11) / 2**53
    # Every run of these tests is a process with another seed of Python's own hashes.
    assert bucket("u1", 17, "value-model") == 0.10878450163946585


def test_buckets_are_uniform_and_independent():
    users = [f"user {i}" for i in range(50_000)]
    cells = {}
    for number, salt in ((1, "a"), (2, "a"), (1, "b")):
        buckets = torch.tensor([bucket(u, number, salt) for u in users], dtype=torch.float64)
        assert float(buckets.min()) >= 0.0
        assert float(buckets.max()) < 1.0
        cells[number, salt] = (buckets * 20).long().tolist()
        counts = [cells[number, salt].count(c) for c in range(20)]
        assert_shares(counts, [1 / 20] * 20)
    for other in ((2, "a"), (1, "b")):
        assert_independent(cells[1, "a"], cells[other])


@given(st.text(), st.integers(0, 2**60), st.text(alphabet=st.characters(exclude_characters="\0")))
def test_every_user_has_a_bucket(user, number, salt):
    assert 0.0 <= bucket(user, number, salt) < 1.0


@given(shares_strategy(), st.floats(0.0, 1.0, exclude_max=True))
def test_assign_finds_the_arm_whose_interval_holds_the_bucket(shares, place):
    ends = updater.arm_ends(shares)
    starts = (0.0, *ends)
    arms = [
        {"candidate": i, "from": start, "to": end, "parameters": {}}
        for i, (start, end) in enumerate(zip(starts, ends))
    ]
    with patch.object(updater, "bucket", lambda *_: place):
        got = assign({"round": 1, "salt": "s", "arms": arms}, "u")
    (expected,) = [arm["candidate"] for arm in arms if arm["from"] <= place < arm["to"]]
    assert got.candidate == expected
    assert shares[expected] > 0
    assert bisect_right(ends, place) <= expected


def test_tables_that_cannot_be_are_refused(tmp_path):
    path = tmp_path / "table.json"
    TableUpdater(path).apply(example_plan(1, SHARES))
    good = json.loads(path.read_text())
    changes = [
        {"kind": "other"}, {"version": 2}, {"salt": 3}, {"round": "1"}, {"arms": []},
        {"arms": good["arms"][:2]}, {"arms": good["arms"][1:]}, {"arms": good["arms"][::-1]},
        {"arms": [{**good["arms"][0], "parameters": 3}, *good["arms"][1:]]},
        {"arms": {"candidate": 0}}, {"arms": None},
    ]  # fmt: skip
    for change in changes:
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(hz.ConfigError, match="not an assignment table"):
            read_table(path)
    for key in good:
        path.write_text(json.dumps({k: v for k, v in good.items() if k != key}))
        with pytest.raises(hz.ConfigError, match="not an assignment table"):
            TableUpdater(path).apply(example_plan(2, SHARES))
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        read_table(tmp_path / "none.json")
