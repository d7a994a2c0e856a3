"""``Tuner.resume`` without the problem: the journal has it, where its goals are all strings."""

import pytest
import torch
from support.small_study import CONFIG, play

import hyperzero_torch as hz
from hyperzero_torch.study.journal import MemoryJournal, StudyHeader
from hyperzero_torch.study.journal.sql import SqlJournal


def problem(objective="gain", constraints=("guard >= -5%",), **options):
    space = hz.SearchSpace(
        [hz.Float("a", 0.0, 1.0), hz.Float("b", 0.1, 1.0, log=True), hz.Choice("m", ["x", "y"])],
        ["a + b <= 1.8"],
    )
    base = {"a": 0.4, "b": 0.6, "m": "y"}
    return hz.Problem(space, base, ["gain", "guard"], objective, constraints, **options)


class Gain(torch.nn.Module):
    def forward(self, delta):
        return delta[..., 0]


def gain(delta):
    return delta[..., 0]


def test_a_study_of_strings_goes_on_with_the_journal_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    wanted = problem(
        "gain + 0.5 * level(guard)",
        ["guard >= -5%", hz.Constraint("gain - guard", at_most=0.5, name="apart")],
        base_levels={"gain": 10.0, "guard": 9.0},
    )
    tuner = hz.Tuner(wanted, CONFIG, url, "feed", 7)
    play(tuner, 2)
    again = hz.Tuner.resume(url, "feed")
    assert again.problem.spec() == wanted.spec()
    assert again.seed == 7
    assert again.ask(2) == hz.Tuner.resume(url, "feed", problem=wanted).ask(2)
    assert again.recommend().to_dict() == tuner.recommend().to_dict()


def test_a_long_journal_is_read_once(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    hz.Tuner(problem(), CONFIG, url).ask()
    whole = []
    read = SqlJournal.read

    def counted(journal, study, after=0):
        whole.extend([study] if after == 0 else [])
        return read(journal, study, after)

    monkeypatch.setattr(SqlJournal, "read", counted)
    assert hz.Tuner.resume(url).problem.spec() == problem().spec()
    assert whole == ["default"]


def test_it_goes_on_with_the_goals_in_force():
    journal = MemoryJournal()
    tuner = hz.Tuner(problem(), CONFIG, journal)
    play(tuner, 1)
    tuner.change_goals(problem("gain - guard", ["guard >= -3%"]), reason="narrower")
    assert hz.Tuner.resume(journal).problem.objective_name == "gain - guard"
    assert hz.Tuner.resume(journal).problem.constraint_names == ("guard >= -3%",)


@pytest.mark.parametrize(
    ("objective", "constraints"),
    [
        (gain, ()),  # named like a metric
        (hz.Objective(Gain(), name="gain"), ()),
        ("gain", (hz.Constraint(gain, at_least=-0.05),)),
    ],
)
def test_a_callable_is_refused_by_its_name(objective, constraints):
    journal = MemoryJournal()
    wanted = problem(objective, constraints)
    hz.Tuner(wanted, CONFIG, journal, "feed")
    with pytest.raises(hz.ProblemError, match=r"'gain.*' is a callable.*problem=problem"):
        hz.Tuner.resume(journal, "feed")
    assert hz.Tuner.resume(journal, "feed", problem=wanted).problem.spec() == wanted.spec()


def test_an_older_journal_does_not_say_whether_a_name_is_a_function():
    for objective, is_clear in (("gain", False), ("gain + guard", True)):
        wanted = problem(objective)
        started, journal = MemoryJournal(), MemoryJournal()
        hz.Tuner(wanted, CONFIG, started)
        journal.create(StudyHeader("default", 0, wanted.spec()), started.read("default"))
        if is_clear:
            assert hz.Tuner.resume(journal).problem.spec() == wanted.spec()
        else:
            with pytest.raises(hz.ProblemError, match="'gain' may be a callable"):
                hz.Tuner.resume(journal)
        assert hz.Tuner.resume(journal, problem=wanted).problem.spec() == wanted.spec()


def test_other_goals_need_the_problem():
    journal = MemoryJournal()
    hz.Tuner(problem(), CONFIG, journal)
    with pytest.raises(hz.ProblemError, match="problem="):
        hz.Tuner.resume(journal, change_goals="because")
    with pytest.raises(hz.StudyNotFoundError, match="feed"):
        hz.Tuner.resume(journal, "feed")
