"""What has buffers is a module: it moves, saves, loads without pickle, compiles, checkpoints."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter

import hyperzero_torch as hz
from hyperzero_torch.stats.delta import Delta

f64 = torch.float64


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


def some_data(n=14, metrics=3, dims=2, seed=0):
    """Points, deltas of which one is missing, their variances, and a shared part of these."""
    x, mean = rand(n, dims, seed=seed), rand(n, metrics, seed=seed + 1)
    mean[n // 2, 0] = torch.nan
    var = 0.01 + 0.02 * rand(n, metrics, seed=seed + 2)
    loading = 0.05 * rand(metrics, n, 2, seed=seed + 3)
    return x, mean, var, loading @ loading.mT


def fitted(shared=True, **sizes):
    x, mean, var, common = some_data(**sizes)
    surrogate = hz.Surrogate()
    return surrogate, surrogate.fit(x, mean, var, common if shared else None)


def streamed(candidates=5, metrics=3):
    evidence = hz.Evidence(candidates, metrics)
    evidence.update(torch.arange(4), Delta(rand(4, metrics), rand(4, metrics)), 1 + rand(4))
    return evidence


class Utility(nn.Module):
    """A small neural objective."""

    def __init__(self, metrics=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(metrics, 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("unit", torch.full((metrics,), 2.0))

    def forward(self, delta):
        return self.layers(delta / self.unit).squeeze(-1)


def a_problem(objective):
    return hz.Problem(
        space=hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)]),
        base={"a": 0.5, "b": 0.5},
        metrics=["x", "y", "z"],
        objective=objective,
        constraints=["z >= -50%"],
    )


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


MODULES = {
    "evidence": streamed,
    "surrogate": lambda: fitted()[0],
    "posterior": lambda: fitted()[1],
    "posterior without shared noise": lambda: fitted(shared=False)[1],
    "objective": Utility,
}
# Modules of the same sizes that hold something else.
OTHERS = {
    "evidence": lambda: hz.Evidence(5, 3),
    "surrogate": lambda: fitted(seed=9)[0],
    "posterior": lambda: fitted(seed=9)[1],
    "posterior without shared noise": lambda: fitted(shared=False, seed=9)[1],
    "objective": lambda: Utility().double().float().requires_grad_(False),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_state_dict_is_plain_tensors_that_load_without_pickle(name):
    module, other = MODULES[name](), OTHERS[name]()
    state = module.state_dict()
    assert state
    assert all(type(value) is torch.Tensor for value in state.values())
    other.load_state_dict(through_a_file(state))
    assert equal(other.state_dict(), state)


@pytest.mark.parametrize("name", MODULES)
def test_everything_moves(name):
    """To a device that every machine has: one that holds shapes and no numbers."""
    moved = MODULES[name]().to("meta")
    tensors = [*moved.parameters(), *moved.buffers()]
    assert tensors
    assert {t.device.type for t in tensors} == {"meta"}
    assert not [
        attribute
        for attribute in vars(moved).values()
        if isinstance(attribute, torch.Tensor) and attribute.device.type != "meta"
    ]


@pytest.mark.parametrize("name", MODULES)
def test_a_distributed_checkpoint_brings_back_every_bit(name, tmp_path):
    module, other = MODULES[name](), OTHERS[name]()
    with warnings.catch_warnings():  # that there is a single process is meant
        warnings.simplefilter("ignore")
        dcp.save({"part": module.state_dict()}, checkpoint_id=tmp_path)
        state = {"part": copy.deepcopy(other.state_dict())}
        dcp.load(state, checkpoint_id=tmp_path)
    other.load_state_dict(state["part"])
    assert equal(other.state_dict(), module.state_dict())


def test_a_posterior_comes_back_from_its_state_whatever_its_size():
    _, posterior = fitted()
    again = hz.Posterior.from_state_dict(through_a_file(posterior.state_dict()))
    assert_same_beliefs(again, posterior)


def test_a_loaded_posterior_believes_what_the_saved_one_did():
    _, posterior = fitted()
    _, other = fitted(seed=9)
    other.marginal(rand(3, 2))  # its constants are kept for later; they must not outlive it
    other.load_state_dict(posterior.state_dict())
    assert_same_beliefs(other, posterior)


def test_a_posterior_inside_a_module_of_ones_own_is_saved_with_it():
    class Mine(nn.Module):
        def __init__(self, posterior):
            super().__init__()
            self.belief = posterior

    mine, other = Mine(fitted()[1]), Mine(fitted(seed=9)[1])
    other.load_state_dict(through_a_file(mine.state_dict()))
    assert_same_beliefs(other.belief, mine.belief)


def assert_same_beliefs(a, b):
    x = rand(9, 2, seed=5)
    for got, want in zip(a.marginal(x), b.marginal(x), strict=True):
        assert torch.equal(got, want)
    assert torch.equal(a.covariance(x), b.covariance(x))
    draws = [p.paths(3, torch.Generator().manual_seed(1))(x) for p in (a, b)]
    assert torch.equal(*draws)
    assert a.fit_succeeded == b.fit_succeeded


def test_a_fallback_is_still_known_as_one_when_it_comes_back():
    x, mean, var, _ = some_data()
    plain = hz.Surrogate().condition(x, mean, var)
    assert not plain.fit_succeeded
    assert not hz.Posterior.from_state_dict(plain.state_dict()).fit_succeeded


@pytest.mark.parametrize(
    "state", [{}, {"x": torch.zeros(2, 2)}, {"weight": torch.zeros(3)}, None, [1]]
)
def test_what_is_no_posteriors_state_is_refused(state):
    with pytest.raises(hz.ConfigError, match="not the state of a posterior"):
        hz.Posterior.from_state_dict(state)


@pytest.mark.parametrize("name", ["lengthscale", "outputscale", "constant"])
def test_a_part_of_a_surrogates_state_is_refused_and_nothing_is_loaded(name):
    x = torch.rand(8, 2, dtype=torch.float64)
    fitted, fresh = hz.Surrogate(), hz.Surrogate()
    fitted.fit(x, x, torch.full_like(x, 0.01))
    state = {key: value for key, value in fitted.state_dict().items() if key != name}
    with pytest.raises(hz.ConfigError, match=f"holds only.*{next(iter(state))}"):
        fresh.load_state_dict(state)
    assert fresh.hyperparameters is None


@pytest.mark.parametrize("sizes", [(-1, 3), ("a", 3), (3, 2.0), (True, 2), (3, None)])
def test_evidence_of_no_size_is_refused(sizes):
    with pytest.raises(hz.ShapeError, match="whole numbers"):
        hz.Evidence(*sizes)


def test_lists_are_no_evidence_to_fit():
    with pytest.raises(hz.ShapeError, match="expects tensors"):
        hz.Surrogate().fit([[0.1]], [[1.0]], [[0.1]])


def test_casting_leaves_a_posterior_in_float64():
    _, posterior = fitted()
    before = posterior.state_dict()
    assert equal(copy.deepcopy(posterior).float().state_dict(), before)
    assert equal(copy.deepcopy(posterior).to(torch.float16).state_dict(), before)
    mean, _ = posterior.float().marginal(rand(4, 2).float())
    assert mean.dtype == torch.float32


def test_a_fresh_surrogate_loads_a_fit_of_any_size_and_an_empty_one():
    surrogate, posterior = fitted()
    fresh = hz.Surrogate()
    assert fresh.hyperparameters is None
    assert not fresh.state_dict()
    fresh.load_state_dict(through_a_file(surrogate.state_dict()))
    x, mean, var, common = some_data()
    assert_same_marginals(fresh.condition(x, mean, var, common), posterior)
    fresh.load_state_dict(hz.Surrogate().state_dict())
    assert fresh.hyperparameters is None


def assert_same_marginals(a, b):
    for got, want in zip(a.marginal(rand(9, 2)), b.marginal(rand(9, 2)), strict=True):
        assert torch.equal(got, want)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 9), metrics=st.integers(1, 3), dims=st.integers(1, 4), seed=st.integers(0))
def test_any_posterior_comes_back(n, metrics, dims, seed):
    x, mean, var, common = some_data(n, metrics, dims, seed % 2**40)
    posterior = hz.Surrogate().condition(x, mean, var, common)
    again = hz.Posterior.from_state_dict(through_a_file(posterior.state_dict()))
    at = rand(5, dims)
    for got, want in zip(again.marginal(at), posterior.marginal(at), strict=True):
        assert torch.equal(got, want)


COMPILED = {
    "posterior": lambda: (fitted()[1], rand(7, 2)),
    "objective": lambda: (Utility().double(), rand(7, 3)),
    "problem": lambda: (a_problem(Utility().double()).evaluate, rand(7, 3)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_it_compiles_into_one_graph(name):
    torch._dynamo.reset()
    counter = CompileCounter()
    function, given_ = COMPILED[name]()
    with torch.no_grad():
        compiled = torch.compile(function, fullgraph=True, backend=counter)
        outputs, want = compiled(given_), function(given_)
    for got, right in zip(flat(outputs), flat(want), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-12)
    assert counter.frame_count == 1


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def test_evidence_compiles_and_updates_its_own_buffers():
    torch._dynamo.reset()
    plain, compiled = streamed(), streamed()
    delta = Delta(rand(4, 3, seed=4), rand(4, 3, seed=5))
    step = torch.compile(compiled.update, backend="eager")
    step(torch.arange(4), delta, 1 + rand(4))
    plain.update(torch.arange(4), delta, 1 + rand(4))
    for got, want in zip(compiled.state, plain.state, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_a_problem_goes_by_the_weights_that_its_module_has_now():
    """It holds the user's own module, so what is loaded into that holds at once."""
    net = Utility()
    problem = a_problem(net)
    delta = rand(6, 3)
    before = problem.evaluate(delta).utility
    state = {name: 3 * value for name, value in net.state_dict().items()}
    net.load_state_dict(through_a_file(state))
    after = problem.evaluate(delta).utility
    assert not torch.allclose(before, after)
    want = net(delta.float()).double()
    torch.testing.assert_close(after, want)


def test_a_problem_moves_a_copy_of_its_module():
    net = Utility()
    moved = a_problem(net).to("meta")
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    utility, slack = moved.evaluate(torch.empty(4, 3, device="meta", dtype=f64))
    assert (utility.device.type, slack.device.type) == ("meta", "meta")
