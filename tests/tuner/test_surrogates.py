"""A study with a surrogate that is not the package's own: resumed, refused, and without it."""

import math
import subprocess
import sys

import pytest
import torch
import yaml
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel, SpectralMixtureKernel
from gpytorch.means import LinearMean, ZeroMean
from support.cron_platform import Platform
from support.quadratic_surrogate import Quadratic, QuadraticPosterior
from support.small_study import CONFIG, play, reply

import hyperzero_torch as hz
from hyperzero_torch.report import write_report
from hyperzero_torch.study.findings import findings
from hyperzero_torch.study.health import cards
from hyperzero_torch.study.journal.surrogate_trace import SurrogateChosen
from hyperzero_torch.surrogate.foreign import CheckedPosterior

SPACE = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
PROBLEM = hz.Problem(SPACE, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -5%"])


def kernel(lengthscale=0.5):
    scaled = ScaleKernel(RBFKernel(ard_num_dims=2))
    scaled.base_kernel.lengthscale = lengthscale
    return scaled


def kinds(tuner):
    return [decision.kind for decision in tuner.decisions]


@pytest.mark.parametrize("make", [kernel, Quadratic, lambda: "additive"])
def test_a_resumed_study_makes_the_same_plans(tmp_path, make):
    straight = hz.Tuner(PROBLEM, CONFIG, surrogate=make())
    play(straight, 4)
    url = f"sqlite:///{tmp_path}/study.db"
    hz.Tuner(PROBLEM, CONFIG, url, surrogate=make())
    for _ in range(4):
        tuner = hz.Tuner.resume(url, problem=PROBLEM, surrogate=make())
        tuner.tell(reply(tuner.ask()))
    assert isinstance(tuner.surrogate(), CheckedPosterior)
    plans = [[t.study.plan(r) for r in range(4)] for t in (straight, tuner)]
    for a, b in zip(*plans):
        assert (a.candidate_ids, a.shares, a.parameters) == (
            b.candidate_ids,
            b.shares,
            b.parameters,
        )
    assert straight.recommend() == tuner.recommend()


def test_the_journal_identifies_the_surrogate_and_refuses_another(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner = hz.Tuner(PROBLEM, CONFIG, url, surrogate=kernel())
    trace = tuner.decisions[0].trace
    assert isinstance(trace, SurrogateChosen)
    assert trace.text == "ScaleKernel(RBFKernel)"
    play(tuner, 2)
    num = tuner.history.num_entries
    for other in (None, kernel(0.6), (ZeroMean(), kernel()), "rbf", "matern", Quadratic()):
        with pytest.raises(hz.StudyMismatchError, match=r"ScaleKernel\(RBFKernel\).*the same one"):
            hz.Tuner.resume(url, problem=PROBLEM, surrogate=other)
    tuner = hz.Tuner.resume(url, problem=PROBLEM, surrogate=kernel())
    assert tuner.history.num_entries == num


def test_a_study_without_the_record_goes_on_with_the_default(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    hz.Tuner(PROBLEM, CONFIG, url)
    with pytest.raises(
        hz.StudyMismatchError, match=r"the package's own model.*leave surrogate out"
    ):
        hz.Tuner.resume(url, problem=PROBLEM, surrogate=kernel())
    tuner = hz.Tuner.resume(url, problem=PROBLEM, surrogate="matern")
    assert kinds(tuner) == []


def test_a_built_in_name_need_not_be_repeated(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    play(hz.Tuner(PROBLEM, CONFIG, url, surrogate="rbf"), 2)
    assert isinstance(hz.Tuner.resume(url, problem=PROBLEM).surrogate(), CheckedPosterior)


def network(dims=2, is_trained=False):
    torch.manual_seed(0)

    class Features(RBFKernel):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(dims, 8).requires_grad_(not is_trained)

        def forward(self, x1, x2, diag=False, **params):
            x1, x2 = self.network(x1), self.network(x2)
            return super().forward(x1, x2, diag=diag, **params)

    return ScaleKernel(Features())


def spectral(dims):
    return SpectralMixtureKernel(num_mixtures=4, ard_num_dims=dims)


def of_network(x, y, yvar):
    return SingleTaskGP(x, y, yvar, covar_module=network(), outcome_transform=None)


def card(tuner):
    return next(c for c in cards(tuner.history, tuner.config) if c.name == "Surrogate")


class Doubtful(Quadratic):
    caveat = "not to be relied on for guardrails: it knows one curve"


@pytest.mark.parametrize(
    "surrogate", ["ensemble", network(), spectral, of_network, Doubtful(), lambda: Doubtful()]
)
def test_a_surrogate_with_narrow_intervals_is_warned_of_where_people_look(surrogate, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner = hz.Tuner(PROBLEM, CONFIG, url, surrogate=surrogate)
    assert "not to be relied on for guardrails" in tuner.decisions[0].reason
    for opened in (tuner, hz.Tuner.resume(url, problem=PROBLEM, surrogate=surrogate)):
        assert card(opened).state == "WATCH"
        assert "not to be relied on for guardrails" in card(opened).sentence


def trend(dims):
    return LinearMean(dims), kernel() + ScaleKernel(MaternKernel(ard_num_dims=dims))


@pytest.mark.parametrize("surrogate", [None, kernel(), "additive", trend, network(is_trained=True)])
def test_a_kernel_of_few_parameters_is_not(surrogate):
    tuner = hz.Tuner(PROBLEM, CONFIG, surrogate=surrogate)
    assert not [d for d in tuner.decisions if "relied on" in d.reason]
    assert card(tuner).state == "PASS"


def test_the_card_says_whether_the_last_plan_rests_on_a_fit():
    tuner = hz.Tuner(PROBLEM, CONFIG)
    assert (card(tuner).state, card(tuner).sentence) == ("PASS", "the last plan needed no fit")
    play(tuner, 2)
    assert (card(tuner).state, card(tuner).sentence) == (
        "PASS",
        "the last plan rests on a fit of it",
    )


def test_hyperparameters_that_were_not_used_are_on_the_card():
    tuner = hz.Tuner(PROBLEM, CONFIG, surrogate=network(is_trained=True))
    with pytest.warns(hz.TunerWarning, match="the fit of the kernel failed"):
        play(tuner, 2)
    assert card(tuner).state == "WATCH"
    assert card(tuner).sentence.startswith("the fit of the kernel failed")


def test_a_remark_of_the_same_name_is_a_remark_still():
    tuner = hz.Tuner(PROBLEM, CONFIG)
    with pytest.raises(hz.ConfigError):
        tuner.study.note("surrogate", "a sentence")
    from hyperzero_torch.study.journal import Decision
    from hyperzero_torch.study.journal.trace import Remark

    assert isinstance(Decision(0, "surrogate", "of an old journal", {"text": 3}).trace, Remark)


def test_the_default_is_the_same_with_and_without_the_argument():
    first, second = (hz.Tuner(PROBLEM, CONFIG, surrogate=s) for s in (None, "matern"))
    play(first, 3)
    play(second, 3)
    assert first.journal.read("default") == second.journal.read("default")


class Failing(Quadratic):
    """Fails from a number of rows on, when it is fitted or when it is asked for paths."""

    def __init__(self, rows, at):
        self.rows, self.at = rows, at

    def fit(self, x, mean, var, shared):
        if self.at == "fit" and len(x) >= self.rows:
            raise RuntimeError("singular matrix")
        posterior = super().fit(x, mean, var, shared)
        if self.at == "plan" and len(x) >= self.rows:
            posterior.__class__ = NaNBeyondAHundredPoints
        return posterior


class NaNBeyondAHundredPoints(QuadraticPosterior):
    """Examined at a few points a path is finite."""

    def paths(self, num_paths, generator):
        paths = super().paths(num_paths, generator)
        return lambda x: paths(x) * (math.nan if num_paths > 2 else 1.0)


@pytest.mark.parametrize(("at", "why"), [("fit", "singular matrix"), ("plan", "not finite")])
def test_a_model_that_fails_leaves_the_round_to_the_default(at, why):
    failing = hz.Tuner(PROBLEM, CONFIG, surrogate=Failing(rows=1, at=at))
    default = hz.Tuner(PROBLEM, CONFIG)
    for tuner in (failing, default):
        tuner.tell(reply(tuner.ask()))
    with pytest.warns(hz.TunerWarning, match=rf"Failing was not used: .*{why}.*the default model"):
        plan = failing.ask()
    expected = default.ask()
    assert (plan.candidate_ids, plan.shares) == (expected.candidate_ids, expected.shares)
    assert kinds(failing) == ["surrogate", "fallback"]
    assert card(failing).state == "WATCH"
    assert why in card(failing).sentence
    (finding,) = (f for f in findings(failing.history) if why in f.what)
    assert finding.where == "round 1"
    assert "correct the surrogate" in finding.advice
    failing.tell(reply(plan))
    default.tell(reply(expected))
    if at == "fit":  # what needs no paths is the surrogate's own
        assert failing.recommend() == default.recommend()
        assert failing.explain(1).arms[1].objective == default.explain(1).arms[1].objective
    else:
        assert failing.recommend().candidate_id >= 0


def test_sources_and_another_surrogate_exclude_each_other(tmp_path):
    url = f"sqlite:///{tmp_path}/north.db"
    play(hz.Tuner(PROBLEM, CONFIG, url), 2)
    source = f"{url}#default"
    with pytest.raises(hz.ConfigError, match="cannot learn from other domains, got 1 sources"):
        hz.Tuner(PROBLEM, CONFIG, surrogate="rbf", sources=[source])
    tuner = hz.Tuner(PROBLEM, CONFIG, surrogate="rbf")
    with pytest.raises(hz.ConfigError, match="cannot learn from other domains"):
        tuner.learn_from([source])
    assert kinds(tuner) == ["surrogate"]


def test_goals_change_and_a_saved_state_keeps_the_surrogate():
    tuner = hz.Tuner(PROBLEM, CONFIG, surrogate=kernel())
    play(tuner, 2)
    stricter = hz.Problem(SPACE, PROBLEM.base, ["gain", "guard"], "gain", ["guard >= -1%"])
    assert tuner.change_goals(stricter, reason="a trial", by="ann").changed
    play(tuner, 1)
    with pytest.raises(hz.ConfigError, match=r"the state cannot be used.*the same one"):
        hz.Tuner(stricter, CONFIG, surrogate=kernel(0.9)).load_state_dict(tuner.state_dict())
    other = hz.Tuner(stricter, CONFIG, surrogate=kernel())
    other.load_state_dict(tuner.state_dict())
    assert other.recommend() == tuner.recommend()


def test_goals_with_other_dimensions_are_refused_for_a_kernel_of_fixed_ones():
    def problem(options):
        space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Choice("mode", options)])
        return hz.Problem(space, {"a": 0.4, "mode": "x"}, ["gain"], "gain")

    dims = problem(["x", "y"]).space.num_dims
    fixed = ScaleKernel(RBFKernel(ard_num_dims=dims))
    tuner = hz.Tuner(problem(["x", "y"]), CONFIG, surrogate=fixed)
    with pytest.raises(hz.ConfigError, match=rf"is over {dims} dims"):
        tuner.change_goals(problem(["x", "y", "z"]), reason="a trial", by="ann")
    assert kinds(tuner) == ["surrogate"]
    named = hz.Tuner(problem(["x", "y"]), CONFIG, surrogate="rbf")
    assert named.change_goals(problem(["x", "y", "z"]), reason="a trial", by="ann").changed


def test_a_report_of_such_a_study(tmp_path):
    tuner = hz.Tuner(PROBLEM, CONFIG, surrogate=kernel())
    play(tuner, 8)
    path = write_report(tuner, tmp_path / "report.html")
    assert "length scale" in path.read_text()


def test_gpytorch_is_imported_only_for_a_model_of_its_own():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from support.small_study import *\n"
        "tuner = make(); play(tuner, 2)\n"
        "hz.Tuner(tuner.problem, CONFIG, surrogate='matern')\n"
        "from support.quadratic_surrogate import Quadratic\n"
        "hz.Tuner(tuner.problem, CONFIG, surrogate=Quadratic())\n"
        "print('gpytorch' in sys.modules)\n"
        "hz.Tuner(tuner.problem, CONFIG, surrogate='rbf')\n"
        "print('gpytorch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


FACTORY = """
from gpytorch.kernels import MaternKernel, ScaleKernel

def make(dims):
    return ScaleKernel(MaternKernel(nu=1.5, ard_num_dims=dims))
"""


@pytest.fixture
def platform(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    return platform


def edit(platform, **changes):
    study = yaml.safe_load(platform.config.read_text())
    platform.config.write_text(yaml.safe_dump(study | changes))


def test_a_study_file_names_its_surrogate(platform):
    (platform.folder / "smoother_models.py").write_text(FACTORY)
    edit(platform, surrogate="smoother_models:make")
    for hour in range(3):
        more = () if not hour else ("--readings", platform.readings(platform.plan(hour - 1)))
        code, _, err = platform.step(*more, "--plan", platform.folder / f"plan_{hour}.json")
        assert code == 0, err
    assert "smoother_models:make" in str(platform.journal()["decisions"][0])
    code, _, err = platform.run("status", "-c", platform.config)
    assert code == 0, err

    before = platform.journal()
    for other in ("rbf", None):
        edit(platform, surrogate=other)
        code, _, err = platform.step("--plan", platform.folder / "plan_3.json")
        assert code != 0
        assert "was started with surrogate 'smoother_models:make'" in " ".join(err.split())
    edit(platform, surrogate="cubic")
    code, _, err = platform.run("status", "-c", platform.config)
    assert code != 0
    assert "surrogate 'cubic' is not known; use a name (matern, rbf" in " ".join(err.split())
    assert platform.journal() == before
