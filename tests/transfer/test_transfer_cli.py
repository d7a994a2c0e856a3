"""hyperzero transfer as two domains meet it: files, exit codes, and nothing done unasked."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.transfer_cli import GUARD, begin, run
from support.transfer_study import METRICS

import hyperzero_torch as hz
from hyperzero_torch.cli.transfer.export import read_expiry
from hyperzero_torch.transfer.sharing import canonical
from hyperzero_torch.transfer.sharing import package as packages
from hyperzero_torch.transfer.sharing.budget import UNIT, Budget, Owner

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two studies with evidence, a third that has not begun."""
    folder = tmp_path_factory.mktemp("studies")
    begin(folder, "north", 5, 1)
    begin(folder, "east", 4, 2)
    begin(folder, "south", 0, 3)
    return folder


@pytest.fixture
def written(studies, tmp_path, capsys):
    path = tmp_path / "north.json"
    code, *_ = run(capsys, "export", "-c", studies / "north.yaml", "-o", path, "--expires", "30d",
                   "--scope", "feed/eu", "--meta", "ads=0.25")  # fmt: skip
    assert code == 0
    return path


def test_a_study_goes_out_and_comes_back(studies, written, capsys):
    code, out, _ = run(capsys, "inspect", written, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["refused"] is None
    assert summary["name"] == "north"
    assert summary["scopes"] == ["feed/eu"]
    assert summary["meta_features"]["ads"] == 0.25
    assert summary["privacy"] is None
    assert summary["authentic"] is False
    left = datetime.fromisoformat(summary["expires"]) - datetime.now(UTC)
    assert timedelta(days=29.9) < left < timedelta(days=30)
    source = packages.load(written, "feed/eu").source
    assert source.metrics == METRICS
    study = hz.StudyConfig.from_file(studies / "north.yaml")
    tuner = hz.Tuner.resume(study.journal_url(studies), "north", problem=study.problem())
    assert len(source) == summary["num_settings"] <= len(tuner.history.candidates)
    assert summary["num_rounds"] <= 5
    assert "sqlite" not in written.read_text()
    code, out, _ = run(capsys, "inspect", written, "--scope", "feed/eu")
    assert code == 0
    for message in ("may be used for", "feed/eu", "no noise was added", "traffic: users per round"):
        assert message in out


def test_scope_time_and_content_are_enforced_with_exit_code_3(written, tmp_path, capsys):
    code, out, err = run(capsys, "inspect", written, "--scope", "ads")
    assert code == 3
    assert "not for 'ads'" in err
    assert "feed/eu" in out  # shown all the same
    source = packages.load(written, "feed/eu").source
    old = tmp_path / "old.json"
    packages.export(source, old, timedelta(days=1), ["feed/eu"], now=NOW)
    code, out, err = run(capsys, "inspect", old, "--json")
    assert code == 3
    assert "expired" in err
    assert "expired" in json.loads(out)["refused"]
    raw = written.read_bytes()
    written.write_bytes(raw.replace(b'"north"', b'"south"'))
    code, out, err = run(capsys, "inspect", written)
    assert code == 3
    assert "checksum" in err
    assert out == ""


def test_a_package_is_signed_by_a_key_of_a_file_that_is_never_shown(studies, tmp_path, capsys):
    path, file = tmp_path / "signed.json", tmp_path / "north.key"
    code, out, err = run(capsys, "keygen", "-o", file)
    public = out.strip()
    assert (code, public[:8], len(public)) == (0, "ed25519:", 72)
    secret = file.read_text().strip().partition(":")[2]
    assert secret not in out + err
    assert file.stat().st_mode & 0o077 == 0
    before = file.read_bytes()
    code, _, err = run(capsys, "keygen", "-o", file)
    assert (code, file.read_bytes()) == (3, before)
    assert "never replaced" in err
    export = ("export", "-c", studies / "north.yaml", "-o", path, "--expires", "36h",
              "--scope", "feed/eu")  # fmt: skip
    code, out, err = run(capsys, *export, "--sign-key", file)
    assert code == 0
    assert f"; signed by {public}" in err
    assert secret not in out + err + path.read_text()
    code, out, err = run(capsys, "inspect", path, "--signer", public, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["authentic"] is True
    assert json.loads(out)["signer"] == public
    code, out, err = run(capsys, "verify", path, "--signer", public, "--scope", "feed/eu")
    assert code == 0
    assert f"signed by {public}" in err
    other = public[:-1] + ("0" if public[-1] != "0" else "1")
    for how, message in (
        (("--signer", other), "another key"),
        (("--signer", "short"), "64 hexadecimal digits"),
        ((), "--signer is missing"),
        (("--signer", public, "--scope", "ads"), "may be used for"),
    ):
        code, out, err = run(capsys, "verify", path, *how)
        assert (code, out) == (3, "")
        assert message in " ".join(err.split())
    file.chmod(0o644)
    code, _, err = run(capsys, *export, "--sign-key", file)
    assert code == 3
    assert "chmod 600" in err
    code, _, err = run(capsys, *export, "--sign-key", tmp_path / "none")
    assert code == 3
    assert "cannot be read" in err


def test_without_noise_needs_a_word_in_the_study_file(tmp_path, capsys):
    config = begin(tmp_path, "north", 2, 1)
    text = config.read_text()
    config.write_text(text.replace("export_without_noise: true", "export_without_noise: false"))
    export = ("export", "-c", config, "-o", tmp_path / "p.json", "--expires", "1d", "--scope", "x")
    for dry in ((), ("--dry-run",)):
        code, _, err = run(capsys, *export, *dry)
        assert code == 3
        assert "export_without_noise: true" in err
        assert not (tmp_path / "p.json").exists()
    config.write_text(text)
    assert run(capsys, *export)[0] == 0


def test_a_ledger_that_is_begun_anew_or_restored_is_refused(tmp_path, capsys):
    pytest.importorskip("dp_accounting")
    pytest.importorskip("opendp")
    config, ledger = begin(tmp_path, "north", 2, 1), tmp_path / "ledger.json"

    def export(out, *options, ledger=ledger):
        return run(
            capsys, "export", "-c", config, "-o", tmp_path / out, "--expires", "1d", "--scope",
            "x", "--ledger", ledger, "--epsilon", "20", "--noise", "9", "--clip", "gain=-20:40",
            "--clip", f"{GUARD}=-20:40", *options,
        )  # fmt: skip

    assert export("one.json", "--release", "one")[0] == 0
    first = ledger.read_bytes()
    assert export("two.json", "--release", "two")[0] == 0
    study = hz.StudyConfig.from_file(config)
    tuner = hz.Tuner.resume(study.journal_url(tmp_path), "north", problem=study.problem())
    notes = [d for d in tuner.decisions if d.kind == "private release"]
    assert [d.trace.releases for d in notes] == [2, 4] or len(notes) == 2
    tuner.journal.close()
    latest = ledger.read_bytes()
    new = tmp_path / "new.json"
    for kept, where, message in (
        (None, ledger, "there is no ledger here"),
        (first, ledger, "an older copy"),
        (latest, new, "there is no ledger here"),
    ):
        ledger.unlink(missing_ok=True)
        if kept is not None:
            ledger.write_bytes(kept)
        for dry in ((), ("--dry-run",)):
            code, _, err = export("three.json", "--release", "three", *dry, ledger=where)
            assert code == 3
            assert message in err
            assert "what was spent is spent" in err
            assert not (tmp_path / "three.json").exists()
            assert not new.exists()
    # Another ledger in its place has another id.
    Budget(20.0, 1e-6, new)
    code, _, err = export("three.json", "--release", "three", ledger=new)
    assert code == 3
    assert "this ledger is another one" in err
    # A ledger belongs to its study and its population.
    code, _, err = export("three.json", "--release", "three", "--population", "teens")
    assert code == 3
    assert "every study and population has a ledger of its own" in " ".join(err.split())
    other = begin(tmp_path, "east", 2, 2)
    config = other
    code, _, err = export("three.json", "--release", "three")
    assert code == 3
    assert "is about 'north' of study 'north'" in err
    assert ledger.read_bytes() == latest
    with pytest.raises(hz.PackageError, match="open it with this owner"):
        Budget(20.0, 1e-6, ledger).charge("x", 9.0)
    config = tmp_path / "north.yaml"
    assert export("three.json", "--release", "three")[0] == 0


def test_a_ledger_of_before_is_bound_when_it_is_charged(tmp_path):
    pytest.importorskip("dp_accounting")
    path = tmp_path / "ledger.json"
    document = {
        "schema": "hyperzero-privacy/1", "unit": UNIT, "epsilon": 5.0, "delta": 1e-6,
        "accountant": "rdp",
        "releases": [{"what": "a", "noise_multiplier": 9.0, "times": 2, "at": "2026-01-01"}],
    }  # fmt: skip
    path.write_text(canonical.text(canonical.sealed(document)))
    spent = Budget(5.0, 1e-6, path).spent()
    assert spent > 0
    budget = Budget(5.0, 1e-6, path, owner=Owner("feed", "all"))
    budget.charge("b", 9.0)
    assert budget.spent() > spent
    with pytest.raises(hz.PackageError, match="is about 'all' of study 'feed'"):
        Budget(5.0, 1e-6, path, owner=Owner("feed", "others"))


def test_noise_is_paid_for_once_and_never_over_the_budget(studies, tmp_path, capsys):
    pytest.importorskip("dp_accounting")
    pytest.importorskip("opendp")
    path, ledger = tmp_path / "p.json", tmp_path / "ledger.json"
    command = ("export", "-c", studies / "north.yaml", "-o", path, "--expires", "30d", "--scope",
               "feed/eu", "--ledger", ledger, "--epsilon", "20", "--clip", "gain=-20:40",
               "--clip", f"{GUARD}=-20:40")  # fmt: skip
    code, _, err = run(capsys, *command, "--dry-run")
    assert code == 0
    assert "from 0 to 20 of 20" in err
    assert not path.exists()
    assert not ledger.exists()
    code, out, err = run(capsys, *command, "--json")
    assert code == 0
    assert "outside the guarantee" in err
    statement = json.loads(out)["privacy"]
    spent = Budget(20.0, 1e-6, ledger).spent()
    assert statement["epsilon"] == spent == pytest.approx(20, rel=1e-3)
    assert statement["mechanisms"] == 5
    assert statement["clips"]["gain"] == [-20.0, 40.0]
    noised = packages.load(path, "feed/eu")
    assert noised.privacy == statement
    plain = tmp_path / "plain.json"
    assert run(capsys, *command[:4], plain, *command[5:9])[0] == 0
    source = packages.load(plain, "feed/eu").source
    var = {tuple(p.values()): v for p, v in zip(source.parameters, source.var[:, 0].tolist())}
    more = [
        v > var[tuple(p.values())]
        for p, v in zip(noised.source.parameters, noised.source.var[:, 0].tolist())
        if tuple(p.values()) in var
    ]
    assert len(more) > 3
    assert sum(more) > 0.8 * len(more), sum(more)  # the noise is carried into the evidence
    code, _, err = run(capsys, *command)
    assert code == 3
    assert "nothing is left" in err or "released before" in err
    code, _, err = run(capsys, *command, "--noise", "50")
    assert code == 3
    assert Budget(20.0, 1e-6, ledger).spent() == spent


def test_what_cannot_be_exported_is_refused_before_anything_is_paid(studies, tmp_path, capsys):
    pytest.importorskip("dp_accounting")
    ledger = tmp_path / "ledger.json"
    good = {"--expires": "30d", "--scope": "feed/eu", "-o": tmp_path / "p.json"}
    private = {"--ledger": ledger, "--epsilon": "1", "--clip": "gain=0:20", "--population": "p"}
    for config, changes, message in (
        ("north", {"--expires": "soon"}, "36h, 30d, 8w"),
        ("north", {"--expires": "2027-01-01"}, "36h, 30d, 8w"),
        ("north", {"--expires": "2020-01-01T00:00+00:00"}, "is not after now"),
        ("north", {"--expires": "9999999999w"}, "36h, 30d, 8w"),
        ("north", {"-o": tmp_path / "no" / "p.json"}, "there is no folder"),
        ("north", {"--meta": "users"}, "NAME=NUMBER"),
        ("north", {"--meta": "x=nan"}, "NAME=NUMBER"),
        ("north", {"--epsilon": "1"}, "need a --ledger"),
        ("north", {"--ledger": ledger}, "needs --epsilon"),
        ("north", private, "every metric"),
        ("north", private | {"--clip": "gain=20:0"}, "LOW below HIGH"),
        ("north", private | {"--clip": "gain"}, "LOW below HIGH"),
        ("south", {}, "there is no journal"),
    ):
        options = [x for pair in (good | changes).items() for x in pair]
        code, _, err = run(capsys, "export", "-c", studies / f"{config}.yaml", *options)
        assert code == 3, err
        assert message in err
        assert not (tmp_path / "p.json").exists()
    assert not ledger.exists() or Budget(1.0, 1e-6, ledger).releases == ()


def test_domains_are_compared_as_a_table_and_as_a_page(studies, written, tmp_path, capsys):
    address = f"sqlite:///{studies / 'east.db'}#east"
    command = ("compare", "-c", studies / "south.yaml", written, address, "--scope", "feed/eu")
    code, out, _ = run(capsys, *command, "--json")
    assert code == 0
    (pair,) = json.loads(out)["pairs"]
    assert (pair["domain"], pair["other"]) == ("north", "east")
    assert 0 < pair["features"] <= 1
    assert pair["mean:gain"] > 0.5  # one truth
    assert pair["low:gain"] < pair["mean:gain"] < pair["high:gain"]
    page = tmp_path / "domains.html"
    pytest.importorskip("plotly")
    code, out, err = run(capsys, *command, "--html", page)
    assert code == 0
    assert f"{pair['mean:gain']:.2f} [" in out
    assert str(page) in err
    html = page.read_text()
    assert "Content-Security-Policy" in html
    assert "correlation by evidence" in html
    code, out, _ = run(capsys, "compare", "-c", studies / "east.yaml", f"far north={written}",
                       "--scope", "feed/eu", "--json")  # fmt: skip
    assert code == 0
    (pair,) = json.loads(out)["pairs"]
    assert (pair["domain"], pair["other"]) == ("far north", "east (this study)")


def test_a_smaller_space_is_proposed_with_its_evidence_and_never_applied(studies, written, capsys):
    before = {p: p.read_bytes() for p in studies.iterdir()}
    address = f"sqlite:///{studies / 'east.db'}#east"
    command = ("space", "-c", studies / "south.yaml", written, address, "--scope", "feed/eu")
    code, out, _ = run(capsys, *command, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["applied"] is False
    assert [r["parameter"] for r in summary["reasons"]] == ["a", "b"]
    assert len(summary["sensitivities"]) == 2 * 2 * 2
    code, out, _ = run(capsys, *command, "--negligible", "0.99")
    assert code == 0
    assert "fix" in out
    assert "not applied" in out
    proposed = yaml.safe_load(out[out.index("parameters:") :])
    study = yaml.safe_load((studies / "south.yaml").read_text())
    kept = [p["name"] for p in proposed["parameters"]]
    assert len(kept) == 1
    hz.StudyConfig.model_validate(study | proposed | {"constraints": []}).problem()
    unchanged = {p: p.read_bytes() for p in studies.iterdir() if p in before}
    assert unchanged == before
    code, _, err = run(capsys, *command[:4], "--scope", "feed/eu")
    assert code == 3
    assert "at least 2 sources" in err


def test_sources_that_cannot_be_used_are_refused(studies, written, tmp_path, capsys):
    south = ("compare", "-c", studies / "south.yaml")
    for given_, message, exit_code in (
        ([], "has no sources", 3),
        ([written], "--scope", 3),
        ([tmp_path / "none.json", "--scope", "feed/eu"], "cannot be read", 3),
        ([written, "--scope", "ads"], "not for 'ads'", 3),
        ([written, written, "--scope", "feed/eu"], "two are named", 3),
        ([written, f"again={written}", "--scope", "feed/eu"], "count twice", 3),
        ([written, "--scope", "feed/eu"], "needs two domains", 3),
        ([f"sqlite:///{tmp_path / 'none.db'}#x"], "none.db", 4),
    ):
        code, out, err = run(capsys, *south, *given_)
        assert code == exit_code, err
        assert message in err
        assert out == ""


def test_a_study_that_learns_from_packages_explains_itself(studies, written, tmp_path, capsys):
    address = f"sqlite:///{studies / 'east.db'}#east"
    sources = [packages.load(written, "feed/eu").source, address]
    config = begin(tmp_path, "west", 4, 4, sources)
    code, out, _ = run(capsys, "-c", config, "--json", group="explain")
    assert code == 0
    summary = json.loads(out)
    assert set(summary["transfer"]["sources"]) == {"north", "east"}
    text = " ".join(run(capsys, "-c", config, group="explain")[1].split())
    assert "alternative not chosen:" in text
    assert "source north: correlation with this study" in text
    code, out, _ = run(capsys, "compare", "-c", config, "--json")  # its own sources
    assert code == 0
    names = {(p["domain"], p["other"]) for p in json.loads(out)["pairs"]}
    this = "west (this study)"
    assert names == {("north", "east"), ("north", this), ("east", this)}
    code, out, _ = run(capsys, "space", "-c", config, "--json")
    assert code == 0
    assert {s["source"] for s in json.loads(out)["sensitivities"]} == {"north", "east"}


def test_help_teaches(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("export", "inspect", "compare", "space"):
        assert re.search(rf"│ {command} ", out)
        code, text, _ = run(capsys, command, "--help")
        assert code == 0
        assert "--help" in text


@given(st.floats(0.01, 1e4), st.sampled_from("hdw"))
def test_spans_are_spans(number, unit):
    hours = {"h": 1, "d": 24, "w": 168}[unit]
    written = f"{number:.3f}{unit}"
    end = read_expiry(written, NOW)
    assert abs((end - NOW).total_seconds() - float(written[:-1]) * hours * 3600) < 1


@given(st.text(max_size=20))
def test_any_text_is_a_time_with_its_zone_or_refused(text):
    try:
        end = read_expiry(text, NOW)
    except hz.ConfigError:
        return
    assert end.utcoffset() == timedelta(0)
