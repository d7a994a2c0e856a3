"""The sources as the tuner sees them: a family made once, and a judgement every round.

family      the sources' own work: done once, kept                          (family)
judge       each round: may they count, how much, is it better with them?   (weights, guard)
seeds       before any evidence: where to look first                        (seeding)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from ..errors import ConfigError, FitError
from ..problem.problem import Problem
from ..surrogate import Posterior
from .alignment import Aligned, align
from .duplicates import check_distinct
from .model import (
    ablation,
    betting,
    coregionalization,
    gates,
    rgpe,
    seeds,
    target,
)
from .model.family import Family, SourceBeliefs, gather_family, own_posterior
from .model.inducing import Spectrum
from .model.target import Learned
from .overrides import ExpertOverride, Whom
from .source import Source

Method: TypeAlias = Literal["shared", "ensemble"]

# Points all over the space among which inducing points are chosen, beside the sources' own.
_NUM_FILLING = 256
# Numbers that no model takes: a study never fails by what others have sent.
_UNFIT = (FitError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]


class Judgement(NamedTuple):
    """What a round goes by: ``posterior``, the ``cold`` one, and ``facts`` for the journal.

    ``used`` says whether the sources have any part in ``posterior``.
    """

    posterior: Posterior
    cold: Posterior
    used: bool
    facts: dict[str, Any]


class Prior:
    """Sources, aligned with a target.

    Args:
        problem: the target.
        sources: other domains' evidence, at least one.
        overrule: an expert's word: a pinned source has this correlation with the target whatever
            the evidence says, once the gates are passed; a forbidden one counts for nothing; of a
            discounted one that part of its precision is believed. Of a single parameter likewise:
            what is not believed of it is asked only where it stands as in the target's base. An
            ensemble knows forbidden and discounted sources alone.
        method: ``"shared"`` for the hierarchical model; ``"ensemble"`` weighs the sources' own
            posteriors by rank (``ensemble``), where what they handed over are beliefs.
    Raises:
        ConfigError: a source that cannot be aligned, or evidence that would count twice.
    """

    def __init__(
        self,
        problem: Problem,
        sources: Sequence[Source],
        overrule: ExpertOverride | None = None,
        method: Method = "shared",
    ) -> None:
        check_distinct(sources)
        self.problem = problem
        self.overrule, self.method = overrule or ExpertOverride(), method
        self.sources = tuple(sources)
        self.aligned: tuple[Aligned, ...] = tuple(align(source, problem) for source in sources)
        #: Those of which anything is believed.
        self.allowed = tuple(a for a in self.aligned if not self.overrule.silences(a.name))

    @cached_property
    def family(self) -> Family:
        """The allowed sources on common ground; some seconds of work for ten large ones.

        Raises:
            ConfigError: none is allowed.
        """
        if not self.allowed:
            raise ConfigError("every source is forbidden, so there is no family of them")
        filling = self.problem.space.sobol(_NUM_FILLING, seed=0)
        return gather_family(self.allowed, filling, _said(self.problem, self.overrule))

    @property
    def looks(self) -> bool:
        """Whether any source says what its domain is like."""
        return any(source.meta for source in self.aligned)

    def judge(
        self,
        cold: Posterior,
        meta: Mapping[str, float] | None = None,
        staked: Mapping[str, float] | None = None,
    ) -> Judgement:
        """Whether and how the sources count, by the target's own evidence.

        Args:
            cold: the posterior without them; what comes back where they do not count.
            meta: what the target's domain is like, see ``features.of``; sources that look like it
                are thought likelier to act like it, as far as the evidence leaves that open.
            staked: by source, how alike it looked when it was first weighed; see ``weights``.
        """
        if not self.allowed:
            return _unheard(cold, "every source is forbidden")
        try:
            if self.method == "ensemble":
                return self._judge_by_rank(cold)
            return self._judge_shared(cold, meta or {}, staked or {})
        except _UNFIT as error:
            return _unheard(cold, f"the sources could not be weighed ({error})")

    def _judge_shared(
        self, cold: Posterior, meta: Mapping[str, float], staked: Mapping[str, float]
    ) -> Judgement:
        family = self.family.to(cold.device)
        silent = self._silent()
        if not bool(family.known.any()):
            reason = "no source says anything of any metric"
            return _unheard(cold, reason, silent)
        alike = betting.likeness([a.meta for a in self.allowed], meta, family.share)
        looks = dict(zip(family.names, _rounded(alike)))
        stakes = looks | {name: v for name, v in staked.items() if name in looks}
        found = target.learn(family, cold, alike, alike.new_tensor([*stakes.values()]))
        verdict = gates.admit(found)
        facts = _facts(family, found, verdict) | silent
        if self.looks and meta:
            for name, one in facts["sources"].items():
                one |= {"likeness": looks[name], "staked": stakes[name]}
        if not verdict.admitted:
            return Judgement(cold, cold, False, facts)
        warm = target.posterior(family, cold, found)
        held = gates.compare(warm, cold)
        facts["held_out"] = held.facts(self.problem.metrics)
        if not bool(held.better.all()):
            share = torch.where(held.better.unsqueeze(1), found.share, 0.0)
            found = found._replace(share=share)
            warm = target.posterior(family, cold, found)
            for name, weight in zip(family.names, source_weights(family, share).T):
                facts["sources"][name]["weight"] = _rounded(weight)
        used = bool((found.share[:, -1] > 0).any())
        facts["metrics"] = [
            name for name, own in zip(self.problem.metrics, found.share[:, -1].tolist()) if own > 0
        ]
        facts["used"] = used
        if not used:
            facts["reason"] = held.reason
            return Judgement(cold, cold, False, facts)
        less = {n: Spectrum(*(f.to(cold.device) for f in s)) for n, s in self._less.items()}
        nats = ablation.carried(family, found.target, found.share, less)
        facts["parameters"] = {name: _rounded(values) for name, values in nats.items()}
        return Judgement(warm, cold, True, facts)

    def _silent(self) -> dict[str, Any]:
        """Metrics of which a source says nothing, for the journal; empty where all are heard."""
        found = {
            name: [m for m, heard in zip(self.problem.metrics, known) if not heard]
            for name, known in zip(self.family.names, self.family.known.T.tolist())
        }
        silent = {name: metrics for name, metrics in found.items() if metrics}
        return {"silent": silent} if silent else {}

    @cached_property
    def _less(self) -> dict[str, Spectrum]:
        """The sources without what they say about each parameter."""
        columns = _columns(self.problem)
        base = self.problem.space.to_unit(self.problem.base_theta.unsqueeze(0))[0]
        return dict(zip(columns, ablation.left_out(self.family, base, [*columns.values()])))

    def _judge_by_rank(self, cold: Posterior) -> Judgement:
        models = {name: model.to(cold.device) for name, model in self.models.items()}
        generator = torch.Generator(cold.device).manual_seed(len(cold.x))
        found = rgpe.ensemble([*models.values()], cold, generator)
        facts = rgpe.facts([*models], found)
        taken = (found.weight[:, -1] < 1).tolist()
        used = any(taken)
        facts["used"] = used
        facts["metrics"] = [name for name, t in zip(self.problem.metrics, taken) if t]
        facts["reason"] = (
            "sources rank the target's evidence better than its own model in some draws"
            if used
            else "no source ranks the target's evidence better than its own model does"
        )
        # An ensemble is used like a posterior wherever one is.
        return Judgement(cast(Posterior, found) if used else cold, cold, used, facts)

    @cached_property
    def models(self) -> dict[str, Posterior]:
        """Each source's own posterior, 0 at the target's base; those without a metric left out."""
        base = self.problem.space.to_unit(self.problem.base_theta.unsqueeze(0))[0]
        found = {}
        for source in self.allowed:
            if source.missing:
                continue
            left = self.overrule.discount.get(source.name, 1.0)
            source = source._replace(var=source.var / left)
            with contextlib.suppress(*_UNFIT):  # too little evidence for a posterior
                found[source.name] = rgpe.anchored(own_posterior(source), base)
        return found

    def seeds(self, problem: Problem, num: int, generator: torch.Generator) -> seeds.Seeds:
        """Candidates that the sources suggest for the first bucket, ``num`` at most."""
        why = "every source is forbidden"
        if self.allowed:
            try:
                return seeds.seeds(problem, self.family, num, generator)
            except _UNFIT as error:
                why = f"the sources could not be weighed ({error})"
        theta = torch.empty(0, problem.space.num_params, dtype=torch.float64)
        reason = f"{why}: the first design is the usual one"
        return seeds.Seeds(theta, {"seeds": 0, "reason": reason})


def _unheard(cold: Posterior, why: str, silent: Mapping[str, Any] | None = None) -> Judgement:
    """A cold start, because of no source anything can be said."""
    facts = {"used": False, "metrics": [], "reason": why, **(silent or {})}
    return Judgement(cold, cold, False, facts)


def _said(problem: Problem, overrule: ExpertOverride) -> SourceBeliefs:
    """An expert's words in the terms of the space."""
    columns = _columns(problem)
    left: dict[Whom, float] = {**overrule.discount, **dict.fromkeys(overrule.forbid, 0.0)}
    belief: dict[str, float] = {}
    apart: dict[str, list[tuple[slice, float]]] = {}
    for whom, part in left.items():
        if isinstance(whom, str):
            belief[whom] = part
        else:
            source, parameter = whom
            apart.setdefault(source, []).append((columns[parameter], part))
    pin = {str(whom): value for whom, value in overrule.pin.items()}
    base = problem.space.to_unit(problem.base_theta.unsqueeze(0))[0]
    return SourceBeliefs(base, belief, apart, pin)


def _columns(problem: Problem) -> dict[str, slice]:
    """Coordinates of each parameter."""
    ends = [0, *accumulate(problem.space.widths)]
    return {name: slice(*pair) for name, pair in zip(problem.space.names, pairwise(ends))}


def _facts(family: Family, found: Learned, verdict: gates.Verdict) -> dict[str, Any]:
    """Plain values for the journal."""
    share = found.share
    weight = source_weights(family, share)
    return {
        "used": verdict.admitted,
        "metrics": [],
        "reason": verdict.reason,
        "wealth": round(found.scores.wealth, 4),
        "needed": round(verdict.needed, 4),
        "together": _rounded(found.scores.together),
        "target_share": _rounded(share[:, -1]),
        "sources": {
            name: {
                "nats": _rounded(found.scores.each[:, i]),
                "similarity": _rounded(share[:, i] * share[:, -1]),
                "weight": _rounded(weight[:, i]),
                "agreement": _rounded(family.share[:, i]),
            }
            for i, name in enumerate(family.names)
        },
    }


def source_weights(family: Family, share: Tensor) -> Tensor:
    """Each source's part of what is known of the shared function, ``(metrics, sources)``.

    Parts of the precision's trace; they sum to 1, or are all 0 where nothing is taken over.
    """
    parts = []
    for i in range(len(family.names)):
        alone = torch.zeros_like(share[:, :-1])
        alone[:, i] = share[:, i]
        known = coregionalization.factor(family.spectrum, alone).precision
        parts.append(known.diagonal(dim1=-2, dim2=-1).sum(-1) - known.shape[-1])
    told = torch.stack(parts, dim=1) * (share[:, -1:] > 0)
    return told / told.sum(1, keepdim=True).clamp_min(1e-300)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
