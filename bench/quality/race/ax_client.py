"""``ax_default``: Ax's ``Client`` with its default strategy.

The strategy is Ax's own choice (centre, Sobol points, then BoTorch with known noise and pending
points). The base is attached by ``attach_baseline``, constraints are relative to it
("slack_1 >= 0.999 * baseline"), data are (mean, standard error). The advice of Ax's authors for A/B
tests is followed (github.com/facebook/Ax/issues/274 and 2342, tutorial "Factorial design"):
metrics relative to the control of the same hour; more arms with less traffic each (8 and more, "for
3 parameters maybe 5"; each new one costs a second or more, so here they are 5); some arms of
earlier batches repeated (here the best one by Ax's model); and a control with sqrt(arms) times the
weight of an arm. Sobol points continue until the first readings arrive
(``allow_exceeding_initialization_budget``), because otherwise there would be nothing to serve. Only
the search for the acquisition function's maximum is shortened, from 20 restarts among 1024 raw
points to 4 of 50 steps among 256, by the generator's documented ``optimizer_kwargs``: it took
nearly all the time.
"""

from __future__ import annotations

import math

import torch
from ax.adapter.registry import Generators
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from torch import Tensor

from hyperzero_torch.simulate import Environment

from .contender import Outcomes, Peer, Seen, key

_METRIC = "utility"
_SEARCH = {
    "num_restarts": 4,
    "raw_samples": 256,
    "retry_on_optimization_warning": False,  # it would restart a search that used all its steps
    "options": {"init_batch_limit": 256, "maxiter": 50},
}


class AxDefault(Peer):
    """One Ax trial per candidate.

    Args:
        repeats: how many of the arms are repeated, the best first; 0 or 1.
    """

    default_arms = 5

    def __init__(
        self,
        world: Environment,
        seed: int,
        *,
        repeats: float = 1,
        **options: float | None,
    ) -> None:
        super().__init__(world, seed, **options)
        self.repeats = int(repeats)
        self.client = Client(random_seed=seed)
        self._names = [f"x{i}" for i in range(self.dims)]
        self._trials: dict[tuple[float, ...], int] = {}  # from x to the Ax trial
        self._bounds: dict[str, float] = {}  # of each constraint, relative to the baseline's 1
        self._rounds: dict[int, int] = {}  # from the Ax trial to the number of rounds in its data

    def control_share(self, num_arms: int) -> float:
        if self._control_share is not None:
            return self._control_share
        return 1.0 / (1.0 + math.sqrt(num_arms))

    def settings(self) -> dict[str, float]:
        return super().settings() | {"repeats": self.repeats}

    def propose(self, seen: Seen) -> Tensor:
        if seen.round == 0:
            self._configure(seen)
        self._tell(seen)
        rows = self._best(seen) if self.repeats else []
        fresh = self.client.get_next_trials(max_trials=self.arms - len(rows))
        for trial, parameters in fresh.items():
            x = [float(parameters[name]) for name in self._names]
            self._trials.setdefault(key(x), trial)
            rows.append(x)
        return torch.tensor(rows, dtype=torch.float64)

    def _configure(self, seen: Seen) -> None:
        slack = seen.outcomes().slack[0].tolist()
        self._bounds = {f"slack_{k}": 1.0 - base for k, base in enumerate(slack)}
        self.client.configure_experiment(
            parameters=[
                RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0))
                for name in self._names
            ]
        )
        self.client.configure_optimization(
            objective=_METRIC,
            outcome_constraints=[
                f"{name} >= {bound:.12g} * baseline" for name, bound in self._bounds.items()
            ],
        )
        self.client.configure_generation_strategy(
            initialization_random_seed=self.seed, allow_exceeding_initialization_budget=True
        )
        for node in self.client._generation_strategy.nodes_by_name.values():
            for spec in node.generator_specs:
                if spec.generator_enum is Generators.BOTORCH_MODULAR:
                    spec.generator_gen_kwargs["model_gen_options"] = {"optimizer_kwargs": _SEARCH}
        base = dict(zip(self._names, seen.x[0].tolist()))
        self._trials[key(seen.x[0])] = self.client.attach_baseline(base)

    def _tell(self, seen: Seen) -> None:
        outcomes = _relative(seen.outcomes())
        for i, row in enumerate(seen.rows.tolist()):
            trial = self._trials[key(seen.x[row])]
            rounds = int(seen.num_rounds[row])
            if self._rounds.get(trial) == rounds:
                continue
            data = {_METRIC: (float(outcomes.utility[i]), float(outcomes.utility_var[i]) ** 0.5)}
            for k in range(outcomes.slack.shape[1]):
                data[f"slack_{k}"] = (
                    float(outcomes.slack[i, k]),
                    float(outcomes.slack_var[i, k]) ** 0.5,
                )
            if trial in self._rounds:
                self.client.attach_data(trial, data)
            else:
                self.client.complete_trial(trial, data)
            self._rounds[trial] = rounds
        for row in seen.lost:
            trial = self._trials[key(seen.x[row])]
            if trial not in self._rounds:
                self.client.mark_trial_abandoned(trial)
                self._rounds[trial] = 0

    def _best(self, seen: Seen) -> list[list[float]]:
        """The best candidate by Ax's model, unless that is the base."""
        if len(seen.rows) <= 2 * self.arms:
            return []
        points = [dict(zip(self._names, x)) for x in seen.x[seen.rows].tolist()]
        predicted = self.client.predict(points)
        slack = [name for name in predicted[0] if name != _METRIC]
        safe = [
            (means[_METRIC][0], i)
            for i, means in enumerate(predicted)
            if all(means[name][0] >= self._bounds[name] for name in slack)
        ]
        best = max(safe)[1] if safe else 0
        return [seen.x[seen.rows[best]].tolist()] if best else []


def _relative(outcomes: Outcomes) -> Outcomes:
    """Values relative to the base, which is row 0 and becomes 1."""
    base = float(outcomes.utility[0])
    unit = abs(base) if abs(base) > 1e-9 else 1.0
    return Outcomes(
        1 + (outcomes.utility - base) / unit,
        outcomes.utility_var / unit**2,
        1 + outcomes.slack - outcomes.slack[0],
        outcomes.slack_var,
    )
