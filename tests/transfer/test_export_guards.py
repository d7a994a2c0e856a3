"""Nothing is lost by an export that was asked for wrongly: no budget, no file, no ledger."""

import json
from datetime import timedelta

import pytest
import torch
from support.transfer_cli import GUARD, begin, run

import hyperzero_torch as hz
from hyperzero_torch.transfer import Source
from hyperzero_torch.transfer.sharing import canonical, clipping, noise, package, secure_sum
from hyperzero_torch.transfer.sharing.budget import Budget

pytest.importorskip("dp_accounting")
DAY = timedelta(days=1)
CLIPS = ("--clip", "gain=-20:40", "--clip", f"{GUARD}=-20:40")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("guards")
    begin(place, "north", 4, 1)
    (place / "short.key").write_text("short")
    (place / "short.key").chmod(0o600)
    return place


def export(capsys, folder, *options, out="p.json", scope="feed"):
    return run(
        capsys, "export", "-c", folder / "north.yaml", "-o", folder / out, "--expires", "30d",
        "--scope", scope, *options,
    )  # fmt: skip


def source(num=3):
    mean = torch.arange(2.0 * num, dtype=torch.float64).reshape(num, 2) / 100
    return Source(
        name="n",
        parameters=[{"a": i / num} for i in range(num)],
        metrics=["x", "y"],
        mean=mean,
        var=torch.full((num, 2), 1e-4),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scope", " "), "scopes"),
        (("--scope", "feed"), "twice"),
        (("--sign-key", "short.key"), "holds no private key"),
        (("--out", "."), "it is a folder"),
        (("--out", "north.db"), "holds something else"),
        (("--out", "north.yaml"), "holds something else"),
        (("--clip", "gain=3:-2"), "LOW below HIGH"),
        (("--clip", "nope=0:1"), "nope"),
        (("--clip", "gain=0:1"), "'gain' twice"),
        (("--meta", "z=1", "--meta", "z=2"), "'z' twice"),
        (("--meta", "level:gain=3"), "computed from the study's readings"),
        (("--noise", "-1"), "noise multiplier"),
        (("--noise", "0.001"), "more noise"),
    ],
)
def test_a_refused_export_spends_and_writes_nothing(folder, capsys, options, message):
    paths = ("--sign-key", "--out")
    options = [
        str(folder / o) if i and options[i - 1] in paths else o for i, o in enumerate(options)
    ]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    ledger = ("--ledger", folder / "led.json", "--epsilon", "4")
    for dry in ((), ("--dry-run",)):
        code, _, err = export(capsys, folder, *ledger, *CLIPS, *options, *dry)
        assert code == 3, err
        assert message in err
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_ledger_is_no_place_for_a_package_and_a_dry_run_refuses_what_the_run_will(folder, capsys):
    pytest.importorskip("opendp")
    ledger = folder / "spent.json"
    options = ("--ledger", ledger, "--epsilon", "4", *CLIPS)
    assert export(capsys, folder, *options, "--dry-run")[0] == 0
    assert not ledger.exists()
    code, _, err = export(capsys, folder, *options, "--noise", "8", out="first.json")
    assert code == 0, err
    spent = ledger.read_bytes()
    outputs = {}
    for dry in ((), ("--dry-run",)):
        code, _, outputs[dry] = export(capsys, folder, *options, "--noise", "8", *dry)
        assert code == 3
        assert "released before" in outputs[dry]
        code, _, err = export(capsys, folder, *options, "--release", "two", *dry, out="spent.json")
        assert code == 3
        assert "holds something else" in err
    assert outputs[()] == outputs[("--dry-run",)]
    assert ledger.read_bytes() == spent
    # A newer package takes the place of an older one.
    assert export(capsys, folder, out="first.json")[0] == 0
    assert package.look(folder / "first.json").privacy is None


def test_what_rounding_leaves_of_a_budget_is_nothing():
    budget = Budget(1.0, 1e-6)
    budget.charge("all", budget.noise_multiplier_for(3), 3)
    with pytest.raises(hz.BudgetError, match="nothing is left"):
        budget.noise_multiplier_for(1)


def test_a_page_replaces_pages_only(folder, capsys):
    pytest.importorskip("plotly")
    study = folder / "north.yaml"
    before = study.read_bytes()
    code, _, err = run(capsys, "-c", study, "-o", study, group="report")
    assert code == 3
    assert "not a page of this package" in err
    assert study.read_bytes() == before
    for _ in range(2):
        code, _, err = run(capsys, "-c", study, "-o", folder / "report.html", group="report")
        assert code == 0, err


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '{"schema": "other/1"}'])
def test_foreign_json_is_called_so(tmp_path, content):
    path = tmp_path / "foreign.json"
    path.write_text(content)
    with pytest.raises(hz.PackageError, match="schema") as refused:
        package.look(path)
    assert "changed after it was written" not in str(refused.value)


def test_a_damaged_ledger_is_restored_not_fetched(tmp_path):
    path = tmp_path / "ledger.json"
    Budget(1.0, 1e-6, path)
    path.write_text(path.read_text().replace("1e-06", "1e-05"))
    with pytest.raises(hz.PackageError, match="restore it from a backup"):
        Budget(1.0, 1e-6, path)


def test_a_number_beyond_all_floats_is_refused(tmp_path):
    path = tmp_path / "p.json"
    package.export(source(), path, DAY, ["feed"])
    for change in ("var", "scopes"):
        changed = json.loads(path.read_text())
        if change == "var":
            changed["source"]["var"][0][0] = 10**400
        else:
            changed["scopes"] = "feed"
        changed.pop("sha256")
        (tmp_path / "bad.json").write_text(canonical.text(canonical.sealed(changed)))
        with pytest.raises(hz.PackageError):
            package.load(tmp_path / "bad.json", "f")


def agreed(bound=1.0):
    parties = [secure_sum.Party(name) for name in "abc"]
    keys = {p.name: p.public_key for p in parties}
    return parties, secure_sum.Agreement("s", keys, 2, bound)


SUMS = clipping.Sums(*(torch.zeros(1, 1).long() for _ in range(3)), ((0.0, 1.0),), 1)
WRONG = {
    "load none": lambda t: package.load(None, "a"),
    "load number": lambda t: package.load(5, "a"),
    "export nowhere": lambda t: package.export(source(), None, DAY, ["a"]),
    "export text": lambda t: package.export("x", t / "p.json", DAY, ["a"]),
    "export nothing": lambda t: package.export(None, t / "p.json", DAY, ["a"]),
    "privacy": lambda t: package.export(source(), t / "p.json", DAY, ["a"], privacy=5),
    "ledger": lambda t: Budget(1, 1e-6, 5),
    "epsilon": lambda t: Budget(10**400, 1e-6),
    "bound": lambda t: agreed(10**400),
    "party": lambda t: secure_sum.Party(None),
    "mask without": lambda t: agreed()[0][0].mask(torch.zeros(2), None),
    "mask complex": lambda t: agreed()[0][0].mask(torch.zeros(2) + 1j, agreed()[1]),
    "total of numbers": lambda t: secure_sum.total(agreed()[1], [1, 2, 3]),
    "total of none": lambda t: secure_sum.total(agreed()[1], None),
    "release": lambda t: noise.release(SUMS, None, "q", 1.0),
    "values": lambda t: clipping.collect([["x"]], torch.zeros(1).long(), 1, [(0.0, 1.0)]),
    "cell list": lambda t: clipping.collect(torch.zeros(1, 1), [0], 1, [(0.0, 1.0)]),
    "cell float": lambda t: clipping.collect(
        torch.zeros(1, 1), torch.full((1,), 0.5), 1, [(0.0, 1.0)]
    ),
    "cells": lambda t: clipping.collect(
        torch.zeros(1, 1), torch.zeros(1).long(), "x", [(0.0, 1.0)]
    ),
    "clips": lambda t: clipping.collect(torch.zeros(1, 1), torch.zeros(1).long(), 1, [5]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_one_error_of_ours(call, tmp_path):
    with pytest.raises(hz.HyperZeroError):
        call(tmp_path)
    assert not list(tmp_path.iterdir())
