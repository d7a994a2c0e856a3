"""Another study's posterior mean as a prior mean: ``journal-url#study``, also with ``@round``.

The study's evidence is read once, when a tuner is made, and fitted by the package's own model over
the target's space. Its fingerprint identifies the mean, so a study goes on with the same evidence
or not at all: name a round where the other study goes on.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, FitError
from ..problem.problem import Problem
from .alignment import align
from .model.source_posterior import fit_source
from .source import Source, from_journal

_BEFORE = re.compile(r"(?P<address>.*#.*)@(?P<round>\d+)")


class SourceMean:
    """The posterior mean of a source's deltas, by its own evidence; 0 for metrics it has not.

    Args:
        source: the other study.
        problem: whose parameters and metrics count.
        text: names it for people.
    Raises:
        ConfigError: it does not fit the problem, or nothing can be fitted to it.
    """

    def __init__(self, source: Source, problem: Problem, text: str) -> None:
        self.text = text
        self.descriptor = f"{text}|{source.fingerprint()}"
        self._space = problem.space
        try:
            self._fitted = fit_source(align(source, problem), problem)
        except FitError as error:
            raise ConfigError(f"prior_mean {text!r} cannot be fitted: {error}") from error
        self._columns = [problem.metrics.index(name) for name in self._fitted.metrics]
        self._num = problem.num_metrics

    def __call__(self, theta: Tensor) -> Tensor:
        """``(N, params)`` to ``(N, metrics)``."""
        x = self._space.to_unit(theta)
        mean, _ = self._fitted.posterior.marginal(x.to(self._fitted.posterior.x))
        whole = theta.new_zeros(len(theta), self._num)
        columns = torch.tensor(self._columns, device=theta.device)
        return whole.index_copy(1, columns, mean.to(theta))


def mean_of_source(address: str, problem: Problem) -> SourceMean:
    """The mean of ``"journal-url#study"`` or ``"journal-url#study@round"``: rounds before it.

    Raises:
        JournalError: the journal cannot be read, or has no such study.
        ConfigError: the study has no evidence, or does not fit the problem.
    """
    match = _BEFORE.fullmatch(address)
    place, before = (address, None) if match is None else (match["address"], int(match["round"]))
    source = from_journal(place, before=before)
    text = f"the mean of {source.origin}" + ("" if before is None else f" before round {before}")
    return SourceMean(source, problem, text)


def placed(reference: str, folder: Path) -> str:
    """A reference whose relative SQLite path is taken from ``folder``."""
    if "#" not in reference:
        return reference
    from ..study.journal.address import placed as place  # SQLAlchemy only where it is used

    url, _, study = reference.rpartition("#")
    return f"{place(url, folder)}#{study}"
