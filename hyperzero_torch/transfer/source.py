"""A source: another domain's evidence, made by hand, from a study, or from a study's journal.

It holds settings in the user's units, deltas per setting and metric, and meta-features. ``align``
brings it into a target's space and metrics.

Deltas are relative changes against the *source's* own control. Two domains whose controls differ
may differ by an offset at every setting, which a model of both has to include.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..errors import ConfigError, InputError, JournalCorruptError
from ..problem.options import with_options
from ..problem.parameters import Value
from ..problem.problem import Problem
from ..problem.written import space_of
from ..study import goals
from ..study.config import TunerConfig
from ..study.config.reasons import masked
from ..study.evidence.active_set import fit_set
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History, history_of
from ..study.journal import StudyHeader, open_journal
from ..study.journal.goals_trace import GoalsChanged
from . import checks, features
from .checks import Flaws, shown

#: What to do with a package where a source is expected.
PACKAGE_HINT = (
    "this looks like a transfer package: hz.transfer.package.load(path, scope).source makes it a "
    "source"
)
_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")
# Smallest standard deviation of a delta.
_EXACT = 1e-9


@dataclass(frozen=True, eq=False)
class Source:
    """Another domain's evidence. Everything is copied and checked as a whole.

    Args:
        parameters: ``n`` settings in the user's units, over the same parameters.
        metrics: names, in the order of the columns of ``mean``.
        mean: ``(n, metrics)`` deltas against the source's own control, fractions; NaN where not
            known. Stored as float64 on the CPU.
        var: ``(n, metrics)`` variances of ``mean``, finite and above 0 where it is known; stored
            as infinity where it is not.
        meta_features: features of the domain, finite numbers by name; see ``features``.
        num_rounds: rounds of the setting that was served most, if known.
        origin: where it came from, for the audit trail.
        base: the control's setting, if known.
        shared: ``(metrics, n, n)`` covariance of the errors that all settings share because they
            were compared with one control, a part of ``var``; None if it is not known.
    Raises:
        ConfigError: one error that names everything that is wrong.
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
        if self.num_rounds is not None:
            checks.whole(flaws, "num_rounds", self.num_rounds, 0)
        if not isinstance(self.origin, str):
            flaws.add(f"origin must be text, got {checks.brief(self.origin)}")
        base = None if self.base is None else checks.setting(flaws, "base", self.base)
        if base and rows and set(base) != set(rows[0]):
            flaws.add(
                f"base must name the parameters {shown(sorted(map(str, rows[0])))}, "
                f"got {shown(sorted(base))}"
            )
        flaws.throw()
        fields: dict[str, Any] = {"parameters": rows, "metrics": metrics, "mean": mean, "var": var}
        fields |= {"meta_features": meta, "base": base, "shared": shared}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of settings."""
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

    def to_plain(self) -> dict[str, Any]:
        """JSON values without ``origin`` and ``shared``; what is not known is None."""
        return {
            "name": self.name,
            "parameters": [dict(row) for row in self.parameters],
            "metrics": list(self.metrics),
            "mean": _numbers(self.mean),
            "var": _numbers(self.var),
            "meta_features": dict(self.meta_features),
            "num_rounds": self.num_rounds,
            "base": None if self.base is None else dict(self.base),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Source:
        """A source from ``to_plain``'s values, and ``origin`` and ``shared`` if they are given.

        Raises:
            ConfigError, TypeError, KeyError: values that are no source.
        """
        evidence = {
            name: [[math.nan if v is None else v for v in row] for row in plain[name]]
            for name in ("mean", "var")
        }
        return cls(**{**plain, **evidence})


def _numbers(values: Tensor) -> list[list[float | None]]:
    rows: list[list[float]] = values.tolist()
    return [[value if math.isfinite(value) else None for value in row] for row in rows]


def from_bucket(
    problem: Problem,
    bucket: Bucket,
    name: str,
    meta_features: Mapping[str, float] | None = None,
    origin: str = "",
    rows: Tensor | None = None,
) -> Source:
    """A study's own evidence as a source for others.

    Candidates without evidence are left out, and so is the control: its delta is 0 by definition,
    and ``base`` holds its setting.

    Args:
        meta_features: of the domain, e.g. from ``features.of``.
        origin: where the evidence came from.
        rows: candidates to take, ``(n,)``; by default all. Their shared error is a matrix over
            them: for a study with thousands take ``active_set.fit_set``.

    Raises:
        ConfigError: no candidate has evidence, or a meta-feature is not finite.
    """
    has_evidence = (bucket.weight > 0).any(-1)
    rows = torch.arange(len(has_evidence)) if rows is None else rows
    rows = rows[has_evidence[rows]]
    if not len(rows):
        raise ConfigError(
            f"source {name!r} has no evidence yet: no candidate has reported together with its "
            "control; let its study run some rounds first"
        )
    return Source(
        name=name,
        parameters=problem.space.to_parameters(bucket.theta[rows]),
        metrics=problem.metrics,
        mean=bucket.mean[rows],
        # A metric without any spread has variance 0, which a source must not have.
        var=bucket.var[rows].clamp_min(_EXACT**2),
        meta_features=meta_features or {},
        num_rounds=int(bucket.num_rounds.max()),
        origin=origin,
        base=problem.base,
        shared=bucket.shared(rows),
    )


def pooled(history: History) -> tuple[TunerConfig, Bucket]:
    """A study's configuration and its evidence, pooled by it."""
    config = TunerConfig(**history.config)
    return config, gather(history, Pooling.of(config))


def features_of(history: History, extra: Mapping[str, float] | None = None) -> dict[str, float]:
    """A study's meta-features by its own configuration; ``extra`` features override."""
    config, bucket = pooled(history)
    return features.of(history, config.rounds_per_day, bucket.dispersion, extra)


def from_history(
    problem: Problem,
    history: History,
    name: str,
    extra: Mapping[str, float] | None = None,
    origin: str = "",
) -> Source:
    """A study's own evidence and features, pooled by its own configuration.

    Args and errors as for ``from_bucket``; ``extra`` features override those from the readings.
    """
    config, bucket = pooled(history)
    meta = features.of(history, config.rounds_per_day, bucket.dispersion, extra)
    return from_bucket(problem, bucket, name, meta, origin, fit_set(history, bucket, config))


def from_journal(
    address: str,
    name: str | None = None,
    meta_features: Mapping[str, float] | None = None,
    before: int | None = None,
) -> Source:
    """The evidence of a study in a journal: ``"sqlite:///study.db#feed"``.

    Evidence is pooled by the study's own configuration, for the candidates that the study itself
    would fit a surrogate to. The problem is read from the study's header, so an objective that was
    a callable is not needed.

    Args:
        address: the journal's URL, ``#``, and the study's name.
        name: of the source; the study's by default.
        meta_features: in addition to those computed from the readings (``features.of``), which
            they override.
        before: take only rounds before this one; None for all.
    Raises:
        InputError: an address without a study.
        StudyNotFoundError: no such journal, or no such study in it; nothing is created.
        JournalError: the journal cannot be read.
        ConfigError: the study has no evidence yet, or a meta-feature is not a finite number.
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
    _problem_of(header)  # before the entries, which rest on it
    history = history_of(header)
    history.extend(entries)
    problem = _problem_of(header, history.goals)
    if before is not None:
        history.tables = {r: table for r, table in history.tables.items() if r < before}
    # An address may hold a password, which must not be stored or exported.
    origin = f"{Address.of(url)}#{study}"
    return from_history(problem, history, study if name is None else name, added, origin)


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
            f"{address!r} is a journal in memory, which other processes cannot read; name a file "
            "or a database, such as 'sqlite:///study.db#feed', or make a source of the study's "
            "bucket with hz.transfer.from_bucket"
        )
    return url, study


def _is_file(address: Any) -> bool:
    """Whether an address is the path of a file, as a package has, rather than a URL."""
    return isinstance(address, str) and "#" not in address and "://" not in address


def _problem_of(header: StudyHeader, changes: Sequence[GoalsChanged] = ()) -> Problem:
    """The problem but for its objective, which may have been a callable: any stands in for it.

    Its space is the one in force, with all options that there ever were.
    """
    spec = goals.latest(header, changes)
    try:
        space = space_of(spec)
        metrics = [str(name) for name in spec["metrics"]]
        problem = Problem(space, spec["base"], metrics, lambda delta: delta[..., 0])
        return with_options(problem, goals.options_of(header, changes))
    except (KeyError, TypeError, ValidationError, InputError) as error:
        raise JournalCorruptError(
            f"the header of study {header.study!r} describes no problem ({error}); restore the "
            "journal from a backup"
        ) from None
