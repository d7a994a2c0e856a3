"""``multitask`` and ``rgpe``: BoTorch's two ways to learn from other tasks, at equal traffic.

Both choose their arms as the race's ``qlognei`` does (constrained log noisy expected improvement,
what is in flight as pending); only the model differs, and there is one from the first hour on:

multitask   ``MultiTaskGP`` per metric with known noise, as its documentation asks: the target is
            task 0, every source one more, outcomes standardised task by task, inputs in the unit
            cube, intrinsic coregionalisation; posteriors of the target's task
rgpe        the ranking-weighted ensemble of BoTorch's tutorial "Meta-Learning with the
            Rank-Weighted GP Ensemble": a ``SingleTaskGP`` per source and metric on standardised
            outcomes, fitted once; weights from 256 draws by the ranking loss, the target's with
            each row left out in turn; every model is in its own task's units

What differs from the tutorial: known noise is standardised together with the outcomes, as it has to
be; before three of the target's rows are known, the fewest the tutorial starts with, the sources
weigh equally. ``guarded=1`` drops sources that would dilute the ensemble, which the paper has and
the tutorial leaves out (Feurer, Letham and Bakshy 2018, section 3.2).

Sources are thinned to 400 rows in all, at random, because ``MultiTaskGP`` is exact. Each hour's fit
of a model starts where the last hour's ended and takes at most 50 steps, 10 after the first.
Posteriors are those of the fitted models, restated (``settled``).
What is recommended is chosen by this package's rule with the same sources, which is generous to the
peers.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, MultiTaskGP, SingleTaskGP
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

import hyperzero_torch as hz
from bench.quality.race.contender import Peer, Seen
from bench.quality.race.qlognei import best_batch
from hyperzero_torch.simulate import Environment
from hyperzero_torch.transfer import Source, align

from .settled import Ensemble, Settled, Units, rank_weights, single, target_of

_MOST_ROWS = 400
_FLOOR = 1e-5  # of the noise, in units of the standardised outcome
_FEWEST = 3  # rows of the target, before it has a model and a scale of its own
_FIRST_STEPS, _LATER_STEPS = 50, 10  # of a fit


class Rows(NamedTuple):
    """Evidence of one task: ``x (n, dims)``, ``mean`` and ``var (n, metrics)``."""

    x: Tensor
    mean: Tensor
    var: Tensor


class Transferring(Peer):
    """Arms by qLogNEI under a model that knows the sources."""

    def __init__(self, world: Environment, seed: int, given: list[Source], **options: Any) -> None:
        super().__init__(world, seed, **options)
        self.tuner = hz.Tuner(world.problem, seed=seed, sources=given)
        aligned = [align(source, world.problem) for source in given]
        generator = torch.Generator().manual_seed(seed)
        most = max(1, _MOST_ROWS // max(1, len(aligned)))
        self.sources: list[Rows] = []
        for source in aligned:
            rows = torch.randperm(len(source.x), generator=generator)[:most]
            self.sources.append(Rows(source.x[rows], source.mean[rows], source.var[rows]))
        self.fitted: dict[int, dict[str, Tensor]] = {}  # by metric, where its next fit starts

    @abstractmethod
    def parts(self, own: Rows, metric: int) -> tuple[list[Settled], Tensor]:
        """Processes for a metric of the target, given its rows, and their weights."""

    def model(self, seen: Seen) -> Model:
        """One that predicts every metric of the target."""
        own = Rows(seen.x[seen.rows], seen.mean[seen.rows], seen.var[seen.rows])
        return ModelListGP(*(Ensemble(*self.parts(own, k)) for k in range(own.mean.shape[1])))

    def propose(self, seen: Seen) -> Tensor:
        seed = self.seed * 1000 + seen.round
        torch.manual_seed(seed)
        model, x = self.model(seen), seen.x[seen.rows]
        with torch.no_grad():
            mean = model.posterior(torch.rand(256, self.dims, dtype=torch.float64)).mean
        outcome = seen.problem.evaluate(mean)
        return best_batch(model, seen, outcome, self.arms, seed, prune=len(x) > 1)

    def fit(self, model: Any, metric: int) -> None:
        """Maximise the marginal likelihood, from where this metric's last fit ended."""
        before = self.fitted.get(metric)
        if before is not None:
            parameters = dict(model.named_parameters())
            with torch.no_grad():
                for name, value in before.items():
                    parameters[name].copy_(value)
        _maximise(model, _FIRST_STEPS if before is None else _LATER_STEPS)
        self.fitted[metric] = {n: p.detach().clone() for n, p in model.named_parameters()}


class MultiTask(Transferring):
    """A ``MultiTaskGP`` per metric."""

    def parts(self, own: Rows, metric: int) -> tuple[list[Settled], Tensor]:
        tasks = [own, *self.sources]
        values = [(task.mean[:, metric], task.var[:, metric]) for task in tasks]
        # Before the target's rows have a scale, it is that of all.
        like = None if len(own.x) >= _FEWEST else torch.cat([y for y, _ in values])
        units = [Units.of(*values[0], like), *(Units.of(y, var) for y, var in values[1:])]
        x = torch.cat(
            [torch.cat([t.x, torch.full_like(t.x[:, :1], i)], 1) for i, t in enumerate(tasks)]
        )
        model = MultiTaskGP(
            x,
            torch.cat([u.y for u in units]).unsqueeze(-1),
            task_feature=-1,
            train_Yvar=torch.cat([u.noise for u in units]).clamp_min(_FLOOR).unsqueeze(-1),
            output_tasks=[0],
            outcome_transform=None,
        )
        self.fit(model, metric)
        return [target_of(model, units[0])], torch.ones(1, dtype=torch.float64)


class RankingWeighted(Transferring):
    """RGPE per metric; source models are fitted once.

    Args:
        guarded: 1 drops sources that would dilute the ensemble.
    """

    def __init__(
        self,
        world: Environment,
        seed: int,
        given: list[Source],
        *,
        guarded: float = 0,
        **options: Any,
    ) -> None:
        super().__init__(world, seed, given, **options)
        self.guarded = bool(guarded)
        self.base: list[list[Settled]] = []
        for k in range(world.problem.num_metrics):
            self.base.append([])
            for source in self.sources:
                model, units = _single(source, k)
                _maximise(model, _FIRST_STEPS)
                self.base[k].append(single(model, units))

    def parts(self, own: Rows, metric: int) -> tuple[list[Settled], Tensor]:
        base = self.base[metric]
        if len(own.x) < _FEWEST:
            return base, torch.ones(len(base), dtype=torch.float64)
        model, units = _single(own, metric)
        self.fit(model, metric)
        target = single(model, units)
        weights = rank_weights(target, base, own.x, own.mean[:, metric], self.guarded)
        return [*base, target], weights


def _single(rows: Rows, metric: int) -> tuple[SingleTaskGP, Units]:
    units = Units.of(rows.mean[:, metric], rows.var[:, metric])
    noise = units.noise.clamp_min(_FLOOR).unsqueeze(-1)
    return SingleTaskGP(rows.x, units.y.unsqueeze(-1), noise, outcome_transform=None), units


def _maximise(model: Any, steps: int) -> None:
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model),
        optimizer_kwargs={"options": {"maxiter": steps}},
    )
