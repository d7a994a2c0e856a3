"""``transfer.space``: what sources agree does not matter, and where the best settings lie."""

import json
import math

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.transfer import Source, align, translate
from hyperzero_torch.transfer.model.source_posterior import fit_source
from hyperzero_torch.transfer.space_reduction import propose, sensitivities

SPACE = hz.SearchSpace(
    [hz.Float("a", 0.0, 1.0), hz.Float("b", 0.1, 10.0, log=True), hz.Int("n", 1, 9)]
)
BASE = {"a": 0.5, "b": 1.0, "n": 5}
NOISE = 0.002


def problem(space=SPACE, **changes):
    values = {"metrics": ["gain", "guard"], "objective": "gain", "constraints": ["guard >= -50%"]}
    return hz.Problem(space, BASE, **(values | changes))


def gain(x, shift=0.0):
    """Best at a = 0.3 (+ shift); b adds a little, n nothing."""
    return -((x[:, 0] - 0.3 - shift) ** 2) + 0.2 * (x[:, 1] - 0.5)


def source(name, num=40, seed=0, shift=0.0, target=None, noise=NOISE, **changes):
    target = problem() if target is None else target
    space = target.space
    x = space.sobol(num, seed)
    generator = torch.Generator().manual_seed(seed)
    true = torch.stack([gain(x, shift), 0.1 * (x[:, 0] - 0.5)], -1)
    seen = true + noise * torch.randn(true.shape, generator=generator, dtype=torch.float64)
    made = Source(name, space.to_parameters(space.from_unit(x)), ["gain", "guard"], seen,
                  torch.full_like(seen, noise**2), **changes)  # fmt: skip
    return fit_source(align(made, target), target)


def generator():
    return torch.Generator().manual_seed(7)


def test_indices_are_those_of_the_function():
    """Against the analysis of variance of gain, done by hand on the unit cube."""
    indices = {
        (s.parameter, s.metric): s
        for s in sensitivities("A", source("A", num=60), SPACE, generator())
    }
    # Var of (x - 0.3)^2 and of 0.2 x for uniform x.
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    part_a = float(((x - 0.3) ** 2).var())
    part_b = 0.04 / 12
    for parameter, part in (("a", part_a), ("b", part_b)):
        index = indices[parameter, "gain"]
        # 256 points: an index's own Monte Carlo error is about a tenth of it.
        assert index.mean == pytest.approx(part / (part_a + part_b), rel=0.3)
        assert index.low <= index.mean <= index.high
    assert indices["n", "gain"].high < 0.02
    assert indices["a", "guard"].mean == pytest.approx(1.0, abs=0.1)


def test_what_no_source_cares_for_is_fixed_with_reasons():
    target = problem()
    proposal = propose(target, {"A": source("A"), "B": source("B", seed=1)}, generator())
    assert proposal.fixed == {"n": 5}
    assert "n" not in proposal.space.names
    assert set(proposal.base) == set(proposal.space.names)
    low, high = proposal.narrowed["a"]
    assert 0.0 <= low <= 0.3
    assert 0.5 <= high < 0.75  # the base stays inside
    assert [r.parameter for r in proposal.reasons] == ["a", "b", "n"]
    assert {r.parameter: r.what for r in proposal.reasons}["n"] == "fix"
    assert all(r.why for r in proposal.reasons)
    assert len(proposal.sensitivities) == 2 * 3 * 2
    json.dumps(proposal.table())
    smaller = problem_in(proposal)
    point = smaller.space.to_parameters(smaller.space.from_unit(smaller.space.sobol(1, 0)))[0]
    SPACE.theta(proposal.complete(point))  # can be served


def problem_in(proposal):
    return hz.Problem(proposal.space, proposal.base, ["gain", "guard"], "gain", ["guard >= -50%"])


def test_the_problem_itself_is_left_as_it_is():
    target = problem()
    before = repr(target)
    propose(target, {"A": source("A"), "B": source("B", seed=1)}, generator())
    assert repr(target) == before


def test_sources_serve_the_smaller_space_too():
    target = problem()
    proposal = propose(target, {"A": source("A"), "B": source("B", seed=1)}, generator())
    x = SPACE.sobol(20, 3)
    wide = Source("C", SPACE.to_parameters(SPACE.from_unit(x)), ["gain"], torch.zeros(20, 1),
                  torch.ones(20, 1))  # fmt: skip
    smaller = problem_in(proposal)
    with pytest.raises(hz.ConfigError, match="varied 'n'"):
        align(wide, smaller)
    aligned = align(translate(wide, smaller, {}, ignore=proposal.fixed), smaller)
    assert 0 < len(aligned.rows) < 20
    assert aligned.num_outside == 20 - len(aligned.rows)
    with pytest.raises(hz.ConfigError, match="ignore"):
        translate(wide, smaller, {}, ignore=["zeal"])


def test_who_knows_little_rules_out_little():
    target = problem()
    vague = source("B", num=2, noise=1.0)
    proposal = propose(target, {"A": source("A"), "B": vague}, generator())
    assert proposal.fixed == {}
    assert proposal.narrowed == {}
    assert {r.what for r in proposal.reasons} == {"keep"}


def test_what_matters_a_little_is_not_fixed():
    """b has 15 % of the variance of gain, above the 5 % that would be negligible."""
    target = problem()
    for seed in range(8):
        sources = {n: source(n, 24, 2 * seed + i, noise=0.02) for i, n in enumerate("AB")}
        assert "b" not in propose(target, sources, generator()).fixed


def test_sources_that_disagree_keep_the_bounds_open():
    target = problem()
    apart = {"A": source("A", shift=-0.25), "B": source("B", seed=1, shift=0.6)}
    assert "a" not in propose(target, apart, generator()).narrowed


def test_constrained_parameters_and_choices_are_kept():
    space = hz.SearchSpace(
        [*SPACE.parameters, hz.Choice("mode", ["x", "y"])], ["a + 0.01 * n <= 1.05"]
    )
    target = hz.Problem(space, BASE | {"mode": "x"}, ["gain", "guard"], "gain")
    sources = {n: source(n, seed=s, target=target) for n, s in (("A", 0), ("B", 1))}
    proposal = propose(target, sources, generator())
    assert "n" not in proposal.fixed
    assert "names it" in next(r.why for r in proposal.reasons if r.parameter == "n")
    assert proposal.fixed.get("mode", "x") == "x"
    assert proposal.space.constraints == space.constraints


def test_without_every_metric_nothing_is_narrowed():
    target = problem(metrics=["gain", "guard", "clicks"])
    sources = {n: source(n, seed=s, target=target) for n, s in (("A", 0), ("B", 1))}
    proposal = propose(target, sources, generator())
    assert proposal.narrowed == {}
    assert "every metric" in proposal.reasons[0].why
    levels = problem(objective="level(gain)")
    sources = {n: source(n, seed=s, target=levels) for n, s in (("A", 0), ("B", 1))}
    proposal = propose(levels, sources, generator())
    assert "levels" in proposal.reasons[0].why


def test_one_parameter_always_stays():
    target = problem(constraints=[])
    space, x = target.space, target.space.sobol(40, 0)
    flat = Source("A", space.to_parameters(space.from_unit(x)), ["gain", "guard"],
                  torch.zeros(40, 2), torch.full((40, 2), 1e-6))  # fmt: skip
    learned = fit_source(align(flat, target), target)
    proposal = propose(target, {"A": learned, "B": learned}, generator(), negligible=0.999)
    assert len(proposal.space.names) >= 1


def test_questions_that_make_no_sense_are_refused():
    target = problem()
    one = source("A", num=4)
    for sources, how in (
        ({}, {}), ({"A": one}, {}), ({"A": one, "B": one}, {"negligible": 0.0}),
        ({"A": one, "B": one}, {"confidence": math.nan}),
    ):  # fmt: skip
        with pytest.raises(hz.ConfigError):
            propose(target, sources, generator(), **how)


def test_one_setting_is_learned_from_as_little():
    learned = source("A", num=1)
    x = SPACE.sobol(16, 5)
    _, var = learned.posterior.marginal(x)
    assert bool((var > 0).all())
    assert learned.metrics == ("gain", "guard")
