"""What cannot be is refused by an error of ours, before anything is spent, written or replaced."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import make, play
from support.transfer_cli import begin, run
from support.transfer_study import source

import hyperzero_torch as hz
from hyperzero_torch.cli.transfer import app as command
from hyperzero_torch.report.html.page import check_place
from hyperzero_torch.transfer.sharing import canonical, clipping, noise, package, secure_sum
from hyperzero_torch.transfer.sharing.budget import Budget
from hyperzero_torch.transfer.sharing.noise import Clip, check_private, private_history
from hyperzero_torch.transfer.space_reduction import Proposal, Reason, Sensitivity

pytest.importorskip("dp_accounting")
pytest.importorskip("opendp")

DAY = timedelta(days=1)
BOUNDS = {"gain": Clip(-1e3, 1e3), "guard": Clip(-1e3, 1e3)}
NAMES = ["n/round 0", "n/round 1", "n/round 2"]


def as_it_is(values, scale):
    return values


@pytest.fixture(scope="module")
def history():
    tuner = make()
    play(tuner, 3)
    return tuner.history


# --- what cannot be --------------------------------------------------------------------------


def resealed(folder, **changes):
    """A package whose maker wrote something else, with a checksum that fits."""
    path = folder / "resealed.json"
    package.export(source("n", num=4), path, DAY, ["feed"])
    document = json.loads(path.read_text()) | changes
    document.pop("sha256")
    path.write_text(canonical.text(canonical.sealed(document)))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scopes": []}, "scopes is empty"),
        ({"scopes": ["feed", "feed"]}, "twice"),
        ({"scopes": ["feed", " "]}, "non-empty"),
        ({"scopes": {"feed": 1}}, "list of names"),
        ({"privacy": [["epsilon", 1.0]]}, "object or null"),
    ],
)
def test_terms_that_no_export_writes_are_refused(tmp_path, capsys, changes, message):
    path = resealed(tmp_path, **changes)
    with pytest.raises(hz.PackageError, match=message):
        package.look(path)
    assert run(capsys, "inspect", path)[0] == 3


def test_any_date_can_be_compared(tmp_path):
    old = resealed(tmp_path, created=datetime.min.replace(tzinfo=UTC).isoformat())
    assert package.load(old, "feed").created.year == 1


def test_a_date_beyond_utc_is_refused(tmp_path):
    east, west = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
    path, first = tmp_path / "p.json", datetime.min.replace(tzinfo=east)
    for expires, now in ((datetime.max.replace(tzinfo=west), None), (DAY, first)):
        with pytest.raises(hz.ConfigError, match="outside the range of dates"):
            package.export(source("n", num=4), path, expires, ["feed"], now=now)
    with pytest.raises(hz.ConfigError, match="outside the range of dates"):
        package.load(resealed(tmp_path), "feed", now=first)


def test_a_digest_that_has_no_encoding_does_not_fit(tmp_path):
    path = tmp_path / "p.json"
    package.export(source("n", num=4), path, DAY, ["feed"])
    document = json.loads(path.read_text()) | {"sha256": "\ud800"}
    path.write_text(canonical.text(document))
    with pytest.raises(hz.PackageError, match="checksum"):
        package.look(path)


def party():
    """One of three, and what they agreed on."""
    everyone = [secure_sum.Party(name) for name in "abc"]
    keys = {p.name: p.public_key for p in everyone}
    return everyone, secure_sum.Agreement("s", keys, 2, 10.0)


def total_with(**changes):
    everyone, agreement = party()
    sent = [p.mask(torch.ones(2), agreement) for p in everyone]
    return secure_sum.total(agreement, [*sent[:2], sent[2]._replace(**changes)])


def collect(**changes):
    given_ = {"values": torch.ones(2, 1), "cell": torch.tensor([0, 1]), "num_cells": 2}
    return clipping.collect(**(given_ | {"clips": [Clip(0.0, 2.0)]} | changes))


WRONG = {
    "ledger nul": lambda h, t: Budget(1.0, 1e-6, "a\0b"),
    "ledger long": lambda h, t: Budget(1.0, 1e-6, t / ("x" * 5000)),
    "noise huge": lambda h, t: Budget(1.0, 1e-6).charge("x", 10**400),
    "noise large": lambda h, t: Budget(1.0, 1e-6).charge("x", 1e300),
    "times huge": lambda h, t: Budget(1.0, 1e-6).charge("x", 1.0, 10**400),
    "no names": lambda h, t: Budget(1.0, 1e-6).charge_all([], 9.0),
    "one name twice": lambda h, t: Budget(1.0, 1e-6).charge_all(["x", "x"], 99.0),
    "empty name": lambda h, t: Budget(1.0, 1e-6).charge_all(["x", " "], 99.0),
    "cells huge": lambda h, t: collect(num_cells=10**400),
    "cells bool": lambda h, t: collect(cell=torch.tensor([False, True])),
    "most huge": lambda h, t: collect(max_contributions=10**400, user=torch.arange(2)),
    "generator": lambda h, t: collect(generator=5, user=torch.arange(2)),
    "sampler": lambda h, t: noise.release(collect(), Budget(9.0, 1e-6), "x", 9.0, 5),
    "no history": lambda h, t: private_history(None, BOUNDS, Budget(9.0, 1e-6), "n", 9.0),
    "no clips": lambda h, t: private_history(h, None, Budget(9.0, 1e-6), "n", 9.0),
    "no budget": lambda h, t: private_history(h, BOUNDS, None, "n", 9.0),
    "no name": lambda h, t: private_history(h, BOUNDS, Budget(9.0, 1e-6), None, 9.0),
    "no metric": lambda h, t: private_history(
        h, BOUNDS | {"nope": Clip(0.0, 1.0)}, Budget(99.0, 1e-6), "n", 9.0
    ),
    "mask sparse": lambda h, t: party()[0][0].mask(torch.ones(2).to_sparse(), party()[1]),
    "mask bool": lambda h, t: party()[0][0].mask(torch.ones(2).bool(), party()[1]),
    "words list": lambda h, t: total_with(words=[1, 2]),
    "words float": lambda h, t: total_with(words=np.ones(2)),
    "party list": lambda h, t: total_with(party=["c"]),
    "flatten": lambda h, t: secure_sum.flatten(None),
    "unflatten like": lambda h, t: secure_sum.unflatten(torch.zeros(6).long(), None),
    "unflatten float": lambda h, t: secure_sum.unflatten(torch.zeros(6), collect()),
}  # fmt: skip


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_one_error_of_ours(call, history, tmp_path):
    if call.__code__.co_names[0] in ("party", "total_with"):
        pytest.importorskip("cryptography")
    with pytest.raises(hz.InputError):
        call(history, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bound_is_the_same_number_however_it_is_written():
    pytest.importorskip("cryptography")
    _, agreement = party()
    for bound in (10, np.int64(10), np.float64(10)):
        same = secure_sum.Agreement("s", agreement.keys, 2, bound)
        assert same.digest == agreement.digest


# --- the ledger ------------------------------------------------------------------------------


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_the_least_noise_fits_and_less_does_not(accountant):
    budget = Budget(1.0, 1e-6, accountant=accountant)
    budget.charge("before", 20.0)
    noise = budget.noise_multiplier_for(4)
    assert budget.would_be(0.999 * noise, 4) > 1.0 >= budget.would_be(noise, 4)


def test_the_last_hour_of_a_year_is_more_than_rounding():
    budget = Budget(1.0, 1e-6)
    noise = budget.noise_multiplier_for(8760)
    budget.charge("a year but an hour", noise, 8759)
    assert budget.noise_multiplier_for(1) == pytest.approx(noise, rel=0.05)


@given(st.sets(st.sampled_from(NAMES)), st.floats(5.0, 50.0))
def test_a_history_is_charged_in_one_step_or_not_at_all(history, known, noise):
    budget = Budget(2.0, 1e-6)
    for name in known:
        budget.charge(name, 50.0)
    before = budget.releases
    seen = []

    def watching(values, scale):
        seen.append(len(budget.releases))
        return values

    try:
        private_history(history, BOUNDS, budget, "n", noise, watching)
    except hz.BudgetError:
        assert budget.releases == before
        assert seen == []
    else:
        assert not known
        assert seen == [3, 3, 3]  # all was paid for before anything was drawn
        assert [r.what for r in budget.releases] == NAMES


def test_of_two_who_share_a_ledger_each_pays_for_all_of_its_rounds_or_for_none(history, tmp_path):
    path = tmp_path / "ledger.json"
    Budget(1.0, 1e-6, path)
    noise = Budget(1.0, 1e-6).noise_multiplier_for(2 * len(NAMES))

    def pays(name):
        try:
            private_history(history, BOUNDS, Budget(1.0, 1e-6, path), name, noise, as_it_is)
        except hz.BudgetError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        paid = sum(pool.map(pays, "abcd"))
    releases = Budget(1.0, 1e-6, path).releases
    assert paid == 2
    assert len(releases) == 2 * len(NAMES)


def test_what_cannot_be_drawn_is_refused_by_the_dry_run_too(history, monkeypatch):
    def missing():
        raise hz.MissingExtraError("differentially private noise", "opendp", "privacy")

    monkeypatch.setattr(noise, "_opendp", missing)
    budget = Budget(9.0, 1e-6)
    for call in (check_private, private_history):
        with pytest.raises(hz.MissingExtraError):
            call(history, BOUNDS, budget, "n", 9.0)
    assert budget.releases == ()


# --- files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refusals")
    begin(folder, "north", 2, 1)
    begin(folder, "south", 0, 3)
    return folder


def test_a_package_replaces_no_pipe_and_not_the_ledger_to_be(studies, tmp_path, capsys):
    pipe, both, circle = (tmp_path / name for name in ("pipe", "both.json", "circle"))
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    for path, message in ((pipe, "not a regular file"), (circle, "cannot be written")):
        with pytest.raises(hz.ConfigError, match=message):
            package.export(source("n", num=4), path, DAY, ["feed"])
    code, _, err = run(
        capsys, "export", "-c", studies / "north.yaml", "-o", both, "--expires", "30d", "--scope",
        "feed", "--ledger", both, "--epsilon", "4", "--clip", "gain=-20:40", "--clip",
        "guard <b>=-20:40",
    )  # fmt: skip
    assert code == 3
    assert "two different files" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["circle", "pipe"]
    assert pipe.is_fifo()


def test_a_page_that_cannot_be_written_is_refused_before_the_work(studies, capsys, monkeypatch):
    def works(*_):
        raise AssertionError("begun")

    monkeypatch.setattr(command, "gathered", works)
    before = (studies / "south.yaml").read_bytes()
    for place, message in (
        ("south.yaml", "not a page of this package"),
        ("south.db", "is the study's journal"),
    ):
        code, _, err = run(
            capsys, "compare", "-c", studies / "south.yaml", "--html", studies / place
        )
        assert code == 3
        assert message in err
    assert (studies / "south.yaml").read_bytes() == before
    assert not (studies / "south.db").exists()


def test_what_is_not_known_is_null_in_json(studies, capsys, monkeypatch):
    problem = hz.StudyConfig.from_file(studies / "south.yaml").problem()
    nothing = Sensitivity("north", "a", "gain", math.nan, -math.inf, math.inf)
    proposal = Proposal(
        problem.space, problem.base, {}, {}, (Reason("a", "keep", "not known"),), (nothing,)
    )
    monkeypatch.setattr(command, "gathered", lambda *_: [])
    monkeypatch.setattr(command.spaces, "propose", lambda *_: proposal)
    code, out, _ = run(capsys, "space", "-c", studies / "south.yaml", "--json")
    assert code == 0

    def refuse(name):
        raise AssertionError(name)

    (sensitivity,) = json.loads(out, parse_constant=refuse)["sensitivities"]
    assert (sensitivity["mean"], sensitivity["low"], sensitivity["high"]) == (None, None, None)
    code, out, _ = run(capsys, "space", "-c", studies / "south.yaml")
    assert code == 0
    assert "unknown" in out


def test_a_page_replaces_no_page_of_others_and_no_pipe(tmp_path):
    page, pipe = tmp_path / "index.html", tmp_path / "pipe"
    page.write_text("<!doctype html>\n<title>My own</title>")
    os.mkfifo(pipe)
    for place, message in ((page, "page of this package"), (pipe, "not a regular file")):
        with pytest.raises(hz.ConfigError, match=message):
            check_place(place, "page")
    page.write_text("<!doctype html>\n<title>north · HyperZero</title>")
    check_place(page, "page")
