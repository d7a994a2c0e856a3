"""A node for Ax's generation strategies: ``GenerationStrategy(nodes=[HyperZeroNode()])``.

At each request the node folds the experiment into a study of ours: the status quo is the control,
arms are candidates, a batch trial is a round, and means with their standard errors are readings,
from which deltas, evidence and the next plan are computed. The plan is a function of the experiment
and the seed, so whatever stores an Ax experiment also stores this study.

Single-arm trials, as Ax's ``Client`` makes them, are treated as one round: each is compared with
the pooled trials of the status quo (``client.attach_baseline``). This does not remove levels that
change between trials; batches do.

Importing this module adds the node to the registries with which Ax reads and writes JSON files, so
``client.save_to_json_file`` and ``Client.load_from_json_file`` work with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ax.core.arm import Arm
from ax.core.data import Data
from ax.core.experiment import Experiment
from ax.core.generator_run import GeneratorRun
from ax.generation_strategy.external_generation_node import ExternalGenerationNode
from ax.generation_strategy.transition_criterion import TransitionCriterion
from ax.storage.json_store.decoder import object_from_json
from ax.storage.json_store.registry import CORE_DECODER_REGISTRY, CORE_ENCODER_REGISTRY

from ...errors import ConfigError, ProblemError, ReadingsError, RoundError, TunerWarning
from ...runtime.randomness import random
from ...study.config import TunerConfig, upcast
from ...surrogate.protocol import FittedPosterior
from ...thompson import propose
from ..axes import whole_number
from .study import AxStudy, fold

#: For few, long rounds: levels are averaged over all of them, and verification begins after four.
# Ax decides how many arms a trial has, and which traffic: a batch of five arms would leave nearly
# all of it to the status quo under the limits on untested candidates. Clients need not follow the
# weights of a batch, so their counts are not compared with them.
AX_CONFIG = TunerConfig(
    rounds_per_day=4,
    initial_candidates=32,
    max_untested_share=1.0,
    max_untested_total=1.0,
    max_risky_total=1.0,
    max_risk=1.0,
    srm_alpha=None,
)


class HyperZeroNode(ExternalGenerationNode):  # type: ignore[misc]  # untyped
    """Plans Ax's trials: arms with weights, repeated while they are worth their traffic.

    A batch is the plan of one round; the status quo is among its arms, with the control's share. A
    single-arm trial is one draw of Algorithm 3.

    Args:
        name: of the node.
        config: how to tune; by default ``AX_CONFIG``.
        seed: of all randomness.
        num_startup: arms with data before single-arm trials use the surrogate; Sobol points until
            then.
        include_status_quo: set it to False if the status quo is added elsewhere, with weight 1.
        transition_criteria: Ax's, if other nodes follow.
    Raises:
        ConfigError: an invalid argument.
    """

    def __init__(
        self,
        name: str = "HyperZero",
        config: TunerConfig | None = None,
        *,
        seed: int = 0,
        num_startup: int = 8,
        include_status_quo: bool = True,
        transition_criteria: Sequence[Any] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"name must be a text that is not empty, got {name!r}; a seed or a configuration "
                "is given by keyword: HyperZeroNode(seed=0, config=TunerConfig(...))"
            )
        if config is not None and not isinstance(config, TunerConfig):
            raise ConfigError(
                f"config is a TunerConfig or None, got {config!r}; make one of a mapping by "
                "TunerConfig(**mapping)"
            )
        if not isinstance(include_status_quo, bool):
            raise ConfigError(f"include_status_quo is True or False, got {include_status_quo!r}")
        super().__init__(
            name=name,
            should_deduplicate=False,
            transition_criteria=_criteria(transition_criteria),
        )
        self.config = config or AX_CONFIG
        self.seed = whole_number("seed", seed, 0, 2**63)
        self.num_startup = whole_number("num_startup", num_startup, 0, 2**31)
        self.include_status_quo = include_status_quo
        self._study: AxStudy | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the experiment, which Ax passes to a copy again at each request."""
        return {n: v for n, v in vars(self).items() if n != "_seen"} | {"_study": None}

    @classmethod
    def serialize_init_args(cls, obj: HyperZeroNode) -> dict[str, Any]:
        """The constructor's arguments; Ax calls this when it stores a node."""
        return {
            "name": obj.name,
            "config": obj.config.model_dump(mode="json"),
            "seed": obj.seed,
            "num_startup": obj.num_startup,
            "include_status_quo": obj.include_status_quo,
            "transition_criteria": list(obj.transition_criteria),
        }

    @classmethod
    def deserialize_init_args(
        cls,
        args: dict[str, Any],
        decoder_registry: Mapping[str, Any] | None = None,
        class_decoder_registry: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The constructor's arguments from what Ax has stored, if this version supports it."""
        registries = {
            "decoder_registry": decoder_registry,
            "class_decoder_registry": class_decoder_registry,
        }
        given = {name: value for name, value in registries.items() if value is not None}
        criteria = object_from_json(args.get("transition_criteria"), **given)
        return args | {
            "config": TunerConfig(**upcast(args["config"])),
            "transition_criteria": criteria,
        }

    @property
    def study(self) -> AxStudy:
        """The study from the latest fold.

        Raises:
            RoundError: the node has seen no experiment yet.
        """
        if self._study is None:
            raise RoundError(f"node {self.name!r} has seen no experiment yet; generate from it")
        return self._study

    def update_generator_state(self, experiment: Experiment, data: Data) -> None:
        """Fold the experiment; raises and warns as ``fold`` does."""
        self._seen = (experiment, data)
        self._study = fold(experiment, data, self.config, self.seed)

    def get_next_candidate(self, pending_parameters: list[dict[str, Any]]) -> dict[str, Any]:
        """One arm; pending arms advance the draw, so that parallel arms differ.

        Raises:
            ReadingsError: ``num_startup`` arms have data and the status quo has none.
        Warns:
            TunerWarning: ``num_startup`` arms have data, and no posterior can be fitted; the arm is
                a Sobol point.
        """
        study, tuner = self.study, self.study.tuner
        number = 1 + study.num_arms + study.num_unknown(pending_parameters)
        space, bucket = tuner.problem.space, tuner.bucket()
        posterior = self._posterior()
        num_tested = int(bucket.has_evidence(tuner.problem.used_metrics).sum())
        if posterior is None or num_tested < self.num_startup:
            scramble = random(self.seed, 0, "startup", torch.device("cpu")).initial_seed()
            x = space.sobol(number, scramble % 2**31)[-1:]
        else:
            problem = tuner.problem
            if problem.base_levels is None and bucket.levels_by_metric is not None:
                problem = problem.with_base_levels(bucket.levels_by_metric)
            generator = random(self.seed, number, "search", torch.device("cpu"))
            config = self.config
            x = propose(
                posterior, problem, config.num_samples, 1, generator, num_starts=config.num_starts
            ).x
        return study.parameters(space.from_unit(x)[0].tolist())

    def _posterior(self) -> FittedPosterior | None:
        """None during start-up; afterwards a missing posterior is an error or a warning."""
        tuner, reported = self.study.tuner, self.study.num_reported
        try:
            return tuner.surrogate()
        except RoundError as error:
            if reported < max(1, self.num_startup):
                return None
            if tuner.bucket().base_levels is None:
                raise ReadingsError(
                    f"{reported} arms have data and the status quo has not reported every metric "
                    f"of {list(tuner.problem.metrics)}, so there are no deltas; complete its trial "
                    "before more arms are asked for, or give the node a larger num_startup"
                ) from None
            warnings.warn(
                f"{reported} arms have data, yet {error}; a Sobol point is given",
                TunerWarning,
                stacklevel=3,
            )
            return None

    def _gen(
        self,
        experiment: Experiment,
        data: Data | None = None,
        n: int | None = None,
        pending_observations: Any = None,
        **generator_gen_kwargs: Any,
    ) -> GeneratorRun:
        """A plan as a generator run; a single arm if ``n`` is 1."""
        if generator_gen_kwargs.get("fixed_features") is not None:
            raise ProblemError(
                "HyperZeroNode cannot hold some parameters fixed for one trial; make them "
                "FixedParameters of the search space"
            )
        if n is not None:
            n = whole_number("n, the number of arms,", n, 1, 2**31)
        if n == 1 or self._generator_spec_to_gen_from is not None:
            return super()._gen(experiment, data, n, pending_observations)
        study = self.study
        if n is not None and n != study.tuner.config.max_arms:
            config = self.config.model_copy(update={"max_arms": n})
            self._study = study = fold(*self._seen, config, self.seed)
        next_round = 1 + len(experiment.trials)  # as ``fold`` numbers batches
        last = study.tuner.history.last_round
        plan = study.tuner.ask(next_round if last is None else max(next_round, 1 + last))
        first = 0 if self.include_status_quo else 1
        return GeneratorRun(
            arms=[Arm(parameters=study.parameters(row)) for row in plan.theta[first:].tolist()],
            # In units of the control's share: Ax loads a stored status quo with weight 1.
            weights=[share / plan.control_share for share in plan.shares[first:]],
            generator_key=self.name,
            gen_metadata={"round": plan.round, "control_share": plan.control_share},
        )


def _criteria(given: Any) -> list[TransitionCriterion] | None:
    """Checked here because Ax would only fail at the first trial."""
    if given is None:
        return None
    if isinstance(given, list | tuple) and all(isinstance(c, TransitionCriterion) for c in given):
        return list(given)
    raise ConfigError(
        f"transition_criteria is a list of Ax's TransitionCriterions or None, got {given!r}"
    )


def _encoded(node: HyperZeroNode) -> dict[str, Any]:
    return {"__type": "HyperZeroNode", **HyperZeroNode.serialize_init_args(node)}


# Ax's defaults: clients without registries of their own use them, and RegistryBundles extend them.
CORE_ENCODER_REGISTRY[HyperZeroNode] = _encoded
CORE_DECODER_REGISTRY["HyperZeroNode"] = HyperZeroNode
