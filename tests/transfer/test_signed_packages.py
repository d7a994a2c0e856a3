"""Packages of a domain rise in version, are signed, and can be revoked; what a study does then."""

import json
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.transfer_cli import begin, run
from support.transfer_study import reply

import hyperzero_torch as hz
from hyperzero_torch.live import Collected, Loop, SimulatedClock
from hyperzero_torch.study.config import SourceConfig
from hyperzero_torch.transfer import refresh
from hyperzero_torch.transfer.journaled import last_terms, recorded
from hyperzero_torch.transfer.sharing import canonical, package
from hyperzero_torch.transfer.sharing.revocation import SCHEMA, Revocations, revoke
from hyperzero_torch.transfer.sharing.signing import SigningKey, is_signed_by

PUBLIC = f"ed25519:{'a' * 64}"


class Domains:
    """North, which exports, and south, which learns."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys
        begin(folder, "north", 4, 1)
        begin(folder, "south", 0, 3)
        self.public = self.run("keygen", "-o", folder / "north.key")[1].strip()
        self.source = {"source": "north.json", "scope": "feed/eu", "name": "north", "refresh": 1}
        self.source["signers"] = [self.public]

    def run(self, *words, group="transfer"):
        return run(self._capsys, *words, group=group)

    def export(self, *options, out="north.json", key="north.key"):
        signed = () if key is None else ("--sign-key", self.folder / key)
        code, _, err = self.run(
            "export", "-c", self.folder / "north.yaml", "-o", self.folder / out, "--expires",
            "30d", "--scope", "feed/eu", *signed, *options,
        )  # fmt: skip
        assert code == 0, err
        return json.loads((self.folder / out).read_text())

    def more(self, name="north"):
        """An hour more of a domain's evidence."""
        tuner = self.opened(name)
        tuner.tell(reply(tuner, tuner.ask()))
        tuner.journal.close()

    def south(self, **changes):
        config = self.folder / "south.yaml"
        study = yaml.safe_load(config.read_text()) | {"sources": [self.source]} | changes
        config.write_text(yaml.safe_dump(study))

    def step(self, *options):
        return self.run("-c", self.folder / "south.yaml", *options, group="step")

    def refresh(self, *options):
        return self.run("refresh", "-c", self.folder / "south.yaml", *options)

    def revoke(self, *options, reason="the key was stolen"):
        return self.run("revoke", "--list", self.folder / "revoked.json", "--reason", reason,
                        *options)  # fmt: skip

    def opened(self, name="south"):
        study = hz.StudyConfig.from_file(self.folder / f"{name}.yaml")
        url = study.journal_url(self.folder)
        return hz.Tuner.resume(url, name, problem=study.problem())

    def sources(self):
        return [source.name for source in recorded(self.opened().history)]

    def decisions(self, kind):
        return [d.reason for d in self.opened().decisions if d.kind == kind]


@pytest.fixture
def domains(tmp_path, capsys):
    return Domains(tmp_path, capsys)


# --- versions ---------------------------------------------------------------------------------


def test_an_older_version_is_refused_and_journaled_once(domains):
    old = domains.export()
    shutil.copy(domains.folder / "north.json", domains.folder / "old.json")
    domains.more()
    new = domains.export()
    assert new["version"] > old["version"]
    domains.south()
    assert domains.step()[0] == 0
    assert last_terms(domains.opened().history)["north"].version == new["version"]
    before = recorded(domains.opened().history)[0].fingerprint()
    shutil.copy(domains.folder / "old.json", domains.folder / "north.json")
    words = f"its version {old['version']} is older than {new['version']}"
    code, _, err = domains.refresh("--dry-run")
    assert code == 3
    assert words in err
    assert domains.decisions("source refused") == []
    for _ in range(2):
        code, _, err = domains.refresh()
        assert code == 3
        assert words in err
    assert domains.step("--round", 1)[0] == 0  # not due
    code, _, err = domains.step("--round", 2)
    assert (code, words in err) == (0, True), err
    (reason,) = domains.decisions("source refused")
    assert words in reason
    assert recorded(domains.opened().history)[0].fingerprint() == before
    # In Python too.
    older = package.load(domains.folder / "old.json", "feed/eu", signers=[domains.public]).source
    with pytest.raises(hz.PackageError, match=words):
        domains.opened().learn_from([older])


def test_another_package_of_the_same_version_is_refused(domains):
    domains.export("--version", "7")
    domains.south()
    assert domains.step()[0] == 0
    assert domains.refresh()[0] == 0  # the same package
    domains.more()
    domains.export("--version", "7")
    code, _, err = domains.refresh()
    assert code == 3
    assert "another package of the same version, 7," in err
    domains.export("--version", "8")
    code, _, err = domains.refresh()
    assert (code, "replaces its earlier evidence" in err) == (0, True), err


def test_a_package_that_is_unsigned_or_signed_by_another_key_is_refused(domains):
    domains.export(key=None)
    domains.south()
    code, _, err = domains.step()
    assert code == 3
    assert "it is not signed" in err
    assert not (domains.folder / "south.db").exists()
    domains.run("keygen", "-o", domains.folder / "other.key")
    domains.export(key="other.key")
    code, _, err = domains.step()
    assert code == 3
    assert "another key" in err
    domains.export()
    assert domains.step()[0] == 0
    # Where the study file names no key, a source that was signed stays signed.
    domains.more()
    domains.export(key=None)
    domains.source["signers"] = []
    domains.south()
    code, _, err = domains.refresh()
    assert code == 3
    assert "the last one was signed by" in err
    assert len(domains.decisions("source refused")) == 1


# --- revocations ------------------------------------------------------------------------------


def test_a_revoked_key_withdraws_the_evidence_at_the_next_refresh(domains):
    domains.export()
    domains.south()
    assert domains.step()[0] == 0
    code, _, err = domains.revoke("--key", domains.public)
    assert (code, "is revoked" in err) == (0, True)
    assert "nothing was changed" in domains.revoke("--key", domains.public)[2]
    domains.south(revocations="revoked.json")
    code, _, err = domains.refresh("--dry-run")
    assert code == 3
    assert domains.sources() == ["north"]
    code, _, err = domains.step("--round", 1)
    assert code == 0, err
    assert "source 'north' is withdrawn" in err
    assert "the key was stolen" in err
    assert domains.sources() == []
    (reason,) = domains.decisions("source withdrawn")
    assert "its evidence no longer counts" in reason
    for round_ in (2, 3):  # the study goes on, and says so once
        code, _, err = domains.step("--round", round_)
        assert code == 0, err
    assert len(domains.decisions("source withdrawn")) == 1
    code, _, err = domains.run("inspect", domains.folder / "north.json")
    assert code == 0
    code, _, err = domains.run(
        "verify", domains.folder / "north.json", "--signer", domains.public, "--revocations",
        domains.folder / "revoked.json",
    )  # fmt: skip
    assert code == 3
    assert "was revoked: the key was stolen" in " ".join(err.split())
    code, _, err = domains.run("compare", "-c", domains.folder / "south.yaml",
                               domains.folder / "north.json", "--scope", "feed/eu")  # fmt: skip
    assert code == 3
    assert "was revoked" in err
    # A new key, and a newer package: the domain is learned from again.
    new = domains.run("keygen", "-o", domains.folder / "new.key")[1].strip()
    domains.more()
    domains.export(key="new.key")
    domains.source["signers"] = [new]
    domains.south(revocations="revoked.json")
    code, _, err = domains.refresh()
    assert code == 0, err
    assert domains.sources() == ["north"]
    assert domains.opened().study.verify().ok


def test_a_revoked_package_is_refused_before_a_study_begins_and_withdrawn_after(domains):
    document = domains.export()
    domains.south()
    assert domains.step()[0] == 0
    path = domains.folder / "north.json"
    assert domains.revoke("--package", path, reason="a wrong hour")[0] == 0
    domains.south(revocations="revoked.json")
    code, _, err = domains.refresh()
    assert code == 3
    assert "the package was revoked: a wrong hour" in err
    assert domains.sources() == []
    (domains.folder / "south.db").unlink()
    code, _, err = domains.step()
    assert code == 3
    assert "a wrong hour" in err
    assert not (domains.folder / "south.db").exists()
    domains.more()
    assert domains.export()["sha256"] != document["sha256"]
    assert domains.step()[0] == 0


@pytest.mark.parametrize("spell", [str.upper, lambda s: f"{s[:64]} {s[64:]}"])
def test_a_revoked_package_has_no_other_checksum_by_another_spelling(domains, spell):
    """Whoever has not the key cannot make another file of what was signed."""
    document = domains.export()
    del document["sha256"]
    document["signature"] = spell(document["signature"])
    other = domains.folder / "other.json"
    other.write_text(canonical.text(canonical.sealed(document)))
    with pytest.raises(hz.PackageError, match="its signature cannot be read"):
        package.look(other, signers=[document["signer"]])


def test_a_missing_or_damaged_file_of_revocations_is_an_error(domains):
    domains.export()
    domains.south(revocations="revoked.json")
    code, _, err = domains.step()
    assert code == 3
    assert "the file of revocations" in err
    assert not (domains.folder / "south.db").exists()
    assert domains.revoke("--key", PUBLIC)[0] == 0
    assert domains.step()[0] == 0
    path = domains.folder / "revoked.json"
    path.write_text(path.read_text().replace("a" * 64, "b" * 64))
    code, _, err = domains.step("--round", 1)
    assert code == 3
    assert "what was revoked stays revoked" in err


def test_wrong_revocations_are_refused_and_nothing_is_written(domains):
    path = domains.folder / "revoked.json"
    for options, message in (
        (("--key", "short"), "expected a public key"),
        (("--package", domains.folder / "none.json"), "cannot be read"),
        ((), "one of the two"),
        (("--key", PUBLIC, "--package", "a" * 64), "one of the two"),
    ):
        code, _, err = domains.revoke(*options)
        assert code == 3
        assert message in err
    code, _, err = domains.revoke("--key", PUBLIC, reason=" ")
    assert (code, "give a reason" in err) == (3, True)
    assert not path.exists()
    config = domains.folder / "north.yaml"
    before = config.read_bytes()
    code, _, err = domains.run("revoke", "--list", config, "--key", PUBLIC, "--reason", "r")
    assert (code, config.read_bytes()) == (3, before)
    assert "holds something else" in err


def test_the_loop_withdraws_what_was_revoked(domains):
    domains.export()
    study = hz.StudyConfig.from_file(domains.folder / "south.yaml")
    problem = study.problem()
    tuner = hz.Tuner(problem, study.traffic, None, "south", 3)
    config = SourceConfig(**domains.source)

    def read(history):
        if history.last_round == 1:
            revoke(domains.folder / "revoked.json", domains.public, "stolen")
        is_there = (domains.folder / "revoked.json").exists()
        named = "revoked.json" if is_there else None
        return refresh.read([config], domains.folder, problem, history, revocations=named)

    class Nothing:
        def collect(self, round, plans, missing):
            return Collected()

        def apply(self, plan):
            return None

        def withdraw(self):
            return None

    loop = Loop(tuner, Nothing(), Nothing(), SimulatedClock(0.0), 3600.0, domains=read)
    assert [done.plan is not None for done in loop.run(4)] == [True] * 4
    assert recorded(tuner.history) == ()
    assert [d.kind for d in tuner.decisions].count("source withdrawn") == 1


# --- properties -------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.text(), st.text())
def test_only_the_text_that_was_signed_is_signed(secret, text, other):
    try:
        signature = SigningKey(secret).sign(text)
    except UnicodeEncodeError:
        return
    public = SigningKey(secret).public
    assert is_signed_by(public, text, signature)
    if other != text and other.isascii():
        assert not is_signed_by(public, other, signature)
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    assert not is_signed_by(public, text, flipped)
    assert not is_signed_by(PUBLIC, text, signature)
    assert not is_signed_by(public, text, "not hexadecimal")
    assert secret.hex() not in repr(SigningKey(secret))


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=6))
def test_any_list_of_revocations_is_read_or_refused(tmp_path_factory, entries):
    path = tmp_path_factory.getbasetemp() / "revoked.json"
    document = canonical.sealed({"schema": SCHEMA, "revoked": entries})
    path.write_text(canonical.text(document))
    if entries == []:
        assert Revocations.from_file(path).reasons == {}
        return
    with pytest.raises(hz.PackageError):
        Revocations.from_file(path)


def test_without_cryptography_unsigned_packages_work_and_signed_ones_name_the_extra(
    domains, monkeypatch
):
    domains.export(out="signed.json")
    domains.export(out="plain.json", key=None)
    for name in ("cryptography", "cryptography.hazmat.primitives.asymmetric"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert not package.load(domains.folder / "plain.json", "feed/eu").authentic
    for call in (
        lambda: package.load(domains.folder / "signed.json", "feed/eu"),
        SigningKey.generate,
    ):
        with pytest.raises(hz.MissingExtraError, match="privacy"):
            call()


def test_a_private_key_in_a_study_file_is_not_repeated(domains):
    secret = (domains.folder / "north.key").read_text().strip()
    domains.source["signers"] = [secret]
    domains.south()
    code, out, err = domains.step()
    assert code == 3
    assert secret[20:40] not in out + err
