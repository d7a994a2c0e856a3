"""A source: another domain's evidence, from hand, from a study, or from a study's journal.

Settings stand in the user's units, with deltas per setting and metric, and meta-features; how they
are brought into a target's terms is told in ``align``.

Deltas are relative changes against the *source's* own control: two domains whose controls differ
may differ by an offset at every setting, which whoever models both has to allow for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ..errors import ConfigError, InputError, JournalCorruptError
from ..problem.parameters import Parameter, Value
from ..problem.problem import Problem
from ..problem.space import SearchSpace
from ..study.config import TunerConfig
from ..study.config.base import masked
from ..study.evidence.active_set import fit_set
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History
from ..study.journal import StudyHeader, open_journal
from . import checks, features
from .checks import Flaws, shown

#: What to do with a package where a source is wanted.
PACKAGE_HINT = (
    "this looks like a transfer package: hz.transfer.package.load(path, scope).source makes it a "
    "source"
)
_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")
# Standard deviation of a delta that is known exactly.
_EXACT = 1e-9


@dataclass(frozen=True, eq=False)
class Source:
    """Another domain's evidence; everything is copied, and checked as a whole.

    Args:
        name: of the domain.
        parameters: ``n`` settings in the user's units, over the same parameters.
        metrics: names, in the order of the columns of ``mean``.
        mean: ``(n, metrics)`` deltas against the source's own control, fractions; NaN where not
            known. Kept as float64 on the CPU.
        var: ``(n, metrics)`` variances of ``mean``, finite and above 0 where it is known; kept
            as infinity where it is not.
        meta_features: what the domain is like, finite numbers by name; see ``features``.
        num_rounds: rounds of the setting that was served most, where known.
        origin: where it came from, for the audit trail.
        base: the control's setting, where known.
        shared: ``(metrics, n, n)`` covariance of the errors that all settings share because they
            were compared with one control, a part of ``var``; None where it is not known.
    Raises:
        ConfigError: one error that names all that is wrong.
    """

    name: str
    parameters: Sequence[Mapping[str, Value]]
    metrics: Sequence[str]
    mean: Tensor
    var: Tensor
    meta_features: Mapping[str, float] = field(default_factory=dict)
    num_rounds: int | None = None
    origin: str = ""
    base: Mapping[str, Value] | None = None
    shared: Tensor | None = None

    def __post_init__(self) -> None:
        flaws = Flaws(f"source {checks.brief(self.name, 60)}")
        if not isinstance(self.name, str) or not self.name.strip():
            flaws.add("name must be a non-empty string")
        rows = checks.settings(flaws, self.parameters)
        metrics = checks.names(flaws, "metrics", self.metrics)
        shape = (len(rows), len(metrics)) if rows and metrics else None
        mean, var = checks.evidence(flaws, self.mean, self.var, shape)
        meta = checks.floats(flaws, "meta_features", self.meta_features)
        shared = None
        if self.shared is not None and tuple(var.shape) == shape:
            shared = checks.covariance(flaws, self.shared, var, len(metrics))
        if self.num_rounds is not None and (
            type(self.num_rounds) is not int or self.num_rounds < 0
        ):
            flaws.add(
                f"num_rounds must be a whole number from 0 on, got {checks.brief(self.num_rounds)}"
            )
        if not isinstance(self.origin, str):
            flaws.add(f"origin must be text, got {checks.brief(self.origin)}")
        base = None if self.base is None else checks.setting(flaws, "base", self.base)
        if base and rows and set(base) != set(rows[0]):
            flaws.add(
                f"base must name the parameters {shown(sorted(map(str, rows[0])))}, "
                f"got {shown(sorted(base))}"
            )
        flaws.throw()
        kept: dict[str, Any] = {"parameters": rows, "metrics": metrics, "mean": mean, "var": var}
        kept |= {"meta_features": meta, "base": base, "shared": shared}
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Settings."""
        return len(self.parameters)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of the first setting."""
        return tuple(self.parameters[0])

    def fingerprint(self) -> str:
        """SHA-256 of the evidence alone: equal where settings, metrics, mean and var are."""
        order = sorted(self.parameter_names)
        rows = [[row[name] for name in order] for row in self.parameters]
        text = json.dumps([order, rows, list(self.metrics)])
        digest = hashlib.sha256(text.encode())
        for tensor in (self.mean, self.var):
            digest.update(repr(tensor.tolist()).encode())
        return digest.hexdigest()


def from_bucket(
    problem: Problem,
    bucket: Bucket,
    name: str,
    meta_features: Mapping[str, float] | None = None,
    origin: str = "",
    rows: Tensor | None = None,
) -> Source:
    """The evidence of a study of our own, as a source for others.

    Candidates of which nothing is known are left out, the control among them: its own delta is 0
    by definition, and ``base`` says where it stands.

    Args:
        problem: of the study.
        bucket: its evidence.
        name: of the source.
        meta_features: of the domain, e.g. from ``features.of``.
        origin: where the evidence came from.
        rows: candidates to take, ``(n,)``; by default all. The error they share is a matrix over
            them: take ``view.fit_set`` of a study with thousands.

    Raises:
        ConfigError: nothing is known of any candidate, or a meta-feature is not finite.
    """
    return _evidence(
        problem.space, problem.base, problem.metrics, bucket, rows, name, meta_features, origin
    )


def from_journal(
    address: str, name: str | None = None, meta_features: Mapping[str, float] | None = None
) -> Source:
    """The evidence of a study in a journal: ``"sqlite:///study.db#feed"``.

    Evidence is pooled as the study itself pools it, by its own configuration, of the candidates
    that the study itself would fit a surrogate to. The problem is read from the study's header, so
    an objective that was a callable is not needed.

    Args:
        address: the journal's URL, ``#``, and the study's name.
        name: of the source; the study's by default.
        meta_features: on top of those computed from the readings (``features.of``), which they
            override.
    Raises:
        InputError: an address without a study.
        StudyNotFoundError: no such journal, or no such study in it; nothing is created.
        JournalError: the journal cannot be read.
        ConfigError: the study has no evidence yet, or a meta-feature is no finite number.
    """
    from ..study.journal.address import Address  # SQLAlchemy only where it is used

    url, study = _split(address)
    flaws = Flaws(f"the source {study!r}")
    added = {} if meta_features is None else checks.floats(flaws, "meta_features", meta_features)
    flaws.throw()
    journal = open_journal(url, create=False)
    try:
        header, entries = journal.header(study), journal.read(study)
    finally:
        journal.close()
    space, base, metrics = _read_header(header)
    history = History(space.num_params, metrics)
    history.extend(entries)
    config = TunerConfig(**history.config)
    bucket = gather(
        history,
        Pooling(config.weights, config.rounds_per_day, config.calibrate, config.block_rounds),
    )
    rows = fit_set(history, bucket, config)
    found = features.of(history, config.rounds_per_day, bucket.dispersion)
    found |= added
    name = study if name is None else name
    # An address may hold a password; what is kept and exported does not.
    return _evidence(space, base, metrics, bucket, rows, name, found, f"{Address.of(url)}#{study}")


def _evidence(
    space: SearchSpace,
    base: Mapping[str, Value],
    metrics: Sequence[str],
    bucket: Bucket,
    rows: Tensor | None,
    name: str,
    meta_features: Mapping[str, float] | None,
    origin: str,
) -> Source:
    known = (bucket.weight > 0).any(-1)
    rows = torch.arange(len(known)) if rows is None else rows
    rows = rows[known[rows]]
    if not len(rows):
        raise ConfigError(
            f"source {name!r} has no evidence yet: no candidate has reported together with its "
            "control; let its study run some rounds first"
        )
    return Source(
        name=name,
        parameters=space.to_parameters(bucket.theta[rows]),
        metrics=metrics,
        mean=bucket.mean[rows],
        # A metric without any spread is known exactly; a billionth is near enough.
        var=bucket.var[rows].clamp_min(_EXACT**2),
        meta_features=meta_features or {},
        num_rounds=int(bucket.num_rounds.max()),
        origin=origin,
        base=base,
        shared=bucket.shared(rows),
    )


def _split(address: str) -> tuple[str, str]:
    url, mark, study = address.rpartition("#") if isinstance(address, str) else ("", "", "")
    if not mark or not url or not study:
        raise InputError(
            "expected a journal's URL, '#' and a study's name, such as 'sqlite:///study.db#feed', "
            f"got {masked(checks.brief(address, 200))}"
            + (f"; {PACKAGE_HINT}" if _is_file(address) else "")
        )
    if url in _MEMORY or url.startswith("memory:"):
        raise InputError(
            f"{address!r} is a journal in memory, which nobody else can read; name a file or a "
            "database, such as 'sqlite:///study.db#feed', or make a source of the study's bucket "
            "with hz.transfer.from_bucket"
        )
    return url, study


def _is_file(address: Any) -> bool:
    """Whether an address is the path of a file, as a package has, rather than a URL."""
    return isinstance(address, str) and "#" not in address and "://" not in address


def _read_header(header: StudyHeader) -> tuple[SearchSpace, Mapping[str, Value], tuple[str, ...]]:
    """What of a problem does not hang on its objective: the space, the base and the metrics."""
    try:
        kinds = TypeAdapter(list[Parameter]).validate_python(header.problem["parameters"])
        space = SearchSpace(kinds, header.problem.get("theta_constraints", ()))
        theta = space.theta(header.problem["base"], "base")
        metrics = tuple(str(name) for name in header.problem["metrics"])
    except (KeyError, TypeError, ValidationError, InputError) as error:
        raise JournalCorruptError(
            f"the header of study {header.study!r} describes no problem ({error}); restore the "
            "journal from a backup"
        ) from None
    return space, space.to_parameters(theta.unsqueeze(0))[0], metrics
