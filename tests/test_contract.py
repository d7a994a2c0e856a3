"""The public contract, used as its document writes it."""

import io

import pytest
import torch

import hyperzero_torch as hz


def feed_problem(**changes):
    space = hz.SearchSpace(
        [
            hz.Float("w_click", 0.0, 1.0),
            hz.Float("w_share", 0.1, 10.0, log=True),
            hz.Int("depth", 1, 8),
            hz.Choice("mode", ["a", "b"]),
        ]
    )
    arguments = {
        "space": space,
        "base": {"w_click": 0.2, "w_share": 1.0, "depth": 3, "mode": "a"},
        "metrics": ["views", "watch_time", "unfollowed"],
        "objective": "views",
        "constraints": [
            "watch_time >= -0.1%",
            "level(unfollowed) <= 10%",
            hz.Constraint(lambda delta: delta[..., 0] + 1.0, at_least=0.0),
        ],
    }
    return hz.Problem(**(arguments | changes))


LEVEL = torch.tensor([30.0, 12.0, 0.08], dtype=torch.float64)


def hour(plan, scale=1.0, seed=0, lift=0.05):
    """Readings of a whole plan: views rise with w_click, watch time falls with it."""
    generator = torch.Generator().manual_seed(1000 * seed + plan.round)
    click = plan.theta[:, 0] - 0.2
    true = torch.stack([lift * click, -0.02 * click, 0.0 * click], dim=-1)
    count = (torch.tensor(plan.shares, dtype=torch.float64) * 1e5).round()
    std = LEVEL * 0.8
    noise = torch.randn(true.shape, generator=generator, dtype=torch.float64)
    mean = LEVEL * (1 + true) + std / count.sqrt().unsqueeze(-1) * noise
    return hz.Readings(
        round=plan.round,
        candidate_ids=list(plan.candidate_ids),
        count=count,
        mean=mean * scale,
        var=(std * scale).square().expand_as(mean),
    )


SMALL = hz.TunerConfig(num_draws=64, num_samples=256, num_proposals=2, initial_candidates=16)


def drive(tuner, rounds, scale=1.0):
    plans = []
    for _ in range(rounds):
        plan = tuner.ask()
        plans.append(plan)
        tuner.tell(hour(plan, scale))
    return plans


def test_a_plan_has_what_a_platform_needs():
    tuner = hz.Tuner(feed_problem(), config=SMALL, seed=0)
    for plan in drive(tuner, 4):
        assert plan.candidate_ids[0] == 0
        assert list(plan.candidate_ids) == sorted(set(plan.candidate_ids))
        arms = len(plan.candidate_ids)
        assert len(plan.parameters) == len(plan.slots) == len(plan.shares) == arms
        assert plan.theta.shape == (arms, 4)
        assert sum(plan.shares) == pytest.approx(1.0, abs=1e-12)
        assert min(plan.shares) > 0
        assert plan.slots[0] == 0
        assert min(plan.slots[1:]) >= 1
        assert plan.parameters[0] == {"w_click": 0.2, "w_share": 1.0, "depth": 3, "mode": "a"}
        for parameters, theta in zip(plan.parameters, plan.theta):
            assert parameters["mode"] in ("a", "b")
            assert isinstance(parameters["depth"], int)
            assert 0.1 <= parameters["w_share"] <= 10.0
            assert torch.equal(tuner.problem.space.theta(parameters), theta)


def test_asking_again_gives_the_same_plan():
    tuner = hz.Tuner(feed_problem(), config=SMALL)
    first = tuner.ask()
    tuner.tell(hour(first))
    assert tuner.ask(0) == first
    assert tuner.ask(first.round) == first
    second = tuner.ask()
    assert second.round == 1
    assert second != first


def test_recommend_finds_the_better_side_and_says_why():
    tuner = hz.Tuner(feed_problem(constraints=["watch_time >= -5%"]), config=SMALL)
    drive(tuner, 12)
    for criterion in ("lcb", "mean", "ucb"):
        best = tuner.recommend(criterion=criterion)
        assert best.candidate_id > 0
        assert best.parameters["w_click"] > 0.6
        assert best.objective_lcb < best.objective_mean < best.objective_ucb
        assert 0.9 <= best.prob_feasible <= 1.0
        assert best.criterion == criterion
        assert best.num_rounds > 0
        assert best.objective_base == 0.0
        assert abs(best.objective_mean - 0.05 * (best.parameters["w_click"] - 0.2)) < 0.015
    with pytest.raises(hz.ConfigError, match="median"):
        tuner.recommend(criterion="median")


def test_posterior_at_any_theta_in_every_form():
    tuner = hz.Tuner(feed_problem(), config=SMALL)
    with pytest.raises(hz.RoundError, match="no posterior yet"):
        tuner.posterior({"w_click": 0.2, "w_share": 1.0, "depth": 3, "mode": "a"})
    drive(tuner, 3)
    parameters = {"w_click": 0.9, "w_share": 1.0, "depth": 3, "mode": "a"}
    mean, var = tuner.posterior(parameters)
    assert mean.shape == var.shape == (3,)
    assert bool((var > 0).all())
    theta = tuner.problem.space.theta(parameters)
    forms = ((theta, (3,)), (theta.expand(2, 5, 4), (2, 5, 3)), ([parameters] * 6, (6, 3)))
    for form, shape in forms:
        again, _ = tuner.posterior(form)
        assert again.shape == shape
        assert torch.allclose(again, mean.expand_as(again))
    with pytest.raises(hz.SpaceError, match="w_click"):
        tuner.posterior(parameters | {"w_click": 7.0})
    for wrong, name in (([7.0, 1, 3, 0], "w_click"), ([0.5, -1, 3, 0], "w_share"),
                        ([0.5, 1, 2.5, 0], "depth"), ([0.5, 1, 3, 7], "mode")):  # fmt: skip
        with pytest.raises(hz.SpaceError, match=name):
            tuner.posterior(torch.tensor([wrong]))


def test_the_base_is_known_to_be_itself():
    tuner = hz.Tuner(feed_problem(), config=SMALL)
    drive(tuner, 3)
    mean, var = tuner.posterior(tuner.problem.base)
    elsewhere = tuner.posterior(tuner.problem.base | {"w_click": 0.9})[1]
    assert bool((mean.abs() < 1e-3).all())
    assert bool((var < 0.1 * elsewhere).all())


@pytest.fixture(scope="module")
def in_our_units():
    """A problem; configurations, and the plans of six rounds under each."""
    problem = feed_problem(constraints=["watch_time >= -1%"])
    paper = hz.TunerConfig.paper(num_draws=64, num_samples=128, initial_candidates=36)
    return problem, [(c, drive(hz.Tuner(problem, config=c), 6)) for c in (SMALL, paper)]


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_rescaled_metric_gives_the_same_plans(in_our_units, factor):
    """Cents or dollars, seconds or days: a unit must not decide anything."""
    plain, plans = in_our_units
    for config, ours in plans:
        scaled = drive(hz.Tuner(plain, config=config), 6, scale=factor)
        for a, b in zip(ours, scaled):
            assert a.candidate_ids == b.candidate_ids
            assert a.slots == b.slots
            assert a.shares == pytest.approx(b.shares, rel=1e-12)
            assert torch.equal(a.theta, b.theta)


def test_an_objective_that_the_base_has_not_still_finds_the_best():
    ratio = feed_problem(objective="views / abs(watch_time)", constraints=[])
    tuner = hz.Tuner(ratio, config=SMALL)
    drive(tuner, 4)
    assert tuner.recommend("mean").candidate_id > 0


def test_a_study_knows_its_problem_down_to_the_bounds():
    journal = hz.MemoryJournal()

    def problem(bound, levels=None):
        guard = hz.Constraint("watch_time", at_least=bound, name="guard")
        return feed_problem(constraints=[guard], base_levels=levels)

    hz.Tuner(problem(0), journal=journal)
    hz.Tuner(problem(0.0), journal=journal)
    with pytest.raises(hz.StudyMismatchError, match="guard"):
        hz.Tuner(problem(-0.5), journal=journal)
    with pytest.raises(hz.StudyMismatchError, match="base_levels"):
        hz.Tuner(problem(0, [1.0, 2.0, 3.0]), journal=journal)


def test_levels_come_from_the_control_where_nobody_knows_them():
    problem = feed_problem(constraints=["level(unfollowed) <= 10%"])
    tuner = hz.Tuner(problem, config=SMALL)
    drive(tuner, 3)
    assert torch.allclose(tuner.bucket().base_levels, LEVEL, rtol=0.02)
    assert tuner.recommend("mean").prob_feasible > 0.9
    strict = hz.Tuner(feed_problem(constraints=["level(unfollowed) <= 7%"]), config=SMALL)
    with pytest.warns(hz.TunerWarning, match="violate least"):
        drive(strict, 3)
    best = strict.recommend()
    assert best.candidate_id == 0
    assert "no candidate reaches" in best.reason


def test_state_loads_with_weights_only():
    tuner = hz.Tuner(feed_problem(), config=SMALL, seed=5)
    drive(tuner, 3)
    file = io.BytesIO()
    torch.save(tuner.state_dict(), file)
    file.seek(0)
    other = hz.Tuner(feed_problem(), config=SMALL)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.seed == 5
    assert other.ask() == tuner.ask()


def test_resume_of_a_study_that_is_not_there(tmp_path):
    with pytest.raises(hz.StudyNotFoundError, match="feed"):
        hz.Tuner.resume(hz.MemoryJournal(), study="feed", problem=feed_problem())
    with pytest.raises(hz.StudyNotFoundError, match="no journal"):
        hz.Tuner.resume(f"sqlite:///{tmp_path}/study.db", study="feed", problem=feed_problem())
    assert not list(tmp_path.iterdir())


def test_kernels_stand_alone():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, 2, generator=generator, dtype=torch.float64) + 5.0
    arm = torch.randint(0, 3, (5000,), generator=generator)
    whole = hz.moments.summarise(values, arm, 3)
    half = hz.moments.summarise(values[:2500], arm[:2500], 3)
    rest = hz.moments.subtract(whole, half)
    for a, b in zip(hz.moments.merge(half, rest), whole):
        assert torch.allclose(a, b)
    control = hz.moments.Moments(*(field[:1] for field in whole))
    delta = hz.delta.ratio(whole, control)
    evidence = hz.Evidence(3, 2)
    evidence.update(torch.arange(3), delta, whole.count)
    assert evidence.mean.shape == evidence.var.shape == evidence.weight.shape == (3, 2)

    x = torch.rand(60, 4, generator=generator, dtype=torch.float64)
    mean = torch.stack([0.1 * x[:, 0], -0.02 * x[:, 0]], dim=-1)
    posterior = hz.Surrogate().fit(x, mean, torch.full_like(mean, 1e-6))
    at = torch.rand(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mean_at, var_at = posterior.marginal(at)
    assert mean_at.shape == var_at.shape == (7, 2)
    paths = posterior.paths(5, generator=generator)
    drawn = paths(at)
    assert drawn.shape == (5, 7, 2)
    drawn.sum().backward()
    assert bool(at.grad.isfinite().all())

    space = hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in "abcd"])
    problem = hz.Problem(space, dict.fromkeys("abcd", 0.5), ["up", "down"], "up", ["down >= -1.5%"])
    selection = hz.thompson.select(mean_at.detach(), var_at.detach(), problem, 100, generator)
    assert selection.counts.shape == (7,)
    assert int(selection.counts.sum()) == 100
    proposals = hz.thompson.propose(posterior, problem, 500, 15, generator=generator)
    assert proposals.x.shape == (15, 4)
    # More is better, up to the guardrail at 0.75; a single draw may think otherwise.
    assert 0.5 < float(proposals.x[:, 0].median()) < 0.85


def test_a_neural_objective_on_the_way_through():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1), torch.nn.Flatten(-2)
    )
    tuner = hz.Tuner(feed_problem(objective=network, constraints=[]), config=SMALL)
    drive(tuner, 3)
    assert tuner.recommend("mean").objective_mean == pytest.approx(
        float(network(torch.zeros(1, 3)).detach()), abs=0.2
    )


def test_an_objective_that_draws_numbers_of_its_own_is_refused():
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1), torch.nn.Flatten(-2)
    )
    before = torch.random.get_rng_state()
    with pytest.raises(hz.ProblemError, match=r"needs \.eval\(\)"):
        feed_problem(objective=network, constraints=[])
    assert torch.equal(torch.random.get_rng_state(), before)
    feed_problem(objective=network.eval(), constraints=[])


def test_paper_is_the_paper():
    paper = hz.TunerConfig.paper()
    assert (paper.num_draws, paper.num_samples, paper.num_proposals) == (1000, 600, 1)
    assert (paper.draws, paper.evidence, paper.weights) == ("marginal", "own", "users")
    assert not paper.shared_control
    assert not paper.anchor
    assert hz.TunerConfig.paper(num_draws=7).num_draws == 7


def test_configuration_from_files_and_its_errors(tmp_path):
    (tmp_path / "a.yaml").write_text("num_draws: 10\ncontrol_share: 0.2\n")
    (tmp_path / "a.json").write_text('{"num_draws": 10, "control_share": 0.2}')
    for name in ("a.yaml", "a.json"):
        assert hz.TunerConfig.from_file(tmp_path / name) == hz.TunerConfig(
            num_draws=10, control_share=0.2
        )
    for text, says in (
        ("num_drawz: 10", "num_drawz"),
        ("num_draws: 0", "num_draws"),
        ("control_share: 1.0", "control_share"),
        ("draws: joint\nevidence: own", "covariance"),
        ("- 1", "mapping"),
        ("a: [", "not valid"),
    ):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(hz.ConfigError, match=says):
            hz.TunerConfig.from_file(tmp_path / "b.yaml")
    with pytest.raises(hz.ConfigError, match="missing"):
        hz.TunerConfig.from_file(tmp_path / "missing.yaml")
    with pytest.raises(hz.ConfigError):
        hz.TunerConfig(num_draws=float("nan"))
    with pytest.raises(hz.ConfigError, match="device"):
        hz.Tuner(feed_problem(), device="no-such-device")


def test_levels_that_rest_on_part_of_a_day_are_said_to():
    tuner = hz.Tuner(feed_problem(constraints=["level(unfollowed) <= 10%"]), config=SMALL)
    drive(tuner, 3)
    assert "base levels rest on 3 of 24 hours of the day" in tuner.recommend().reason
    for constraints in (["unfollowed <= 5%"], []):  # nothing sees levels
        plain = hz.Tuner(feed_problem(constraints=constraints), config=SMALL)
        drive(plain, 3)
        assert "hours of the day" not in plain.recommend().reason
    short = SMALL.model_copy(update={"rounds_per_day": 3})
    whole = hz.Tuner(feed_problem(constraints=["level(unfollowed) <= 10%"]), config=short)
    drive(whole, 3)
    assert "hours of the day" not in whole.recommend().reason


@pytest.mark.filterwarnings("ignore:.*Sample ratio mismatch")  # counts are the same for all arms
def test_hours_of_levels_are_those_in_which_the_rarest_metric_came():
    tuner = hz.Tuner(feed_problem(constraints=["level(unfollowed) <= 10%"]), config=SMALL)
    for round_ in range(3):
        plan = tuner.ask()
        names = tuner.problem.metrics if round_ == 0 else tuner.problem.metrics[:1]
        width = len(names)
        level = torch.tensor([LEVEL[tuner.problem.metrics.index(n)] for n in names])
        mean = level.expand(len(plan), width) * (1 + 0.001 * torch.arange(len(plan))[:, None])
        tuner.tell(
            hz.Readings(plan.round, plan.candidate_ids, [500] * len(plan), mean, mean**2,
                        metrics=names)
        )  # fmt: skip
    assert tuner.bucket().level_hours == 1
    assert "rest on 1 of 24 hours" in tuner.recommend().reason
