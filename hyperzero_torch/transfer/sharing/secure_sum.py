"""Secure aggregation: the sum of several domains' numbers, without any single domain's numbers.

    word_i = value_i + sum_{j > i} mask_ij - sum_{j < i} mask_ij      (mod 2^64)

Every two parties share a secret (X25519), from which both derive the same mask (HKDF-SHA-256, then
the ChaCha20 key stream). One adds it, the other subtracts it. A party's words are uniformly random
to anyone who lacks one of its masks, and the sum of all words is the sum of the values, exactly, in
fixed point. ``examples/secure_sum.py`` runs it between three processes.

**Protection**: against an honest-but-curious aggregator, and any parties that collude with it: they
learn the sum and what follows from it. A party whose fellows all collude has no protection, so at
least three take part. Public keys must reach the parties unforged (a key directory, or signatures).
A party that lies about its values is not detected.

**Dropout**: without one party's words its masks remain in the sum, and the sum is refused. The
remaining parties agree anew, on another session, and send again; masks are never used twice. The
words of the first session reveal nothing, but the sums of two rosters reveal their difference.

Source: Bonawitz et al. (2017), the pairwise masks of their protocol, without the recovery of
masks after a dropout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError, MissingExtraError
from .. import checks
from .clipping import Sums

_FEWEST = 3
_WORD = 8
_ROOM = 2**63
_KEY_BYTES = 32


@dataclass(frozen=True)
class Agreement:
    """What all parties agree on before any of them sends; every mask depends on its ``digest``.

    Args:
        session: a name that is used once.
        keys: the parties' public keys by name, at least three.
        num_values: how many numbers each party sends.
        bound: the largest magnitude of one of them; sums may be larger by the number of parties.
        fraction_bits: of the fixed point: numbers are rounded to ``2 ** -fraction_bits``; 0 for
            whole numbers.
    Raises:
        ConfigError: it is invalid; names everything that is wrong.
    """

    session: str
    keys: Mapping[str, bytes]
    num_values: int
    bound: float
    fraction_bits: int = 24

    def __post_init__(self) -> None:
        flaws = checks.Flaws("this agreement")
        if not isinstance(self.session, str) or not self.session.strip():
            flaws.add(f"session must be a non-empty string, got {self.session!r:.40}")
        if not isinstance(self.keys, Mapping):
            flaws.add("keys must map parties to public keys")
            flaws.throw()
        names = checks.names(flaws, "parties", self.keys)
        if 0 < len(names) < _FEWEST:
            flaws.add(
                f"expected at least {_FEWEST} parties, got {len(names)}: with two, each learns the "
                "other's numbers"
            )
        keys = list(self.keys.values())
        if any(not isinstance(k, bytes) or len(k) != _KEY_BYTES for k in keys):
            flaws.add(f"a public key has {_KEY_BYTES} bytes; use Party.public_key")
        elif len(set(keys)) < len(keys):
            flaws.add("two parties have the same key")
        checks.whole(flaws, "num_values", self.num_values, 1)
        checks.whole(flaws, "fraction_bits", self.fraction_bits, 0, 52)
        number = checks.is_real(self.bound) and checks.is_finite(self.bound)
        if not number or not self.bound > 0:
            flaws.add(f"bound must be a number above 0, got {checks.brief(self.bound)}")
        flaws.throw()
        if (self.bound * 2**self.fraction_bits + 1) * len(names) >= _ROOM:
            flaws.add(
                f"sums of {len(names)} numbers up to {self.bound:g} with {self.fraction_bits} bits "
                "of fraction do not fit into 64 bits; use fewer bits"
            )
        flaws.throw()
        # 1 and 1.0 are the same bound and must give the same digest.
        object.__setattr__(self, "bound", float(self.bound))
        object.__setattr__(self, "keys", {n: self.keys[n] for n in sorted(names)})

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that was agreed."""
        keys = [[name, key.hex()] for name, key in self.keys.items()]
        agreed = [self.session, keys, self.num_values, self.bound, self.fraction_bits]
        return hashlib.sha256(json.dumps(agreed).encode()).digest()


class Masked(NamedTuple):
    """What a party sends: ``words (values,)``, uint64, under the agreement of this ``digest``."""

    party: str
    digest: bytes
    words: NDArray[np.uint64]


class Party:
    """One domain's side. Its private key never leaves it; use a new party for a new purpose.

    Args:
        name: that all parties use for it.
    Raises:
        InputError: an empty name.
        MissingExtraError: cryptography is not installed.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"a party needs a name, got {checks.brief(name)}")
        x25519, serialization = _library().x25519, _library().serialization
        self.name = name
        self._private = x25519.X25519PrivateKey.generate()
        self._done: set[str] = set()
        self.public_key: bytes = self._private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def __repr__(self) -> str:
        return f"Party({self.name!r})"

    def mask(self, values: Tensor, agreement: Agreement) -> Masked:
        """Masked values, safe to send.

        Args:
            values: ``(num_values,)``, any numeric dtype, within the agreed bound.
            agreement: of all parties, this one with its own key among them.
        Raises:
            InputError: values out of bounds or in another number, an agreement without this
                party, or a session that it has already taken part in.
        """
        words = _encode(values, agreement)
        if agreement.keys.get(self.name) != self.public_key:
            raise InputError(f"the agreement does not name {self.name!r} with its own key")
        if agreement.session in self._done:
            raise InputError(
                f"{self.name!r} has already taken part in session {agreement.session!r}: the same "
                "masks over other values would reveal their difference; agree on a new session"
            )
        names = list(agreement.keys)
        own = names.index(self.name)
        for other, name in enumerate(names):
            if other != own:
                mask = self._mask_with(name, agreement)
                words = words + mask if other > own else words - mask  # modulo 2^64
        self._done.add(agreement.session)
        return Masked(self.name, agreement.digest, words)

    def _mask_with(self, name: str, agreement: Agreement) -> NDArray[np.uint64]:
        c = _library()
        try:
            public = c.x25519.X25519PublicKey.from_public_bytes(agreement.keys[name])
            secret = self._private.exchange(public)
        except ValueError as error:  # a point of small order
            raise InputError(f"the public key of {name!r} is invalid ({error})") from None
        pair = json.dumps(sorted((self.name, name)))
        info = b"hyperzero-aggregation/1 " + agreement.digest + pair.encode()
        key = c.HKDF(c.hashes.SHA256(), _KEY_BYTES, None, info).derive(secret)
        # Each session and pair has its own key, so a constant nonce is used only once.
        stream = c.Cipher(c.algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
        raw = stream.update(bytes(_WORD * agreement.num_values))
        return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def total(agreement: Agreement, sent: Sequence[Masked]) -> Tensor:
    """The sum over all parties, exact in fixed point.

    Args:
        agreement: that all sent under.
        sent: by every party, once.
    Returns:
        ``(num_values,)``: float64, or int64 where the agreement has no fraction.
    Raises:
        InputError: a party is missing, sent twice, is unknown, or sent under another agreement.
    """
    checks.expect(agreement, Agreement, "an Agreement")
    if not isinstance(sent, Sequence) or not all(
        isinstance(m, Masked) and isinstance(m.party, str) for m in sent
    ):
        raise InputError(f"expected what every party sent, Masked, got {checks.brief(sent, 80)}")
    names = [m.party for m in sent]
    wrong = [m.party for m in sent if m.digest != agreement.digest or m.party not in agreement.keys]
    twice = sorted({n for n in names if names.count(n) > 1})
    sized = [m.party for m in sent if not _is_words(m.words, agreement.num_values)]
    if wrong or twice or sized:
        raise InputError(
            f"these cannot be summed: of another agreement {wrong}, sent twice {twice}, not "
            f"{agreement.num_values} words {sized}"
        )
    if missing := [n for n in agreement.keys if n not in names]:
        raise InputError(
            f"nothing came from {missing}, and the masks of the others do not cancel without it; "
            "agree on a new session without them, and send again"
        )
    words = np.zeros(agreement.num_values, dtype=np.uint64)
    for m in sent:
        words = words + m.words.astype(np.uint64)
    whole = torch.from_numpy(words.view(np.int64).copy())
    bits = agreement.fraction_bits
    return whole if bits == 0 else whole.double() / 2.0**bits


def flatten(sums: Sums) -> Tensor:
    """Clipped sums as integers to send, ``(values,)`` int64; agree on 0 fraction bits."""
    checks.expect(sums, Sums, "Sums of clipped contributions")
    return torch.cat([part.flatten() for part in sums[:3]])


def unflatten(whole: Tensor, like: Sums) -> Sums:
    """The sum over domains as ``Sums``, ready for ``noise.release``.

    Args:
        whole: ``(values,)`` int64, from ``total``.
        like: one party's sums: all have the same cells, metrics and clips. Each user is assumed to
            be in one domain only.
    Raises:
        InputError: another number of values, or no integers.
    """
    checks.expect(like, Sums, "Sums of clipped contributions")
    sizes = [part.numel() for part in like[:3]]
    if not isinstance(whole, Tensor) or whole.dtype != torch.int64:
        got = whole.dtype if isinstance(whole, Tensor) else type(whole).__name__
        raise InputError(
            f"expected int64 values, from an agreement with 0 fraction bits, got {got}"
        )
    if whole.shape != (sum(sizes),):
        raise InputError(
            f"expected ({sum(sizes)},) values for these sums, got {tuple(whole.shape)}"
        )
    split = torch.split(whole, sizes)
    count, first, second = (p.reshape(q.shape) for p, q in zip(split, like[:3]))
    return like._replace(count=count, first=first, second=second)


def _is_words(words: Any, num: int) -> bool:
    return isinstance(words, np.ndarray) and words.dtype == np.uint64 and words.shape == (num,)


def _encode(values: Tensor, agreement: Agreement) -> NDArray[np.uint64]:
    checks.expect(agreement, Agreement, "an Agreement")
    if isinstance(values, Tensor) and (values.is_complex() or values.dtype == torch.bool):
        raise InputError(f"expected real numbers, got {values.dtype}; send parts as numbers")
    if isinstance(values, Tensor) and values.layout != torch.strided:
        raise InputError(f"expected a dense tensor, got {values.layout}; send its to_dense()")
    if not isinstance(values, Tensor) or tuple(values.shape) != (agreement.num_values,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"expected a tensor ({agreement.num_values},) of values, got {got}")
    plain = values.detach().cpu()
    magnitude = plain.double().abs()
    if not bool((magnitude <= agreement.bound).all()):  # NaN is not
        raise InputError(
            f"values must be finite and at most {agreement.bound:g} in magnitude, as agreed, got "
            f"{float(magnitude.max()):g}; clip them, or agree on a larger bound"
        )
    if plain.is_floating_point():
        whole = (plain.double() * 2.0**agreement.fraction_bits).round().long()
    else:
        whole = plain.long() * 2**agreement.fraction_bits
    return whole.numpy().view(np.uint64)


def _library() -> SimpleNamespace:
    """The parts of cryptography that are used."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import x25519
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise MissingExtraError("secure aggregation", "cryptography", "privacy") from None
    return SimpleNamespace(
        x25519=x25519, serialization=serialization, hashes=hashes, HKDF=HKDF, Cipher=Cipher,
        algorithms=algorithms,
    )  # fmt: skip
