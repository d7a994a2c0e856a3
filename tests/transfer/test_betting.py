"""Bets on sources: calibrated while they tell nothing, won where they tell something."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.family_of_surfaces import aligned, cold, family, filling

import hyperzero_torch as hz
from hyperzero_torch.surrogate import Hyperparameters
from hyperzero_torch.transfer import ExpertOverride, Source
from hyperzero_torch.transfer.model import acceptance, betting, coregionalization, gates, target
from hyperzero_torch.transfer.model.family import SourceBeliefs, gather_family
from hyperzero_torch.transfer.model.inducing import reduce, spectrum
from hyperzero_torch.transfer.prior import Prior, source_weights


def learned(share, seed, num=3, target_share=None, rows=40, noise=0.3):
    sources, x, mean, var, truth = family(
        share, num=num, seed=seed, target_share=target_share, rows=rows, noise=noise
    )
    gathered = gather_family(sources, filling())
    own = cold(x, mean, var)
    return gathered, own, target.fit_target(gathered, own), truth


NOBODY = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("alike", [(0.0, 0.0, 0.0), (1.0, -0.5, 0.3)])
def test_the_expected_wealth_of_bets_on_nothing_is_one(alike):
    """The ratio is a likelihood's: its mean is 1 where the target's evidence is its own alone."""
    looks = torch.tensor(alike, dtype=torch.float64)
    sources, *_ = family(0.9, seed=0, rows=30)
    gathered = gather_family(sources, filling())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 2, dtype=torch.float64, generator=generator)
    noise = torch.full((1, 12), 0.3, dtype=torch.float64)
    inducing = gathered.inducing
    projected = inducing.project(x)
    rest = (1 - projected.square().sum(-1)).clamp_min(0)
    num = 150
    ratios = []
    for _ in range(num):
        m = projected.shape[-1]
        u = torch.randn(1, m, 1, dtype=torch.float64, generator=generator)
        e = torch.randn(1, 12, dtype=torch.float64, generator=generator)
        y = (projected @ u).squeeze(-1) + (noise + rest).sqrt() * e
        target = spectrum(reduce(projected, y, noise, None, 0.0))
        target = type(target)(*(field.unsqueeze(1) for field in target))
        ratios.append(
            betting.score(
                gathered.spectrum, gathered.loading, gathered.has_evidence, target, looks
            ).log_e_value
        )
    wealth = torch.tensor(ratios, dtype=torch.float64).exp()
    # Heavy-tailed above, so the mean of a finite sample lies below 1 rather than above.
    assert float(wealth.mean()) < 1 + 4 * float(wealth.std()) / math.sqrt(num)
    assert float((wealth >= 1 / gates.ALPHA).double().mean()) <= gates.ALPHA
    assert float(wealth.median()) < 1.2


def test_related_sources_are_admitted_and_reversed_ones_never():
    for seed in range(3):
        gathered, own, got, _ = learned(0.95, seed)
        assert gates.admit(got).admitted
        assert bool((got.loading > 0.5).all())
        bad = gathered._replace(
            spectrum=gathered.spectrum._replace(information=-gathered.spectrum.information)
        )
        against = target.fit_target(bad, own)
        assert not gates.admit(against).admitted
        assert against.scores.log_e_value < 0
        assert bool((against.loading == 0).all())


def test_one_good_among_bad_gets_the_weight():
    sources, x, mean, var, _ = family(0.97, num=5, seed=4, rows=60, noise=0.15)
    others, *_ = family(0.0, num=4, seed=77, rows=60, noise=0.15)
    named = [s._replace(name=f"bad_{i}") for i, s in enumerate(others)]
    gathered = gather_family([sources[0], *named], filling())
    got = target.fit_target(gathered, cold(x, mean, var))
    assert int(got.scores.each[0].argmax()) == 0
    weight = source_weights(gathered, got.loading)
    assert float(weight[0, 0]) > 0.9
    assert float(weight.sum()) == pytest.approx(1.0)


def test_with_the_sources_the_truth_is_predicted_better_and_as_surely_as_claimed():
    gains, z = [], []
    for seed in range(8):
        gathered, own, got, truth = learned(0.95, seed, num=4, noise=0.5)
        warm = target.posterior(gathered, own, got)
        for posterior, sign in ((warm, 1), (own, -1)):
            mean, var = posterior.marginal(own.x)
            error = (truth - mean) ** 2
            gains.append(sign * float((-0.5 * error / var - 0.5 * var.log()).mean()))
            if sign == 1:
                z.append((truth - mean) / var.sqrt())
    assert sum(gains) / 8 > 0.1
    # 8 x 40 standardised errors, strongly correlated within each family: some 8 apiece.
    assert float(torch.cat(z).square().mean().sqrt()) == pytest.approx(1.0, abs=0.25)


def test_without_shares_the_posterior_is_the_cold_one():
    gathered, own, got, _ = learned(0.95, 0)
    none = got._replace(loading=torch.zeros_like(got.loading))
    plain = target.posterior(gathered, own, none)
    points = filling()
    for a, b in zip(plain.marginal(points), own.marginal(points)):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(
        gates.held_out_log_density(plain, len(own.x)),
        gates.held_out_log_density(own, len(own.x)),
    )


def test_left_out_of_all_rows_is_the_posteriors_own():
    _, own, _, _ = learned(0.9, 1)
    wanted = own.leave_one_out() + 0.5 * len(own.x) * math.log(2 * math.pi)
    torch.testing.assert_close(gates.held_out_log_density(own, len(own.x)), wanted)


def test_a_worse_model_falls_back():
    gathered, own, got, _ = learned(0.95, 2)
    fine = gates.compare(target.posterior(gathered, own, got), own)
    assert bool(fine.better.all())
    wrong = gathered._replace(
        spectrum=gathered.spectrum._replace(information=-gathered.spectrum.information)
    )
    worse = gates.compare(target.posterior(wrong, own, got), own)
    assert not bool(worse.better.any())
    assert "worse" in worse.reason


@settings(deadline=None, max_examples=5)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_the_unit_of_a_metric_changes_nothing(share, own_share):
    sources, x, mean, var, _ = family(share, seed=5, target_share=own_share, rows=25)
    big = [s._replace(mean=1e4 * s.mean, var=1e8 * s.var) for s in sources]
    plain = target.fit_target(gather_family(sources, filling()), cold(x, mean, var))
    scaled = target.fit_target(gather_family(big, filling()), cold(x, 1e4 * mean, 1e8 * var))
    assert scaled.scores.log_e_value == pytest.approx(plain.scores.log_e_value, rel=1e-2, abs=1e-2)
    torch.testing.assert_close(scaled.loading, plain.loading, atol=0.02, rtol=0.05)


def test_pinned_and_forbidden_sources():
    sources, x, mean, var, _ = family(0.95, seed=6)
    own = cold(x, mean, var)
    base = torch.full((2,), 0.5, dtype=torch.float64)
    plain = gather_family(
        sources, filling(), SourceBeliefs(base, {"source_0": 0.0}, {}, {"source_1": 0.25})
    )
    got = target.fit_target(plain, own)
    assert float(got.loading[0, 0]) == 0.0
    assert float(got.loading[0, 1] * got.loading[0, -1]) == pytest.approx(0.25, rel=1e-6)
    half = gather_family(sources, filling(), SourceBeliefs(base, {"source_0": 0.5}, {}, {}))
    whole = gather_family(sources, filling())
    assert float(half.spectrum.precision[0, 0].sum()) < float(whole.spectrum.precision[0, 0].sum())


def test_looks_move_the_stakes_and_nothing_where_nobody_looks_like_anything():
    features = {"level:gain": 1.0, "users": 8.0}
    like = torch.zeros((), dtype=torch.float64)
    looks = betting.feature_similarity(
        [features, {}, {"level:gain": 9.0, "users": 1.0}], features, like
    )
    assert float(looks[0]) == pytest.approx(1.0)
    assert float(looks[1]) == 0.0
    assert -0.6 < float(looks[2]) < -0.4
    gathered, own, plain, _ = learned(0.95, 1)
    same = target.fit_target(gathered, own, NOBODY)
    assert torch.equal(plain.loading, same.loading)
    assert plain.scores.log_e_value == same.scores.log_e_value
    alike = target.fit_target(gathered, own, NOBODY + 1)
    unlike = target.fit_target(gathered, own, NOBODY - 0.5)
    # Sources that do tell something win more where they were staked on.
    assert bool((alike.scores.each > plain.scores.each).all())
    assert bool((unlike.scores.each < plain.scores.each).all())
    assert float(alike.loading[0, -1]) > float(plain.loading[0, -1]) > float(unlike.loading[0, -1])


def test_the_source_that_looks_like_the_target_has_the_larger_stake():
    sources, x, mean, var, _ = family(0.95, seed=3)
    bad = [s._replace(mean=-s.mean, name=f"bad_{i}") for i, s in enumerate(sources[1:])]
    gathered = gather_family([sources[0], *bad], filling())
    own = cold(x[:8], mean[:8], var[:8])
    right = target.fit_target(gathered, own, torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64))
    wrong = target.fit_target(gathered, own, torch.tensor([-0.5, 1.0, 1.0], dtype=torch.float64))
    plain = target.fit_target(gathered, own)
    assert right.scores.log_e_value > plain.scores.log_e_value > wrong.scores.log_e_value


def test_what_a_source_says_of_a_forbidden_parameter_has_no_part_in_anything():
    """Whatever a source's function does away from the base along it, the target believes the same.

    Both sources agree where the second coordinate is the base's; away from it one rises and the
    other falls.
    """
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(60, 2, dtype=torch.float64, generator=generator)
    x[:20, 1] = 0.5
    wave = 0.02 * (4 * x[:, :1]).sin()
    tilt = 0.05 * (x[:, 1:] - 0.5)
    noise = 0.0005 * torch.randn(60, 1, dtype=torch.float64, generator=generator)
    own_x = torch.rand(6, 2, dtype=torch.float64, generator=generator)
    own = cold(own_x, 0.02 * (4 * own_x[:, :1]).sin(), torch.full((6, 1), 1e-6, dtype=x.dtype))
    points = filling()
    on_slice = points.clone()
    on_slice[:, 1] = 0.5
    base = torch.tensor([0.5, 0.5], dtype=torch.float64)
    fits = {}
    for part in (0.0, 0.5, 1.0):
        for sign in (-1.0, 1.0):
            source = aligned("north", x, wave + sign * tilt + noise, 0.0005**2)
            words = SourceBeliefs(base, {}, {"north": [(slice(1, 2), part)]}, {})
            gathered = gather_family([source], points, words)
            # Believed all but fully, so that what the source says is what is compared.
            share = torch.full((1, 2), 0.995, dtype=torch.float64)
            got = target.fit_target(gathered, own)._replace(loading=share)
            warm = target.posterior(gathered, own, got)
            fits[part, sign] = [warm.marginal(p)[0].squeeze(-1) for p in (points, on_slice)]
    apart = {
        part: float((fits[part, 1.0][0] - fits[part, -1.0][0]).abs().mean()) for part in (0, 0.5, 1)
    }
    assert apart[0.0] < 0.05 * apart[1.0]
    assert apart[0.0] < 0.1 * apart[0.5]
    # Of the other parameter all is still believed.
    truth = 0.02 * (4 * on_slice[:, 0]).sin()
    error = fits[0.0, 1.0][1] - truth
    error = error - error.mean()
    assert float(error.std()) < 0.2 * float(truth.std())


def test_how_strong_a_forbidden_parameter_is_hardly_matters():
    """Sizes from nothing to ten times what the other parameter does."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(60, 2, dtype=torch.float64, generator=generator)
    noise = 0.0005 * torch.randn(60, 1, dtype=torch.float64, generator=generator)
    own_x = torch.rand(6, 2, dtype=torch.float64, generator=generator)
    own = cold(own_x, 0.02 * (4 * own_x[:, :1]).sin(), torch.full((6, 1), 1e-6, dtype=x.dtype))
    base = torch.full((2,), 0.5, dtype=torch.float64)
    points, fits = filling(), {}
    for part in (0.0, 1.0):
        for size in (0.0, 0.02, 0.2):
            mean = 0.02 * (4 * x[:, :1]).sin() + size * (x[:, 1:] - 0.5) + noise
            words = SourceBeliefs(base, {}, {"north": [(slice(1, 2), part)]}, {})
            gathered = gather_family([aligned("north", x, mean, 0.0005**2)], points, words)
            share = torch.full((1, 2), 0.995, dtype=torch.float64)
            got = target.fit_target(gathered, own)._replace(loading=share)
            believed = target.posterior(gathered, own, got).marginal(points)[0]
            fits[part, size] = (
                float(gathered.spread[0, 0]),
                gathered.inducing.lengthscale,
                believed,
            )
    for size in (0.02, 0.2):
        spread, lengthscale, believed = fits[0.0, size]
        assert torch.equal(lengthscale, fits[0.0, 0.0][1])
        assert spread < 3 * fits[0.0, 0.0][0]
        off = float((believed - fits[0.0, 0.0][2]).abs().mean())
        assert off < 0.1 * float(fits[0.0, 0.0][2].abs().mean())
    assert fits[1.0, 0.2][0] > 5 * fits[1.0, 0.0][0]  # believed, it is another domain


def test_a_forbidden_source_is_no_part_of_the_family():
    sources, x, mean, var, _ = family(0.95, seed=6)
    space = hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in "ab"])
    problem = hz.Problem(space, {"a": 0.5, "b": 0.5}, ["gain"], "gain")
    given = [
        Source(
            name=s.name,
            parameters=space.to_parameters(s.x),
            metrics=["gain"],
            mean=s.mean,
            var=s.var,
            meta_features={"users": 3.0 * i},
        )
        for i, s in enumerate(sources)
    ]
    own = cold(x, mean, var)
    for word in (ExpertOverride(forbid=["source_0"]), ExpertOverride(discount={"source_0": 0.0})):
        with_it = Prior(problem, given, word).judge(own, {"users": 3.0})
        without_it = Prior(problem, given[1:]).judge(own, {"users": 3.0})
        assert with_it.trace == without_it.trace
        believed = [one.posterior.marginal(filling())[0] for one in (with_it, without_it)]
        assert torch.equal(*believed)
    nobody = Prior(problem, given, ExpertOverride(forbid=[s.name for s in given]))
    assert not nobody.judge(own).used
    assert "every source is forbidden" in nobody.judge(own).trace.reason
    assert len(nobody.seeds(problem, 3, torch.Generator()).theta) == 0


def test_looks_that_move_with_the_evidence_move_no_bet():
    gathered, own, _, _ = learned(0.95, 1)
    first = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
    wealth = {
        target.fit_target(gathered, own, moved, first).scores.log_e_value
        for moved in (first, -first, NOBODY)
    }
    assert len(wealth) == 1


def test_acceptance_weighs_gain_against_risk():
    import hyperzero_torch as hz
    from hyperzero_torch.surrogate import Posterior, Standardiser

    problem = hz.Problem(
        space=hz.SearchSpace([hz.Float("a", 0.0, 1.0)]),
        base={"a": 0.5},
        metrics=["gain", "guard"],
        objective="gain",
        constraints=["guard >= -0.1%"],
    )
    x = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    y = torch.tensor([[0.03, 0.01], [0.03, -0.03], [-0.02, 0.01]], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    posterior = Posterior(
        x,
        y,
        torch.full_like(y, 1e-6),
        Hyperparameters(0.1 * ones.unsqueeze(1), 1e-3 * ones, 0 * ones),
        Standardiser(0 * ones, ones),
    )
    generator = torch.Generator().manual_seed(0)
    judged = acceptance.risk_screen(posterior, problem, x, generator)
    assert judged.accepted.tolist() == [True, False, False]
    assert float(judged.prob[0]) > 0.95
    assert float(judged.promise[0]) > 0 > float(judged.promise[1:].max())


def test_told_by_each_is_the_gain_of_a_pair():
    gathered, own, got, _ = learned(0.9, 3, num=2)
    scaled = got.variance / own.standardiser.scale.new_ones(1)
    projected = gathered.inducing.project(own.x)
    y = own.outputs
    size = scaled.unsqueeze(-1)
    target = spectrum(reduce(projected, y / size.sqrt(), own.noise / size, None, 1.0 / scaled))
    target = type(target)(*(field.unsqueeze(1) for field in target))
    grid = torch.tensor([0.4, 0.8], dtype=torch.float64)
    each = coregionalization.log_bayes_factor_by_source(gathered.spectrum, target, grid)
    one = type(gathered.spectrum)(*(field[:, :1] for field in gathered.spectrum))
    for g, value in enumerate(grid.tolist()):
        share, own_share = torch.ones(1, 1).double(), torch.full((1,), value).double()
        wanted = coregionalization.log_bayes_factor(
            coregionalization.shared_posterior(one, share), target, own_share
        )
        assert float(each[0, 0, g]) == pytest.approx(float(wanted[0]), abs=1e-5)


def test_a_bad_source_takes_nothing_from_the_good_ones():
    kept, alone = [], []
    for seed in range(4):
        sources, x, mean, var, _ = family(0.97, num=3, seed=seed)
        bad = sources[2]._replace(mean=-sources[2].mean)
        own = cold(x, mean, var)
        for gathered, given_ in ((kept, [*sources[:2], bad]), (alone, sources[:2])):
            share = target.fit_target(gather_family(given_, filling()), own).loading
            gathered.append(share[0, :2] * share[0, -1])
            if given_[-1] is bad:
                assert float(share[0, 2]) == 0.0
    # Reversed evidence is no part of what the good ones are thought to share.
    assert float(torch.stack(kept).mean()) > 0.9 * float(torch.stack(alone).mean()) > 0.6
