"""``transfer.package``: what was exported is what is imported, or it is refused."""

import json
import math
import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.transfer import Source
from hyperzero_torch.transfer.sharing import canonical
from hyperzero_torch.transfer.sharing.package import SCHEMA, export, in_force, load, look
from hyperzero_torch.transfer.sharing.signing import SigningKey
from hyperzero_torch.transfer.sharing.terms import terms_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))


def source(**changes):
    values = {
        "name": "north",
        "parameters": [{"a": 0.1, "n": 3, "mode": "x<é>"}, {"a": 1 / 3, "n": 4, "mode": True}],
        "metrics": ["gain", "guard"],
        "mean": [[1 / 7, math.nan], [-2e-17, 0.0]],
        "var": [[1e-300, math.nan], [2e-4, 3e-4]],
        "meta_features": {"level:gain": 1.5},
        "num_rounds": 7,
        "origin": "postgresql://user:secret@host/db#north",
        "base": {"a": 0.2, "n": 3, "mode": "y"},
    }
    return Source(**(values | changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    export(source(), folder / "plain.json", DAY, ["feed", "search"], now=NOW)
    export(source(), folder / "signed.json", DAY, ["feed"], now=NOW, signer=KEY)
    return folder


def test_what_comes_back_is_what_was_sent(written, tmp_path):
    package = load(written / "plain.json", "search", now=NOW)
    sent, back = source(), package.source
    assert back.fingerprint() == sent.fingerprint()
    for name in ("name", "parameters", "metrics", "meta_features", "num_rounds", "base", "shared"):
        assert getattr(back, name) == getattr(sent, name)
    assert {n: type(v) for n, v in back.parameters[1].items()} == {
        "a": float,
        "n": int,
        "mode": bool,
    }
    assert package.scopes == ("feed", "search")
    assert (package.created, package.expires) == (NOW, NOW + DAY)
    assert package.privacy is None
    assert not package.authentic
    shared = torch.full((2, 2, 2), 1e-4, dtype=torch.float64)
    with_shared = source(mean=torch.zeros(2, 2), var=torch.ones(2, 2), shared=shared)
    export(with_shared, tmp_path / "p.json", DAY, ["feed"], now=NOW, privacy={"epsilon": 1.0})
    package = load(tmp_path / "p.json", "feed", now=NOW)
    assert torch.equal(package.source.shared, shared)
    assert package.privacy == {"epsilon": 1.0}


rows = st.lists(
    st.tuples(st.floats(-1e3, 1e3), st.floats(min_value=5e-324, max_value=1e9)),
    min_size=1,
    max_size=5,
)


@given(rows, st.text(min_size=1).filter(str.strip), st.integers(-(2**60), 2**60))
def test_any_source_survives_the_way(tmp_path_factory, rows, text, whole):
    path = tmp_path_factory.getbasetemp() / "any.json"
    sent = Source(
        name=text,
        parameters=[{"p": whole + i, text + "q": m} for i, (m, _) in enumerate(rows)],
        metrics=[text],
        mean=[[m] for m, _ in rows],
        var=[[v] for _, v in rows],
        meta_features={text: rows[0][0]},
    )
    try:
        export(sent, path, DAY, [text], now=NOW)
    except hz.ConfigError:
        assert any("\ud800" <= c <= "\udfff" for c in text)
        return
    back = load(path, text, now=NOW).source
    assert back.fingerprint() == sent.fingerprint()
    assert back.meta_features == sent.meta_features


def test_nothing_of_the_source_of_the_evidence_leaves(written):
    text = (written / "plain.json").read_text()
    assert "secret" not in text
    assert "postgresql" not in text
    assert "north" in text


@given(st.data())
def test_any_changed_byte_is_found(written, tmp_path_factory, data):
    name = data.draw(st.sampled_from(["plain.json", "signed.json"]))
    raw = bytearray((written / name).read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(["replace", "delete", "insert", "cut"]))
    byte = data.draw(st.integers(0, 255))
    if how == "replace":
        raw[at] = byte if byte != raw[at] else byte ^ 1
    elif how == "delete":
        del raw[at]
    elif how == "insert":
        raw.insert(at, byte)
    else:
        raw = raw[:at]
    path = tmp_path_factory.getbasetemp() / "tampered.json"
    path.write_bytes(raw)
    with pytest.raises(hz.PackageError, match="refused"):
        load(path, "feed", now=NOW)


def test_every_single_byte_and_bit(written, tmp_path):
    raw = (written / "plain.json").read_bytes()
    path = tmp_path / "tampered.json"
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :])
        with pytest.raises(hz.PackageError):
            load(path, "feed", now=NOW)


def rewritten(path, to, **changes):
    """A file whose maker computed the checksum anew."""
    document = json.loads(path.read_text()) | changes
    document.pop("sha256")
    to.write_text(canonical.text(canonical.sealed(document)))
    return to


def test_a_forger_who_computes_the_checksum_anew_is_found_by_the_signature(written, tmp_path):
    trusted = [OTHER.public, KEY.public]
    assert load(written / "signed.json", "feed", now=NOW, signers=trusted).authentic
    assert not load(written / "signed.json", "feed", now=NOW).authentic
    later = (NOW + 9 * DAY).isoformat()
    forged = rewritten(written / "signed.json", tmp_path / "f.json", expires=later)
    for how in ({}, {"signers": trusted}):
        with pytest.raises(hz.PackageError, match="without the key that signed it"):
            load(forged, "feed", now=NOW, **how)
    unsigned = rewritten(
        written / "signed.json", tmp_path / "u.json", expires=later, signer=None, signature=None
    )
    assert load(unsigned, "feed", now=NOW).expires == NOW + 9 * DAY  # the checksum is content
    with pytest.raises(hz.PackageError, match="it is not signed"):
        load(unsigned, "feed", now=NOW, signers=trusted)
    with pytest.raises(hz.PackageError, match="another key"):
        load(written / "signed.json", "feed", now=NOW, signers=[OTHER.public])
    with pytest.raises(hz.PackageError, match="not signed"):
        load(written / "plain.json", "feed", now=NOW, signers=[KEY.public])
    with pytest.raises(hz.ConfigError, match="public key") as caught:
        load(written / "signed.json", "feed", now=NOW, signers=[f"ed25519-private:{'a' * 64}"])
    assert "aaaa" not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["sha256", "signature", "version", "source", "scopes", "created", "privacy"]
)
def test_a_file_without_one_of_its_fields_is_refused(written, tmp_path, field):
    document = json.loads((written / "plain.json").read_text())
    del document[field]
    (tmp_path / "p.json").write_text(json.dumps(document, sort_keys=True, indent=0) + "\n")
    with pytest.raises(hz.PackageError, match="its fields are"):
        load(tmp_path / "p.json", "feed", now=NOW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "hyperzero-transfer/1"}, "this version reads"),
        ({"schema": None}, "this version reads"),
        ({"created": "2026-03-01T12:00:00"}, "without a zone"),
        ({"expires": 7}, "cannot be read"),
        ({"version": 0}, "cannot be read"),
        ({"version": True}, "cannot be read"),
        ({"version": None}, "cannot be read"),
        ({"signer": 7, "signature": "00"}, "its signature cannot be read"),
        ({"signer": None, "signature": "00"}, "its signature cannot be read"),
        ({"scopes": None}, "cannot be read"),
        ({"source": {}}, "cannot be read"),
        ({"privacy": 7}, "cannot be read"),
        ({"source": None}, "cannot be read"),
    ],
)
def test_whole_files_of_another_make_are_refused(written, tmp_path, changes, message):
    path = rewritten(written / "plain.json", tmp_path / "p.json", **changes)
    with pytest.raises(hz.PackageError, match=message):
        load(path, "feed", now=NOW)


def test_a_source_that_cannot_be_is_refused_after_the_way_too(written, tmp_path):
    plain = json.loads((written / "plain.json").read_text())["source"]
    bad = rewritten(
        written / "plain.json", tmp_path / "p.json", source=plain | {"metrics": ["gain", "gain"]}
    )
    with pytest.raises(hz.PackageError, match="come twice"):
        load(bad, "feed", now=NOW)


def test_time_is_kept(written):
    path = written / "plain.json"
    load(path, "feed", now=NOW + DAY - timedelta(microseconds=1))
    with pytest.raises(hz.PackageError, match="expired"):
        load(path, "feed", now=NOW + DAY)
    tokyo = (NOW + DAY).astimezone(timezone(timedelta(hours=9)))
    with pytest.raises(hz.PackageError, match="expired"):
        load(path, "feed", now=tokyo)
    load(path, "feed", now=NOW - timedelta(minutes=4))
    with pytest.raises(hz.PackageError, match="clocks"):
        load(path, "feed", now=NOW - timedelta(minutes=6))
    with pytest.raises(hz.ConfigError, match="with its zone"):
        load(path, "feed", now=NOW.replace(tzinfo=None))


def test_scope_is_kept(written):
    for scope in ("ads", "", "fee", "feed "):
        with pytest.raises(hz.PackageError, match="may be used for"):
            load(written / "plain.json", scope, now=NOW)


@pytest.mark.parametrize(
    ("expires", "scopes", "how", "message"),
    [
        (timedelta(0), ["feed"], {}, "not after now"),
        (-DAY, ["feed"], {}, "not after now"),
        (NOW, ["feed"], {}, "not after now"),
        (datetime(2030, 1, 1), ["feed"], {}, "with its zone"),
        ("tomorrow", ["feed"], {}, "with its zone"),
        (timedelta.max, ["feed"], {}, "outside the range of dates"),
        (DAY, [], {}, "scopes is empty"),
        (DAY, "feed", {}, "list of names"),
        (DAY, ["feed", "feed"], {}, "come twice"),
        (DAY, ["feed"], {"signer": b"short"}, "must be a SigningKey"),
        (DAY, ["feed"], {"version": 0}, "version must be a whole number"),
        (DAY, ["feed"], {"version": "2"}, "version must be a whole number"),
        (DAY, ["feed"], {"privacy": {"epsilon": math.nan}}, "JSON"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    tmp_path, expires, scopes, how, message
):
    with pytest.raises(hz.ConfigError, match=message):
        export(source(), tmp_path / "p.json", expires, scopes, now=NOW, **how)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_packages_are_refused(tmp_path):
    for raw in (b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 10**5, b'{"schema": NaN}'):
        (tmp_path / "p.json").write_bytes(raw)
        with pytest.raises(hz.PackageError, match="refused"):
            load(tmp_path / "p.json", "feed", now=NOW)
    with pytest.raises(hz.PackageError, match="cannot be read"):
        load(tmp_path / "none.json", "feed", now=NOW)
    with pytest.raises(hz.PackageError, match="cannot be read"):
        load(tmp_path, "feed", now=NOW)


def test_a_new_export_replaces_in_one_step(written, tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    first = export(source(), path, DAY, ["feed"], now=NOW)
    before = path.read_bytes()

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(hz.ConfigError, match="No space left"):
        export(source(name="south"), path, DAY, ["feed"], now=NOW)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert load(path, "feed", now=NOW).sha256 == first
    assert export(source(name="south"), path, DAY, ["feed"], now=NOW) != first
    assert json.loads(path.read_text())["schema"] == SCHEMA


def test_a_package_can_be_looked_at_when_it_may_not_be_used(written):
    looked_at = look(written / "plain.json")
    used = load(written / "plain.json", "feed", now=NOW)
    assert looked_at.source.fingerprint() == used.source.fingerprint()
    assert (looked_at.sha256, looked_at.expires) == (used.sha256, used.expires)
    with pytest.raises(hz.PackageError, match="expired"):
        in_force(looked_at, "feed", now=NOW + DAY)
    with pytest.raises(hz.PackageError, match="may be used for"):
        in_force(looked_at, "ads", now=NOW)
    in_force(looked_at, "search", now=NOW)
    assert look(written / "signed.json", signers=[KEY.public]).authentic
    with pytest.raises(hz.PackageError, match="another key"):
        look(written / "signed.json", signers=[OTHER.public])


def test_a_source_keeps_the_terms_of_its_package(written, tmp_path):
    package = load(written / "plain.json", "feed", now=NOW)
    terms = terms_of(package.source.origin)
    version = int(NOW.timestamp())
    assert terms == (package.sha256, package.scopes, NOW, NOW + DAY, None, version, None)
    export(source(), tmp_path / "p.json", DAY, ["feed"], now=NOW, privacy={"epsilon": 2.0})
    private = load(tmp_path / "p.json", "feed", now=NOW).source
    assert terms_of(private.origin).privacy == {"epsilon": 2.0}


@given(st.text() | st.text().map("package ".__add__) | st.just("package " + "[" * 10**5))
def test_other_origins_have_no_terms(text):
    assert terms_of(text) is None
