"""``transfer.sharing.secure_sum``: the sum is exact, and a single contribution is noise."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.extras import hide

import hyperzero_torch as hz
from hyperzero_torch.transfer.sharing.budget import Budget
from hyperzero_torch.transfer.sharing.noise import Clip, collect, release
from hyperzero_torch.transfer.sharing.secure_sum import Agreement, Party, flatten, total, unflatten

pytest.importorskip("cryptography")

EXAMPLES = Path(__file__).parents[2] / "examples"


def agree(parties, num_values, session="s", bound=1e6, **how):
    return Agreement(session, {p.name: p.public_key for p in parties}, num_values, bound, **how)


def parties(num):
    return [Party(f"domain {i}") for i in range(num)]


@given(
    st.integers(3, 5),
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5), min_size=1, max_size=9),
)
def test_the_sum_is_exact_in_fixed_point(num, columns):
    everyone = parties(num)
    values = torch.tensor(columns, dtype=torch.float64)[:, :num].T.contiguous()
    agreement = agree(everyone, len(columns))
    sent = [p.mask(v, agreement) for p, v in zip(everyone, values)]
    exact = [sum(round(x * 2**24) for x in column) for column in values.T.tolist()]
    assert total(agreement, sent[::-1]).tolist() == [whole / 2**24 for whole in exact]


@given(st.lists(st.integers(-(2**60), 2**60), min_size=3, max_size=3))
def test_whole_numbers_are_summed_as_they_are(numbers):
    everyone = parties(3)
    agreement = agree(everyone, 1, bound=2.0**60, fraction_bits=0)
    sent = [p.mask(torch.tensor([n]), agreement) for p, n in zip(everyone, numbers)]
    summed = total(agreement, sent)
    assert summed.dtype == torch.int64
    assert summed.tolist() == [sum(numbers)]


def chi_square(words, bins=256):
    """Standardised chi-square of the words' bytes against uniform."""
    counts = np.bincount(words.view(np.uint8), minlength=bins)
    expected = counts.sum() / bins
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - (bins - 1)) / math.sqrt(2 * (bins - 1))


def test_a_single_contribution_is_uniform_whatever_it_is():
    num = 100_000
    everyone = parties(3)
    for session, value in (("zeros", 0.0), ("ones", 1.0), ("large", -1e6)):
        agreement = agree(everyone, num, session)
        sent = [p.mask(torch.full((num,), value), agreement) for p in everyone]
        # Keys are from the system's randomness: five standard deviations, nine tests.
        for one in sent:
            assert abs(chi_square(one.words)) < 5
            bits = np.unpackbits(one.words.view(np.uint8)).reshape(num, 64).mean(0)
            assert float(np.abs(bits - 0.5).max()) < 6 * 0.5 / math.sqrt(num)
        # Nor do two of three together say anything: the third's masks are still on them.
        assert abs(chi_square(sent[0].words + sent[1].words)) < 5
        assert bool((total(agreement, sent) == 3 * value).all())


def test_words_do_not_follow_the_values():
    num = 50_000
    everyone = parties(3)
    agreement = agree(everyone, num, bound=1e9)
    values = torch.linspace(-1e9, 1e9, num, dtype=torch.float64)
    sent = [p.mask(values, agreement) for p in everyone]
    for one in sent:
        correlation = np.corrcoef(one.words.view(np.int64).astype(float), values.numpy())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(num)
    between = np.corrcoef(sent[0].words.astype(float), sent[2].words.astype(float))[0, 1]
    # Two parties' words share a mask, but each has another one on top, modulo 2^64.
    assert abs(between) < 5 / math.sqrt(num)


def test_each_session_has_masks_of_its_own():
    everyone = parties(3)
    values = torch.zeros(1000)
    first = everyone[0].mask(values, agree(everyone, 1000, "one")).words
    second = everyone[0].mask(values, agree(everyone, 1000, "two")).words
    assert not bool((first == second).any())
    assert abs(chi_square(first - second)) < 5
    with pytest.raises(hz.InputError, match="agree on a new session"):
        everyone[0].mask(values, agree(everyone, 1000, "one", bound=7.0))


def test_without_one_party_there_is_no_sum():
    everyone = parties(4)
    values = torch.ones(3)
    agreement = agree(everyone, 3)
    sent = [p.mask(values, agreement) for p in everyone]
    with pytest.raises(hz.InputError, match="nothing came from \\['domain 2'\\]"):
        total(agreement, [*sent[:2], sent[3]])
    left = [p for p in everyone if p.name != "domain 2"]
    anew = agree(left, 3, "again")
    assert total(anew, [p.mask(values, anew) for p in left]).tolist() == [3.0] * 3


def test_messages_that_do_not_belong_are_refused():
    everyone = parties(3)
    agreement = agree(everyone, 2)
    sent = [p.mask(torch.ones(2), agreement) for p in everyone]
    other = agree(everyone, 2, "other")
    with pytest.raises(hz.InputError, match="another agreement"):
        total(other, sent)
    with pytest.raises(hz.InputError, match="sent twice"):
        total(agreement, [*sent, sent[0]])
    with pytest.raises(hz.InputError, match="another agreement"):
        total(agreement, [*sent[:2], sent[2]._replace(party="stranger")])
    with pytest.raises(hz.InputError, match="not 2 words"):
        total(agreement, [*sent[:2], sent[2]._replace(words=sent[2].words[:1])])
    stranger = Party("domain 0")
    with pytest.raises(hz.InputError, match="its own key"):
        stranger.mask(torch.ones(2), agree(everyone, 2, "third"))
    null = replace(agreement, session="fourth", keys={**agreement.keys, "domain 1": bytes(32)})
    with pytest.raises(hz.InputError, match="is invalid"):
        everyone[0].mask(torch.ones(2), null)


@pytest.mark.parametrize(
    "values",
    [torch.ones(3), torch.ones(2, 1), [1.0, 2.0], torch.tensor([math.nan, 0.0]),
     torch.tensor([math.inf, 0.0]), torch.tensor([2e6, 0.0])],
)  # fmt: skip
def test_values_that_cannot_be_sent_are_refused(values):
    everyone = parties(3)
    with pytest.raises(hz.InputError):
        everyone[0].mask(values, agree(everyone, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": ""}, "session"),
        ({"keys": {}}, "empty"),
        ({"keys": {"a": b"x" * 32, "b": b"y" * 32}}, "each learns the other's"),
        ({"keys": dict.fromkeys("abc", b"x" * 32)}, "the same key"),
        ({"keys": {n: n.encode() for n in "abc"}}, "32 bytes"),
        ({"keys": ["a", "b", "c"]}, "must map"),
        ({"num_values": 0}, "num_values"),
        ({"bound": 0.0}, "bound"),
        ({"bound": math.nan}, "bound"),
        ({"bound": 1e18}, "64 bits"),
        ({"fraction_bits": 60}, "fraction_bits"),
    ],
)
def test_agreements_that_cannot_be_are_refused(change, message):
    given = {"session": "s", "keys": {n: n.encode() * 32 for n in "abc"}, "num_values": 2}
    with pytest.raises(hz.ConfigError, match=message):
        Agreement(**({"bound": 1.0} | given | change))


def test_domains_release_the_sum_of_their_users_and_no_more():
    clips = [Clip(0.0, 4.0)]
    generator = torch.Generator().manual_seed(0)
    everyone, cells = parties(3), 2
    values = [4 * torch.rand(300, 1, generator=generator).double() for _ in everyone]
    cell = torch.arange(300) % cells
    own = [collect(v, cell, cells, clips) for v in values]
    agreement = agree(everyone, 6, bound=2.0**40, fraction_bits=0)
    sent = [p.mask(flatten(s), agreement) for p, s in zip(everyone, own)]
    together = unflatten(total(agreement, sent), own[0])
    direct = collect(torch.cat(values), cell.repeat(3), cells, clips)
    for a, b in zip(together[:3], direct[:3]):
        assert torch.equal(a, b)
    pytest.importorskip("opendp")
    pytest.importorskip("dp_accounting")
    released = release(together, Budget(1.0, 1e-6), "together", 8.0)
    assert bool((released.count > 0).all())
    with pytest.raises(hz.InputError, match="values for these sums"):
        unflatten(torch.zeros(5, dtype=torch.long), own[0])


def test_three_domains_learn_their_sum_and_nobodys_numbers(tmp_path):
    sys.path.insert(0, str(EXAMPLES))
    try:
        import secure_sum as example
    finally:
        sys.path.remove(str(EXAMPLES))
    folder = tmp_path / "exchange"
    command = [sys.executable, str(EXAMPLES / "secure_sum.py"), str(folder), "--seconds", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own = [example.sums_of(name) for name in example.DOMAINS]
    together = own[0]._replace(
        **{name: sum(getattr(s, name) for s in own) for name in ("count", "first", "second")}
    )
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == 3
    for name, line in zip(sorted(example.DOMAINS), lines):
        assert line.startswith(f"{name}: ")
        assert line.endswith(str(example.means(together)))
    for name, sums in zip(example.DOMAINS, own):
        words = np.frombuffer((folder / f"{name}.words").read_bytes(), dtype=np.uint64)
        assert not (words.view(np.int64) == flatten(sums).numpy()).any()
        assert (folder / f"{name}.key").stat().st_size == 32
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0
    assert "not empty" in again.stderr


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    hide(monkeypatch, "cryptography")
    with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[privacy\]"):
        Party("a")
