"""The sources as the tuner uses them: a family fitted once, and a judgement in every round.

family      the sources' own fits, done once and kept                       (family)
judge       each round: are they admitted, how much do they count?          (betting, gates)
seeds       before any evidence: suggested candidates                       (seeds)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, FitError
from ..problem.problem import Problem
from ..study.journal.trace import SourceWeighed, TransferTrace
from ..surrogate import Posterior
from .alignment import Aligned, align
from .duplicates import check_distinct
from .model import ablation, betting, coregionalization, gates, seeds, target
from .model.family import Family, SourceBeliefs, gather_family
from .model.inducing import Spectrum
from .model.target import TargetFit
from .overrides import ExpertOverride
from .source import Source

# Points all over the space among which inducing points are chosen, beside the sources' own.
_NUM_FILLING = 256
# Evidence that no model can be fitted to: sources never make a study fail.
_UNFIT = (FitError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]


class Judgement(NamedTuple):
    """The ``posterior`` that a round uses, the ``cold`` one, and the ``trace`` for the journal.

    ``used`` says whether the sources have any part in ``posterior``.
    """

    posterior: Posterior
    cold: Posterior
    used: bool
    trace: TransferTrace

    def to(self, device: torch.device) -> Judgement:
        """The same with its posteriors on a device."""
        posterior, cold = self.posterior.to(device), self.cold.to(device)
        return self._replace(posterior=posterior, cold=cold)


class Prior:
    """Sources, aligned with a target.

    Args:
        problem: the target.
        sources: other domains' evidence, at least one.
        override: an expert's. A pinned source has this correlation with the target once the gates
            are open; a forbidden one does not count; a discounted one counts with that part of its
            precision. What a source says about a single parameter can be forbidden or discounted
            likewise: the rest of its evidence is used only where the parameter is at the target's
            base.
    Raises:
        ConfigError: a source that cannot be aligned, or evidence that would count twice.
    """

    def __init__(
        self, problem: Problem, sources: Sequence[Source], override: ExpertOverride | None = None
    ) -> None:
        check_distinct(sources)
        self.problem = problem
        self.override = override or ExpertOverride()
        self.sources = tuple(sources)
        self.aligned: tuple[Aligned, ...] = tuple(align(source, problem) for source in sources)
        #: Those that an expert does not exclude.
        self.allowed = tuple(a for a in self.aligned if not self.override.excludes(a.name))

    @cached_property
    def family(self) -> Family:
        """The allowed sources at common inducing points; some seconds of work for ten large ones.

        Raises:
            ConfigError: none is allowed.
        """
        if not self.allowed:
            raise ConfigError("every source is forbidden, so there is no family of them")
        filling = self.problem.space.sobol(_NUM_FILLING, seed=0)
        return gather_family(self.allowed, filling, self._beliefs())

    @property
    def has_features(self) -> bool:
        """Whether any source has meta-features."""
        return any(source.meta for source in self.aligned)

    def judge(
        self,
        cold: Posterior,
        meta: Mapping[str, float] | None = None,
        initial_similarity: Mapping[str, float] | None = None,
    ) -> Judgement:
        """Whether and how much the sources count, by the target's own evidence.

        Args:
            cold: the posterior without them, which is returned where they do not count.
            meta: the target's meta-features, see ``features.of``; a source with similar features
                gets larger stakes and a larger expected loading.
            initial_similarity: by source, when it was first weighed; see ``betting``.
        """
        if not self.allowed:
            return _cold_start(cold, "every source is forbidden")
        try:
            return self._judge(cold, meta or {}, initial_similarity or {})
        except _UNFIT as error:
            return _cold_start(cold, f"the sources could not be fitted ({error})")

    def _judge(
        self, cold: Posterior, meta: Mapping[str, float], initial: Mapping[str, float]
    ) -> Judgement:
        family = self.family.to(cold.device)
        silent = self._silent()
        if not bool(family.has_evidence.any()):
            return _cold_start(cold, "no source has usable evidence on any metric", silent)
        similarity = betting.feature_similarity(
            [a.meta for a in self.allowed], meta, family.loading
        )
        by_name = dict(zip(family.names, _rounded(similarity)))
        stakes = by_name | {name: v for name, v in initial.items() if name in by_name}
        fit = target.fit_target(family, cold, similarity, similarity.new_tensor([*stakes.values()]))
        admission = gates.admit(fit)
        sources = _weighed(family, fit)
        if self.has_features and meta:
            sources = {
                name: source.model_copy(
                    update={"likeness": by_name[name], "initial_similarity": stakes[name]}
                )
                for name, source in sources.items()
            }
        trace = TransferTrace(
            used=admission.admitted,
            metrics=(),
            reason=admission.reason,
            log_e_value=round(fit.scores.log_e_value, 4),
            needed=round(admission.needed, 4),
            together=_rounded(fit.scores.together),
            target_share=_rounded(fit.loading[:, -1]),
            sources=sources,
            silent=silent,
        )
        if not admission.admitted:
            return Judgement(cold, cold, False, trace)
        warm = target.posterior(family, cold, fit)
        held_out = gates.compare(warm, cold)
        changes: dict[str, Any] = {"held_out": held_out.trace(self.problem.metrics)}
        if not bool(held_out.better.all()):
            fit = fit._replace(loading=torch.where(held_out.better.unsqueeze(1), fit.loading, 0.0))
            warm = target.posterior(family, cold, fit)
            weights = dict(zip(family.names, source_weights(family, fit.loading).T))
            changes["sources"] = {
                name: source.model_copy(update={"weight": _rounded(weights[name])})
                for name, source in sources.items()
            }
        own = fit.loading[:, -1].tolist()
        metrics = tuple(name for name, r in zip(self.problem.metrics, own) if r > 0)
        changes |= {"metrics": metrics, "used": bool(metrics)}
        if not metrics:
            changes["reason"] = held_out.reason
            return Judgement(cold, cold, False, trace.model_copy(update=changes))
        reduced = {
            name: Spectrum(*(field.to(cold.device) for field in spectrum))
            for name, spectrum in self._without_each_parameter.items()
        }
        nats = ablation.contributions(family, fit.target, fit.loading, reduced)
        changes["parameters"] = {name: _rounded(values) for name, values in nats.items()}
        return Judgement(warm, cold, True, trace.model_copy(update=changes))

    def _silent(self) -> dict[str, tuple[str, ...]]:
        """Metrics on which a source has no usable evidence, by source; empty if none."""
        metrics = self.problem.metrics
        by_source = zip(self.family.names, self.family.has_evidence.T.tolist())
        return {
            name: tuple(m for m, has_evidence in zip(metrics, row) if not has_evidence)
            for name, row in by_source
            if not all(row)
        }

    @cached_property
    def _without_each_parameter(self) -> dict[str, Spectrum]:
        """The sources' evidence without what it says about each parameter."""
        columns = self._columns()
        spectra = ablation.without_each_parameter(self.family, self._base(), [*columns.values()])
        return dict(zip(columns, spectra))

    def seeds(self, problem: Problem, num: int, generator: torch.Generator) -> seeds.Seeds:
        """Candidates that the sources suggest for the first bucket, ``num`` at most."""
        why = "every source is forbidden"
        if self.allowed:
            try:
                return seeds.seeds(problem, self.family, num, generator)
            except _UNFIT as error:
                why = f"the sources could not be fitted ({error})"
        theta = torch.empty(0, problem.space.num_params, dtype=torch.float64)
        reason = f"{why}: the usual first design is used"
        return seeds.Seeds(theta, TransferTrace(used=False, seeds=0, reason=reason))

    def _beliefs(self) -> SourceBeliefs:
        """The expert's override in coordinates of the unit cube."""
        columns = self._columns()
        kept = {**self.override.discount, **dict.fromkeys(self.override.forbid, 0.0)}
        by_parameter: dict[str, list[tuple[slice, float]]] = {}
        for subject, part in kept.items():
            if not isinstance(subject, str):
                source, parameter = subject
                by_parameter.setdefault(source, []).append((columns[parameter], part))
        whole = {subject: part for subject, part in kept.items() if isinstance(subject, str)}
        pin = {str(subject): value for subject, value in self.override.pin.items()}
        return SourceBeliefs(self._base(), whole, by_parameter, pin)

    def _base(self) -> Tensor:
        """The target's base in the unit cube, ``(dims,)``."""
        return self.problem.space.to_unit(self.problem.base_theta.unsqueeze(0))[0]

    def _columns(self) -> dict[str, slice]:
        """Coordinates of each parameter."""
        space = self.problem.space
        ends = [0, *accumulate(space.widths)]
        return {name: slice(*pair) for name, pair in zip(space.names, pairwise(ends))}


def _cold_start(
    cold: Posterior, reason: str, silent: Mapping[str, tuple[str, ...]] | None = None
) -> Judgement:
    """The cold posterior, because the sources cannot be weighed."""
    trace = TransferTrace(used=False, metrics=(), reason=reason, silent=silent or {})
    return Judgement(cold, cold, False, trace)


def _weighed(family: Family, fit: TargetFit) -> dict[str, SourceWeighed]:
    """What a fit made of each source."""
    scores, loading = fit.scores, fit.loading
    weight = source_weights(family, loading)
    return {
        name: SourceWeighed(
            log_bayes_factor=_rounded(scores.each[:, i]),
            similarity=_rounded(loading[:, i] * loading[:, -1]),
            weight=_rounded(weight[:, i]),
            agreement=_rounded(family.loading[:, i]),
        )
        for i, name in enumerate(family.names)
    }


def source_weights(family: Family, loading: Tensor) -> Tensor:
    """Each source's part of the precision of the shared function, ``(metrics, sources)``.

    Parts of the trace; they sum to 1, or are all 0 where nothing is taken over.
    """
    traces = []
    for i in range(len(family.names)):
        alone = torch.zeros_like(loading[:, :-1])
        alone[:, i] = loading[:, i]
        precision = coregionalization.shared_posterior(family.spectrum, alone).precision
        traces.append(precision.diagonal(dim1=-2, dim2=-1).sum(-1) - precision.shape[-1])
    gained = torch.stack(traces, dim=1) * (loading[:, -1:] > 0)
    return gained / gained.sum(1, keepdim=True).clamp_min(1e-300)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values.tolist())
