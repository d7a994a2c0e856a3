"""``ax``: Ax's transfer learning, its ``BOTL`` generator, at equal traffic.

There is no tutorial of it (github.com/facebook/Ax/issues/5227), so it is used as its code documents
it: every source is an experiment of its own, attached as ``AuxiliarySource`` under the purpose
``TRANSFERABLE_EXPERIMENT``; the generators and the rule that chooses between them come from
``transfer_learning_generator_specs_constructor`` with its defaults: a ``MultiTaskGP`` per metric
over target and sources, a process of the target alone beside it, and each hour the one whose
cross-validated predictions rank the target's arms better, "with the aim of protecting against
negative transfer". Before ten of the target's arms are known, it is the first alone. Ax leaves each
arm out in turn, which takes most of an hour's time; here they are left out in five folds.

Metrics are utility and slacks, relative to the own control of target or source, with known standard
errors; the slacks' constraints are absolute; what is in flight is pending; the base is the status
quo. How it is run on A/B tests, and what of the acquisition's search is cut, is as with the race's
``ax_default``: five arms a round beside a control that weighs sqrt(arms) of them. Ax repeats the
best arm there by its own prediction; here all arms are new.

What is recommended is chosen by this package's rule with the same sources, which is generous.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from ax.adapter.transfer_learning import TL_EXP, transfer_learning_generator_specs_constructor
from ax.core.arm import Arm
from ax.core.auxiliary_source import AuxiliarySource
from ax.core.data import Data, DataRow
from ax.core.experiment import Experiment
from ax.core.metric import Metric
from ax.core.objective import Objective
from ax.core.observation import ObservationFeatures
from ax.core.optimization_config import OptimizationConfig
from ax.core.outcome_constraint import OutcomeConstraint
from ax.core.parameter import ParameterType, RangeParameter
from ax.core.search_space import SearchSpace
from ax.generation_strategy.generation_node import GenerationNode
from torch import Tensor

import hyperzero_torch as hz
from bench.quality.race.ax_client import _SEARCH
from bench.quality.race.contender import Outcomes, Peer, Seen, key, outcomes
from hyperzero_torch.simulate import Environment
from hyperzero_torch.transfer import Source, align

_METRIC = "utility"
_MOST_ROWS = 400  # of all sources, at random, as for the other peers
_FEWEST = 10  # arms of the target before models are compared


class AxTransfer(Peer):
    """One Ax trial per round.

    Args:
        folds: of the cross-validation; -1 leaves out each arm in turn.
    """

    default_arms = 5

    def __init__(
        self,
        world: Environment,
        seed: int,
        given: list[Source],
        *,
        folds: float = 5,
        **options: Any,
    ) -> None:
        super().__init__(world, seed, **options)
        self.tuner = hz.Tuner(world.problem, seed=seed, sources=given)
        problem = world.problem
        generator = torch.Generator().manual_seed(seed)
        self.experiment = _experiment("target", self.dims, problem.num_constraints)
        self.experiment.status_quo = Arm(
            _parameters(problem.space.to_unit(problem.base_theta)), name="base"
        )
        self.names: dict[tuple[float, ...], tuple[int, str]] = {}  # from x to trial and arm
        most = max(1, _MOST_ROWS // max(1, len(given)))
        sources = []
        for aligned in (align(source, problem) for source in given):
            rows = torch.randperm(len(aligned.x), generator=generator)[:most]
            evidence = outcomes(problem, aligned.mean[rows], aligned.var[rows])
            sources.append(AuxiliarySource(_past(aligned.name, aligned.x[rows], evidence)))
        self.experiment.auxiliary_experiments_by_purpose = {TL_EXP: sources}
        specs, selector = transfer_learning_generator_specs_constructor()
        assert selector is not None
        selector.cv_kwargs = {**(selector.cv_kwargs or {}), "folds": int(folds)}
        for spec in specs:
            spec.generator_gen_kwargs["model_gen_options"] = {"optimizer_kwargs": _SEARCH}
        self.guarded = GenerationNode("guarded", specs, best_model_selector=selector)
        self._alone = GenerationNode("transfer", specs[:1])

    def control_share(self, num_arms: int) -> float:
        if self._control_share is not None:
            return self._control_share
        return 1.0 / (1.0 + math.sqrt(num_arms))

    def propose(self, seen: Seen) -> Tensor:
        torch.manual_seed(self.seed * 1000 + seen.round)
        if seen.round == 0:
            base = self.experiment.new_trial().add_arm(self.experiment.status_quo)
            self.names[key(seen.x[0])] = (base.index, "base")
            base.mark_running(no_runner_required=True)
        node = self.guarded if len(seen.rows) >= _FEWEST else self._alone
        waiting = [ObservationFeatures(_parameters(seen.x[row])) for row in seen.pending]
        run = node.gen(
            experiment=self.experiment,
            data=self.data(seen),
            n=self.arms,
            pending_observations=dict.fromkeys(self.experiment.metrics, waiting),
        )
        trial = self.experiment.new_batch_trial(generator_runs=[run])
        trial.mark_running(no_runner_required=True)
        x = [[float(arm.parameters[f"x{i}"]) for i in range(self.dims)] for arm in trial.arms]
        for row, arm in zip(x, trial.arms):
            self.names.setdefault(key(row), (trial.index, arm.name))
        return torch.tensor(x, dtype=torch.float64)

    def data(self, seen: Seen) -> Data:
        """All that is known of the target's arms."""
        named = [self.names[key(seen.x[row])] for row in seen.rows.tolist()]
        return _rows(named, seen.outcomes())


def _experiment(name: str, dims: int, num_constraints: int) -> Experiment:
    slacks = [f"slack_{k}" for k in range(num_constraints)]
    signatures = {metric: metric for metric in (_METRIC, *slacks)}
    wanted = [
        OutcomeConstraint(f"{slack} >= 0", metric_name_to_signature=signatures) for slack in slacks
    ]
    return Experiment(
        name=name,
        search_space=SearchSpace(
            [RangeParameter(f"x{i}", ParameterType.FLOAT, 0.0, 1.0) for i in range(dims)]
        ),
        optimization_config=OptimizationConfig(
            Objective(_METRIC, metric_name_to_signature=signatures), outcome_constraints=wanted
        ),
        tracking_metrics=[Metric(metric) for metric in signatures],
    )


def _past(name: str, x: Tensor, evidence: Outcomes) -> Experiment:
    """A source as an experiment with one finished trial."""
    experiment = _experiment(name, x.shape[1], evidence.slack.shape[1])
    trial = experiment.new_batch_trial()
    arms = [Arm(_parameters(row), name=f"{name}_{i}") for i, row in enumerate(x)]
    trial.add_arms_and_weights(arms)
    trial.mark_running(no_runner_required=True)
    experiment.attach_data(_rows([(trial.index, arm.name) for arm in arms], evidence))
    trial.mark_completed()
    return experiment


def _rows(named: list[tuple[int, str]], evidence: Outcomes) -> Data:
    columns = {_METRIC: (evidence.utility, evidence.utility_var)}
    for k, (slack, var) in enumerate(zip(evidence.slack.unbind(-1), evidence.slack_var.unbind(-1))):
        columns[f"slack_{k}"] = (slack, var)
    return Data(
        [
            DataRow(trial, arm, metric, metric, mean, math.sqrt(var))
            for metric, (means, variances) in columns.items()
            for (trial, arm), mean, var in zip(named, means.tolist(), variances.tolist())
        ]
    )


def _parameters(x: Tensor) -> dict[str, Any]:
    return {f"x{i}": float(value) for i, value in enumerate(x)}
