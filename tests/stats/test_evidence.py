"""Laws of the evidence: Eq. 3.2, the same however the deltas arrive, and honest about its error."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyperzero_torch.errors import ShapeError
from hyperzero_torch.stats import delta, evidence, moments
from hyperzero_torch.stats.delta import Delta
from hyperzero_torch.stats.evidence import Evidence, EvidenceState
from hyperzero_torch.stats.moments import Moments

laws = settings(deadline=None, max_examples=50, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
Batch = tuple[Tensor, Delta, Tensor]  # candidates (arms,), delta (arms, metrics), weight


def batch_of(rng: np.random.Generator, arms: int, num_candidates: int, metrics: int = 2) -> Batch:
    """Deltas of arms that repeat candidates; one in five is NaN, in the mean or the var."""
    mean = rng.normal(0.01, 0.02, (arms, metrics))
    var = rng.gamma(2, 1e-4, (arms, metrics))
    broken = rng.uniform(size=(arms, metrics))
    mean[broken < 0.1] = np.nan
    var[(broken > 0.05) & (broken < 0.2)] = np.nan
    per_metric = rng.uniform() < 0.5
    weight = rng.uniform(1, 1e5, (arms, metrics) if per_metric else arms)
    candidates = torch.from_numpy(rng.integers(0, num_candidates, arms))
    mean, var, weight = map(torch.from_numpy, (mean, var, weight))
    return candidates, Delta(mean, var), weight


def rows(batch: Batch, index: Tensor) -> Batch:
    candidates, d, weight = batch
    return candidates[index], Delta(d.mean[index], d.var[index]), weight[index]


def fed(num_candidates: int, *batches: Batch, metrics: int = 2) -> Evidence:
    book = Evidence(num_candidates, metrics)
    for batch in batches:
        book.update(*batch)
    return book


def assert_same(got: EvidenceState, want: EvidenceState) -> None:
    """Equal up to the rounding of some forty float64 additions; deltas are at most about 0.1."""
    torch.testing.assert_close(got.weight, want.weight, rtol=1e-13, atol=0)
    torch.testing.assert_close(got.mean, want.mean, rtol=0, atol=1e-15)
    torch.testing.assert_close(got.spread, want.spread, rtol=1e-13, atol=0)


def pieces_of(rng: np.random.Generator, batch: Batch, pieces: int) -> list[Batch]:
    """The same rows in any order, dealt out to piles, some of them empty."""
    order = rng.permutation(len(batch[0]))
    pile = rng.integers(0, pieces, len(order))
    return [rows(batch, torch.from_numpy(order[pile == p])) for p in range(pieces)]


# --- the formula --------------------------------------------------------------------------------


@laws
@given(seeds, st.integers(0, 30), st.integers(1, 5))
def test_it_is_eq_3_2(seed: int, arms: int, num_candidates: int) -> None:
    """Weighted mean and variance of each candidate, in a plain loop; NaN where nothing is known."""
    candidates, d, weight = batch_of(np.random.default_rng(seed), arms, num_candidates)
    book = fed(num_candidates, (candidates, d, weight))
    weight = weight.numpy() if weight.ndim == 2 else np.repeat(weight.numpy()[:, None], 2, 1)
    for c, m in itertools.product(range(num_candidates), range(2)):
        total = weighted = squares = 0.0
        for t in range(arms):
            mean, var = float(d.mean[t, m]), float(d.var[t, m])
            if candidates[t] == c and np.isfinite(mean) and np.isfinite(var):
                total += weight[t, m]
                weighted += weight[t, m] * mean
                squares += weight[t, m] ** 2 * var
        assert float(book.weight[c, m]) == pytest.approx(total, rel=1e-13)
        if total == 0:
            assert book.mean[c, m].isnan()
            assert book.var[c, m].isnan()
        else:
            assert float(book.mean[c, m]) == pytest.approx(weighted / total, rel=1e-12, abs=1e-15)
            assert float(book.var[c, m]) == pytest.approx(squares / total**2, rel=1e-12)


def test_its_variance_is_the_error_that_its_mean_makes() -> None:
    """2e5 replicas of three candidates over four rounds, as so many metrics.

    A sample variance of N normal draws has the relative error sqrt(2 / N) = 0.3 %; a mean,
    sqrt(var / N). Five of each.
    """
    replicas, rng = 200_000, np.random.default_rng(21)
    true = torch.tensor([0.0, 0.02, -0.05], dtype=torch.float64)
    book = Evidence(3, replicas)
    for ids in ([0, 1, 2], [1, 2], [2, 2, 0], [1, 0]):
        var = torch.from_numpy(rng.uniform(1e-4, 9e-4, (len(ids), 1)))
        noise = torch.from_numpy(rng.standard_normal((len(ids), replicas)))
        mean = true[ids][:, None] + var.sqrt() * noise
        weight = torch.from_numpy(rng.uniform(10, 1000, len(ids)))
        book.update(torch.tensor(ids), Delta(mean, var.expand_as(mean)), weight)
    claimed = book.var[:, 0]
    torch.testing.assert_close(book.var, claimed[:, None].expand(3, replicas))
    seen = book.mean.var(1)
    assert ((seen / claimed - 1).abs() < 5 * (2 / replicas) ** 0.5).all()
    assert ((book.mean.mean(1) - true).abs() < 5 * (claimed / replicas).sqrt()).all()


def test_a_fresh_book_knows_nothing() -> None:
    book = Evidence(4, 3)
    assert book.num_candidates == 4
    assert book.weight.shape == (4, 3)
    assert book.weight.dtype == book.mean.dtype == book.var.dtype == torch.float64
    assert (book.weight == 0).all()
    assert book.mean.isnan().all()
    assert book.var.isnan().all()


# --- however it arrives -------------------------------------------------------------------------


@laws
@given(seeds, st.integers(0, 30), st.integers(1, 6))
def test_streaming_in_any_order_is_all_at_once(seed: int, arms: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    batch = batch_of(rng, arms, 3)
    assert_same(fed(3, *pieces_of(rng, batch, pieces)).state, fed(3, batch).state)


@laws
@given(seeds, st.integers(0, 30), st.integers(1, 6))
def test_summaries_of_parts_merge_to_the_summary_of_all(seed: int, arms: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    batch = batch_of(rng, arms, 3)
    state = evidence.init(3, 2)
    for piece in pieces_of(rng, batch, pieces):
        state = evidence.merge(evidence.summarise(*piece, 3), state)
    assert_same(state, evidence.summarise(*batch, 3))


@laws
@given(seeds)
def test_merge_is_associative_and_commutative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (evidence.summarise(*batch_of(rng, 6, 3), 3) for _ in range(3))
    assert_same(evidence.merge(a, b), evidence.merge(b, a))
    left = evidence.merge(evidence.merge(a, b), c)
    assert_same(left, evidence.merge(a, evidence.merge(b, c)))


@laws
@given(seeds)
def test_no_evidence_is_the_identity_to_the_last_bit(seed: int) -> None:
    some, none = evidence.summarise(*batch_of(np.random.default_rng(seed), 6, 3), 3), (3, 2)
    for merged in (
        evidence.merge(some, evidence.init(*none)),
        evidence.merge(evidence.init(*none), some),
    ):
        torch.testing.assert_close(merged, some, rtol=0, atol=0)


@laws
@given(seeds)
def test_merging_any_leading_shape_is_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def stack() -> list[EvidenceState]:
        return [evidence.summarise(*batch_of(rng, 6, 3), 3) for _ in range(4)]

    a, b = stack(), stack()
    batched = evidence.merge(
        *(EvidenceState(*(torch.stack(f).reshape(2, 2, 3, 2) for f in zip(*s))) for s in (a, b))
    )
    for i, (one, other) in enumerate(zip(a, b)):
        got = EvidenceState(*(t.flatten(0, 1)[i] for t in batched))
        torch.testing.assert_close(got, evidence.merge(one, other), rtol=0, atol=0)


@laws
@given(seeds)
def test_each_candidate_and_metric_is_alone(seed: int) -> None:
    """A pooled number depends on its own candidate's rows and its own metric's column only."""
    rng = np.random.default_rng(seed)
    batch = batch_of(rng, 12, 3)
    whole = fed(3, batch)
    for c, m in itertools.product(range(3), range(2)):
        candidates, d, weight = rows(batch, (batch[0] == c).nonzero().squeeze(1))
        weight = weight[:, m] if weight.ndim == 2 else weight
        own = Delta(d.mean[:, m : m + 1], d.var[:, m : m + 1])
        alone = fed(3, (candidates, own, weight), metrics=1)
        assert_same(
            EvidenceState(*(t[c, 0] for t in alone.state)),
            EvidenceState(*(t[c, m] for t in whole.state)),
        )


def test_a_candidate_may_stand_twice_in_one_update() -> None:
    """Two arms of one candidate: weights 1 and 3, deltas 0.1 and 0.2, variances 4 and 8."""
    d = Delta(torch.tensor([[0.1], [0.2]]).double(), torch.tensor([[4.0], [8.0]]).double())
    book = fed(3, (torch.tensor([1, 1]), d, torch.tensor([1, 3])), metrics=1)
    assert book.mean[1].item() == pytest.approx(0.7 / 4)
    assert book.var[1].item() == pytest.approx((1 * 4 + 9 * 8) / 16)
    assert book.mean[[0, 2]].isnan().all()


@pytest.mark.parametrize("broken", ["mean", "var"])
def test_a_nan_delta_changes_nothing(broken: str) -> None:
    rng = np.random.default_rng(22)
    book = fed(3, batch_of(rng, 9, 3))
    before = [t.clone() for t in book.state]
    good = torch.full((2, 2), 0.5, dtype=torch.float64)
    d = Delta(good, good)._replace(**{broken: good * torch.nan})
    book.update(torch.tensor([0, 2]), d, torch.tensor([1e6, 1e6]))
    for was, now in zip(before, book.state):
        assert torch.equal(was, now)


def test_an_empty_update_changes_nothing() -> None:
    book = fed(3, batch_of(np.random.default_rng(23), 9, 3))
    before = [t.clone() for t in book.state]
    none = torch.zeros(0, 2, dtype=torch.float64)
    book.update(torch.tensor([]), Delta(none, none), none)
    for was, now in zip(before, book.state):
        assert torch.equal(was, now)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_from_users_to_evidence_no_unit_and_no_batching_matters(scale: float) -> None:
    """Raw values of eight rounds in one call or round by round, in this unit or another."""
    rng = np.random.default_rng(24)
    values = torch.from_numpy(rng.gamma(2, 1, (8, 300, 2)))
    arm = torch.from_numpy(rng.integers(0, 3, (8, 300)))
    ids = torch.tensor([0, 1])

    def lifts(rounds: Moments) -> Delta:
        return delta.ratio(
            Moments(*(t[..., 1:, :] for t in rounds)), Moments(*(t[..., :1, :] for t in rounds))
        )

    streamed, batches = Evidence(2, 2), []
    for v, a in zip(values, arm):
        m = moments.summarise(v, a, 3)
        streamed.update(ids, lifts(m), m.count[1:])
        batches.append(moments.summarise(v * scale, a, 3))
    rounds = Moments(*map(torch.stack, zip(*batches)))
    d = Delta(*(t.flatten(0, 1) for t in lifts(rounds)))
    at_once = fed(2, (ids.repeat(8), d, rounds.count[:, 1:].flatten(0, 1)))
    torch.testing.assert_close(at_once.mean, streamed.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(at_once.var, streamed.var, rtol=1e-12, atol=0)


# --- as a module --------------------------------------------------------------------------------


def test_state_dict_round_trip_is_exact_and_needs_no_pickle() -> None:
    rng = np.random.default_rng(25)
    book = fed(4, batch_of(rng, 9, 3))
    file = io.BytesIO()
    torch.save(book.state_dict(), file)
    file.seek(0)
    again = Evidence(4, 2)
    again.load_state_dict(torch.load(file, weights_only=True))
    more = batch_of(rng, 9, 4)
    for b in (book, again):
        b.update(*more)  # and it goes on as if nothing had happened
    assert set(book.state_dict()) == {"weight", "pooled", "spread"}
    for was, now in zip(book.state, again.state):
        assert torch.equal(was, now)


def test_to_float32_moves_all_of_it_and_it_goes_on() -> None:
    rng = np.random.default_rng(26)
    first, second = batch_of(rng, 9, 3), batch_of(rng, 9, 3)
    book = fed(3, first).to(torch.float32)
    want = fed(3, first)
    for b in (book, want):
        b.update(*second)
    assert {t.dtype for t in (*book.state, book.mean, book.var)} == {torch.float32}
    torch.testing.assert_close(book.mean.double(), want.mean, rtol=0, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(book.var.double(), want.var, rtol=2e-6, atol=0, equal_nan=True)


def test_float32_deltas_are_pooled_in_float64() -> None:
    candidates, d, weight = batch_of(np.random.default_rng(27), 9, 3)
    single = Delta(d.mean.float(), d.var.float())
    got = fed(3, (candidates.int(), single, weight.long()))
    want = fed(3, (candidates, Delta(*(t.double() for t in single)), weight.long().double()))
    assert got.mean.dtype == torch.float64
    assert_same(got.state, want.state)


def test_buffers_are_made_where_and_as_asked() -> None:
    book = Evidence(2, 3, dtype=torch.float32, device="meta")
    assert {(t.dtype, t.device.type) for t in book.state} == {(torch.float32, "meta")}
    assert not list(book.parameters())


# --- inputs -------------------------------------------------------------------------------------


def test_inputs_and_earlier_states_are_never_changed() -> None:
    rng = np.random.default_rng(28)
    candidates, d, weight = batch_of(rng, 9, 3)
    book = fed(3, batch_of(rng, 9, 3))
    earlier = book.state
    given_ = [candidates, *d, weight, *earlier]
    before = [t.clone() for t in given_]
    book.update(candidates, d, weight)
    evidence.merge(earlier, evidence.summarise(candidates, d, weight, 3))
    assert not torch.equal(book.weight, earlier.weight)
    for after, was in zip(given_, before):
        torch.testing.assert_close(after, was, rtol=0, atol=0, equal_nan=True)


IDS = torch.tensor([0, 2])
GOOD = Delta(torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))
ONE = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("candidates", "d", "weight", "parts"),
    [
        (IDS[:1], GOOD, ONE, ["(arms, metrics)", "(1,)", "(2, 3)"]),
        (IDS[None], GOOD, ONE, ["candidates (arms,)", "(1, 2)"]),
        (IDS, Delta(GOOD.mean[:, :2], GOOD.var[:, :2]), ONE, ["3 metrics", "(2, 2)"]),
        (IDS, GOOD._replace(var=GOOD.var[:1]), ONE, ["(2, 3)", "(1, 3)"]),
        (IDS, Delta(GOOD.mean[0], GOOD.var[0]), ONE, ["(arms, metrics)", "(3,)"]),
        (IDS, GOOD, torch.ones(3), ["weight (arms,)", "(3,)"]),
        (IDS, GOOD, torch.ones(2, 1), ["weight (arms,)", "(2, 1)"]),
        (IDS, GOOD, torch.tensor(1.0), ["weight (arms,)", "()"]),
        (torch.tensor([0, 4]), GOOD, ONE, ["[0, 4)", "0 to 4"]),
        (torch.tensor([-1, 2]), GOOD, ONE, ["[0, 4)", "-1 to 2"]),
        (torch.tensor([0.7, 2.0]), GOOD, ONE, ["integers", "torch.float32"]),
        (IDS.to("meta"), GOOD, ONE, ["cpu", "meta", ".to(device)"]),
        (IDS, GOOD._replace(var=GOOD.var.to("meta")), ONE, ["cpu", "meta"]),
        (IDS, GOOD, ONE.to("meta"), ["cpu", "meta"]),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(candidates, d, weight, parts) -> None:
    book = fed(4, batch_of(np.random.default_rng(29), 9, 4, metrics=3), metrics=3)
    before = [t.clone() for t in book.state]
    with pytest.raises(ShapeError) as caught:
        book.update(candidates, d, weight)
    for what in parts:
        assert what in str(caught.value)
    for was, now in zip(before, book.state):
        assert torch.equal(was, now)
