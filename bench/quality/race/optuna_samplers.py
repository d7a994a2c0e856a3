"""``optuna_gp`` and ``optuna_tpe``: Optuna 5's samplers for constrained problems.

Batches follow Optuna's "Ask-and-Tell" tutorial: ``study.ask`` once per arm, ``study.tell`` when
the readings have arrived. Until then the trial is running, and both samplers avoid running trials
(``GPSampler`` by q-batch acquisition, ``TPESampler`` by ``constant_liar``, on by default).
Constraints use ``trial.set_constraint``, <= 0 where they hold, which version 5 recommends instead
of ``constraints_func``. Samplers have their default settings; ``GPSampler`` estimates the noise,
since Optuna takes no variances. The base is the first trial.
"""

from __future__ import annotations

from abc import abstractmethod

import optuna
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from torch import Tensor

from hyperzero_torch.simulate import Environment

from .contender import Peer, Seen, key


class _Optuna(Peer):
    def __init__(self, world: Environment, seed: int, **options: float | None) -> None:
        super().__init__(world, seed, **options)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(sampler=self.sampler(seed), direction="maximize")
        self._box: dict[str, BaseDistribution] = {
            f"x{i}": FloatDistribution(0.0, 1.0) for i in range(self.dims)
        }
        self._running: dict[tuple[float, ...], list[optuna.Trial]] = {}

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """The sampler under its documented settings."""

    def propose(self, seen: Seen) -> Tensor:
        if seen.round == 0:
            self.study.enqueue_trial(dict(zip(self._box, seen.x[0].tolist())))
            self._running[key(seen.x[0])] = [self.study.ask(self._box)]
        self._tell(seen)
        rows = []
        for _ in range(self.arms):
            trial = self.study.ask(self._box)
            x = [float(trial.params[name]) for name in self._box]
            self._running.setdefault(key(x), []).append(trial)
            rows.append(x)
        return torch.tensor(rows, dtype=torch.float64)

    def _tell(self, seen: Seen) -> None:
        outcomes = seen.outcomes()
        for i, row in enumerate(seen.rows.tolist()):
            for trial in self._running.pop(key(seen.x[row]), []):
                for k, slack in enumerate(outcomes.slack[i].tolist()):
                    trial.set_constraint(f"constraint {k}", -slack)
                self.study.tell(trial, float(outcomes.utility[i]))
        for row in seen.lost:
            for trial in self._running.pop(key(seen.x[row]), []):
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)


class OptunaGP(_Optuna):
    def sampler(self, seed: int) -> BaseSampler:
        return optuna.samplers.GPSampler(seed=seed)


class OptunaTPE(_Optuna):
    def sampler(self, seed: int) -> BaseSampler:
        return optuna.samplers.TPESampler(seed=seed)
