"""Sources named in a study file: read when due, in the study's terms, and never in its way."""

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.transfer_cli import begin, run
from support.transfer_study import reply

import hyperzero_torch as hz
from hyperzero_torch.live import Collected, Loop, SimulatedClock
from hyperzero_torch.study.config import SourceConfig
from hyperzero_torch.study.journal import Decision
from hyperzero_torch.study.journal.trace import SOURCE
from hyperzero_torch.transfer import from_journal, refresh
from hyperzero_torch.transfer.journaled import recorded


def rewrite(config, **changes):
    """A study file with other entries."""
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))


def export(folder, capsys, out="north.json"):
    code, *_ = run(capsys, "export", "-c", folder / "north.yaml", "-o", folder / out,
                   "--expires", "30d", "--scope", "feed/eu")  # fmt: skip
    assert code == 0


@pytest.fixture
def folder(tmp_path):
    begin(tmp_path, "north", 4, 1)
    begin(tmp_path, "south", 0, 3)
    return tmp_path


def opened(folder):
    study = hz.StudyConfig.from_file(folder / "south.yaml")
    return hz.Tuner.resume(study.journal_url(folder), "south", problem=study.problem())


def test_a_study_begins_with_the_sources_of_its_file(folder, capsys):
    export(folder, capsys)
    entries = [
        "sqlite:///north.db#north",
        {"source": "north.json", "scope": "feed/eu", "name": "as package",
         "map": {"a": {"name": "a", "factor": 1.0}}},
    ]  # fmt: skip
    rewrite(folder / "south.yaml", sources=entries[:1])
    code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
    assert code == 0, err
    assert [s.name for s in recorded(opened(folder).history)] == ["north"]
    # The package holds the very same evidence.
    rewrite(folder / "south.yaml", sources=entries)
    code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
    assert code == 3
    assert "count twice" in err


def test_nothing_is_started_where_a_source_cannot_be_used(folder, capsys):
    for entry, message in [
        ("sqlite:///nowhere.db#north", "nowhere.db"),
        ("sqlite:///north.db#west", "west"),
        ({"source": "no.json", "scope": "feed/eu"}, "no.json"),
        ({"source": "sqlite:///north.db#north", "map": {"a": "zeal"}}, "zeal"),
        ({"source": "no.json", "scope": "s", "key_env": "A_VARIABLE"}, "no longer signed"),
        ({"source": "no.json", "scope": "s", "signers": ["ed25519:12"]}, "64 hexadecimal"),
    ]:
        rewrite(folder / "south.yaml", sources=[entry])
        code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
        assert code in (3, 4)
        assert message in err
        assert not (folder / "south.db").exists()


def test_a_running_study_does_not_wait_for_other_peoples_files(folder, capsys):
    export(folder, capsys)
    entry = {"source": "north.json", "scope": "feed/eu", "refresh": 2}
    rewrite(folder / "south.yaml", sources=[entry])
    assert run(capsys, "-c", folder / "south.yaml", group="step")[0] == 0
    (folder / "north.json").unlink()
    for round_ in (1, 2):
        code, _, err = run(capsys, "-c", folder / "south.yaml", "--round", round_, group="step")
        assert code == 0
        assert "stays as it was read" not in err  # not due before round 2 is planned
    code, _, err = run(capsys, "-c", folder / "south.yaml", "--round", 3, group="step")
    assert code == 0
    assert err.count("stays as it was read") == 1
    code, _, err = run(capsys, "-c", folder / "south.yaml", "--round", 4, group="step")
    assert "stays as it was read" not in err  # asked once in so many rounds
    assert [s.name for s in recorded(opened(folder).history)] == ["north"]


def test_a_source_is_read_anew_when_it_is_due_and_after_an_alarm(folder, capsys):
    config = SourceConfig(source="sqlite:///north.db#north", refresh=3)
    study = hz.StudyConfig.from_file(folder / "south.yaml")
    problem = study.problem()
    tuner = hz.Tuner(problem, study.traffic, None, "south", 3)

    def due(every=3):
        changed = config.model_copy(update={"refresh": every})
        return refresh.read([changed], folder, problem, tuner.history).sources

    tuner.learn_from(due())
    assert due() == ()
    for _ in range(4):
        tuner.tell(reply(tuner, tuner.ask()))
    assert [s.name for s in due()] == ["north"]
    assert due(2) == due(None) == due(100) == ()
    tuner.learn_from(due())
    entries = [d for d in tuner.history.decisions if d.kind == SOURCE]
    assert len(entries) == 1  # the same evidence is written once
    alarm = Decision(3, "drift", "an alarm", {"metrics": [0], "before": 2, "factor": 0.5})
    history = tuner.history.branch()
    history.extend([alarm])
    assert len(refresh.read([config.model_copy(update={"refresh": 100})], folder, problem, history)
               .sources) == 1  # fmt: skip


def test_two_sources_of_one_name_are_told_apart_or_refused(folder, capsys):
    begin(folder, "west", 3, 5)
    rewrite(folder / "west.yaml", study="north", journal="sqlite:///west.db")
    study = hz.StudyConfig.from_file(folder / "west.yaml")
    tuner = hz.Tuner(study.problem(), study.traffic, study.journal_url(folder), "north", 5)
    for _ in range(3):
        tuner.tell(reply(tuner, tuner.ask()))
    twice = ["sqlite:///north.db#north", "sqlite:///west.db#north"]
    rewrite(folder / "south.yaml", sources=twice)
    code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
    assert code == 3
    assert "give each its own 'name'" in err
    assert not (folder / "south.db").exists()
    rewrite(folder / "south.yaml", sources=[twice[0], {"source": twice[1], "name": "west"}])
    assert run(capsys, "-c", folder / "south.yaml", group="step")[0] == 0


def test_a_study_is_no_source_of_its_own(folder, capsys):
    assert run(capsys, "-c", folder / "south.yaml", group="step")[0] == 0
    for source in ("sqlite:///south.db#south", f"sqlite:///{folder}/south.db#south"):
        tuner = opened(folder)
        tuner.tell(reply(tuner, tuner.ask()))
        before = opened(folder).history.num_entries
        rewrite(folder / "south.yaml", sources=[{"source": source, "name": "another"}])
        code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
        assert code == 3
        assert "this study itself" in err
        assert opened(folder).history.num_entries == before
    # By way of a package it is the evidence that tells.
    own = from_journal(f"sqlite:///{folder}/south.db#south", "copy")
    with pytest.raises(hz.ConfigError, match="evidence as the target"):
        opened(folder).learn_from([replace(own, origin="")])


def test_a_refreshed_source_that_would_count_twice_stays_as_it_was(folder, capsys):
    export(folder, capsys)
    both = [
        "sqlite:///north.db#north",
        {"source": "old.json", "scope": "feed/eu", "refresh": 1},
    ]
    begin(folder, "east", 3, 2)
    code, *_ = run(capsys, "export", "-c", folder / "east.yaml", "-o", folder / "old.json",
                   "--expires", "30d", "--scope", "feed/eu")  # fmt: skip
    assert code == 0
    rewrite(folder / "south.yaml", sources=both)
    for round_ in range(2):
        code, *_ = run(capsys, "-c", folder / "south.yaml", "--round", round_, group="step")
        assert code == 0
    export(folder, capsys, "old.json")  # the journal's evidence once more
    code, _, err = run(capsys, "-c", folder / "south.yaml", "--round", 2, group="step")
    assert code == 0
    assert "would count twice" in err


def test_what_is_missing_in_an_entry_is_said(folder, capsys):
    for entries, message in [
        (["sqlite:///north.db"], "'#' and the study's name are missing"),
        ([{"source": "sqlite:///north.db", "scope": "feed/eu"}], "study's name are missing"),
        ("sqlite:///north.db#north", "sources: expected a list of sources, e.g."),
        ({"source": "sqlite:///north.db#north"}, "expected a list of sources"),
        (None, "expected a list of sources"),
        (["north.json"], "name the use under 'scope'"),
    ]:
        rewrite(folder / "south.yaml", sources=entries)
        code, _, err = run(capsys, "-c", folder / "south.yaml", group="step")
        assert code == 3
        assert message in " ".join(err.split())


def test_passwords_are_told_to_nobody(folder, capsys, tmp_path):
    secret = "postgresql://me:s3cret@127.0.0.1:1/none#north"
    for entry in (secret, {"source": secret, "scope": "x"}, {"source": secret[:-6], "scope": 3}):
        rewrite(folder / "south.yaml", sources=[entry])
        code, out, err = run(capsys, "-c", folder / "south.yaml", group="step")
        assert code in (3, 4)
        assert "s3cret" not in out + err
    assert "s3cret" not in repr(SourceConfig(source=secret))


def test_what_the_file_says_of_a_source_holds_wherever_it_is_named_from(
    folder, capsys, monkeypatch
):
    export(folder, capsys)
    swap = {"a": "b", "b": "a"}
    begin(folder, "east", 4, 2)
    entries = [{"source": "north.json", "scope": "feed/eu", "map": swap}, "sqlite:///east.db#east"]
    rewrite(folder / "south.yaml", sources=entries)
    answers = []
    for where, name in ((folder, "north.json"), (folder.parent, folder / "north.json")):
        monkeypatch.chdir(where)
        code, out, err = run(capsys, "compare", "-c", folder / "south.yaml", name,
                             f"sqlite:///{folder}/east.db#east", "--json")  # fmt: skip
        assert code == 0, err
        answers.append(json.loads(out)["pairs"])
    rewrite(folder / "south.yaml", sources=[])
    given = (folder / "north.json", f"sqlite:///{folder}/east.db#east", "--scope", "feed/eu")
    code, out, _ = run(capsys, "compare", "-c", folder / "south.yaml", *given, "--json")
    assert answers[0] == answers[1] != json.loads(out)["pairs"]


def test_the_file_serves_where_a_command_names_no_source(folder, capsys):
    rewrite(folder / "south.yaml", sources=["sqlite:///north.db#north"])
    begin(folder, "east", 4, 2)
    code, out, err = run(capsys, "compare", "-c", folder / "south.yaml",
                         f"sqlite:///{folder}/north.db#north", f"sqlite:///{folder}/east.db#east",
                         "--json")  # fmt: skip
    assert code == 0, err
    rewrite(folder / "south.yaml", sources=["sqlite:///north.db#north", "sqlite:///east.db#east"])
    code, alone, err = run(capsys, "compare", "-c", folder / "south.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["pairs"] == json.loads(alone)["pairs"]
    assert not (folder / "south.db").exists()


def test_a_changed_map_counts_as_soon_as_the_sources_are_refreshed(folder, capsys):
    export(folder, capsys)
    where = ("-c", folder / "south.yaml")
    entry = {"source": "north.json", "scope": "feed/eu", "name": "north"}
    rewrite(folder / "south.yaml", sources=[entry])
    assert run(capsys, *where, group="step")[0] == 0
    first = opened(folder).history
    code, _, err = run(capsys, "refresh", *where)
    assert (code, "no source has changed" in err) == (0, True)
    rewrite(folder / "south.yaml", sources=[entry | {"map": {"a": {"name": "a", "factor": 0.5}}}])
    code, _, err = run(capsys, "refresh", *where, "--dry-run")
    assert code == 0
    assert err.startswith("dry run: ")
    assert opened(folder).history.num_entries == first.num_entries
    code, _, err = run(capsys, "refresh", *where)
    assert (code, "replaces" in err) == (0, True)
    history = opened(folder).history
    assert history.num_entries == first.num_entries + 1
    was, now = (recorded(h)[0].parameters for h in (first, history))
    assert [row["a"] for row in now] == pytest.approx([0.5 * row["a"] for row in was])


def test_what_cannot_be_refreshed_stays_and_is_an_error(folder, capsys):
    where = ("-c", folder / "south.yaml")
    code, _, err = run(capsys, "refresh", *where)
    assert (code, "names no sources" in err) == (3, True)
    export(folder, capsys)
    rewrite(folder / "south.yaml", sources=[{"source": "north.json", "scope": "feed/eu"}])
    assert run(capsys, *where, group="step")[0] == 0
    before = opened(folder).history
    (folder / "north.json").write_text("{}")
    code, _, err = run(capsys, "refresh", *where)
    assert code == 3
    assert "stays as it was read" in err
    assert opened(folder).history.num_entries == before.num_entries


def test_an_expert_overrules_by_command(folder, capsys):
    rewrite(folder / "south.yaml", sources=["sqlite:///north.db#north"])
    assert run(capsys, "-c", folder / "south.yaml", group="step")[0] == 0
    where = ("-c", folder / "south.yaml", "--reason", "another app")
    code, _, err = run(capsys, "overrule", *where, "--discount", "north=0.5", "--dry-run")
    assert code == 0
    assert "nothing was written" in err
    before = opened(folder).history.num_entries
    code, _, err = run(capsys, "overrule", *where, "--discount", "north=0.5",
                       "--forbid", "north:b")  # fmt: skip
    assert code == 0
    assert "counts from the next plan on" in err
    assert opened(folder).history.num_entries == before + 1
    code, _, err = run(capsys, "overrule", *where, "--forbid", "north")
    assert "no longer holds: discount north" in err
    assert "no longer holds: forbid north:b" in err
    for wrong, message in [
        (("--forbid", "west"), "no source 'west'"),
        (("--forbid", "north:zeal"), "no parameter 'zeal'"),
        (("--pin", "north"), "SOURCE=NUMBER"),
        (("--pin", "north=2"), "[0, 1]"),
        (("--pin", "north=0.5", "--forbid", "north"), "named more than once"),
        (("--pin", "north=0.5", "--pin", "north=0.9"), "name it once"),
        (("--reason", " ", "--forbid", "north"), "needs a reason"),
    ]:
        code, _, err = run(capsys, "overrule", *where, *wrong)
        assert code == 3
        assert message in err
    assert opened(folder).history.num_entries == before + 2


def test_the_loop_reads_them_when_they_are_due_and_goes_on_where_it_cannot(folder):
    study = hz.StudyConfig.from_file(folder / "south.yaml")
    problem = study.problem()
    config = SourceConfig(source="sqlite:///north.db#north", refresh=1)
    asked = []

    def domains(history):
        asked.append(history.last_round)
        if history.last_round == 1:
            raise hz.JournalError("the other team's database is away")
        return refresh.read([config], folder, problem, history)

    class Nothing:
        def collect(self, round, plans, missing):
            return Collected()

        def apply(self, plan):
            return None

        def withdraw(self):
            return None

    tuner = hz.Tuner(problem, study.traffic, None, "south", 3)
    loop = Loop(tuner, Nothing(), Nothing(), SimulatedClock(0.0), 3600.0, domains=domains)
    done = list(loop.run(4))
    assert [one.plan is not None for one in done] == [True] * 4
    assert asked[0] is None
    assert len([d for d in tuner.history.decisions if d.kind == SOURCE]) == 1
    assert any("database is away" in note for one in done for note in one.notes)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
        | st.sampled_from(["a.json", "sqlite:///x.db#y", "#", ":"]),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["source", "name", "scope", "map", "ignore", "refresh", "x"]),
            inner, max_size=4,
        ),
        max_leaves=8,
    )
)  # fmt: skip
def test_anything_under_sources_is_an_entry_or_one_error_of_ours(entry):
    values = {
        "parameters": [{"kind": "float", "name": "a", "low": 0.0, "high": 1.0}],
        "base": {"a": 0.4}, "metrics": ["gain"], "objective": "gain", "sources": [entry],
    }  # fmt: skip
    try:
        study = hz.StudyConfig(**values)
    except hz.ConfigError:
        return
    assert all(one.source for one in study.sources)
