"""A node for Ax's generation strategies: ``GenerationStrategy(nodes=[HyperZeroNode()])``.

Each time it is asked, the node folds the experiment into a study of ours: the status quo is the
control, arms are candidates, a batch trial is a round, and means with their standard errors are
readings, from which come deltas, evidence and the next plan. What it says is a function of the
experiment and the seed, so whatever stores an Ax experiment stores this study.

Trials of a single arm, as Ax's ``Client`` makes them, are compared as if they were one round: with
the pooled trials of the status quo (``client.attach_baseline``). That takes out no level that moves
between trials; batches do.

Importing this module adds the node to the registries that Ax's JSON files are written and read
with, so ``client.save_to_json_file`` and ``Client.load_from_json_file`` take it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch

from ...errors import (
    ConfigError,
    MissingExtraError,
    ProblemError,
    ReadingsError,
    RoundError,
    TunerWarning,
)
from ...runtime.randomness import random
from ...study.config import TunerConfig
from ...surrogate import Posterior
from ...thompson import propose

try:
    from ax.core.arm import Arm
    from ax.core.data import Data
    from ax.core.experiment import Experiment
    from ax.core.generator_run import GeneratorRun
    from ax.generation_strategy.external_generation_node import ExternalGenerationNode
    from ax.generation_strategy.transition_criterion import TransitionCriterion
    from ax.storage.json_store.decoder import object_from_json
    from ax.storage.json_store.registry import CORE_DECODER_REGISTRY, CORE_ENCODER_REGISTRY

    from .study import AxStudy, fold
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ax", "ax-platform", "ax") from error

__all__ = ["AX_CONFIG", "AxStudy", "HyperZeroNode", "fold"]

#: Few rounds, each long: levels are averaged over all, and verification is reached after four.
AX_CONFIG = TunerConfig(rounds_per_day=4, initial_candidates=32)


class HyperZeroNode(ExternalGenerationNode):  # type: ignore[misc]  # untyped
    """Plans Ax's trials: arms with weights, repeated as long as they are worth their traffic.

    A batch is one round's plan, the status quo among its arms with the control's share. A trial of
    a single arm is one draw of Algorithm 3.

    Args:
        name: of the node.
        config: how to tune; by default ``AX_CONFIG``.
        seed: of all randomness.
        num_startup: arms with data before single-arm trials follow the surrogate; until then they
            are Sobol points.
        include_status_quo: leave it out where whoever makes the trials adds it, with weight 1.
        transition_criteria: Ax's, where other nodes follow.
    Raises:
        ConfigError: an argument that cannot be.
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
                f"a node is named by a text that is not empty, got {name!r}; a seed or a "
                "configuration is given by name: HyperZeroNode(seed=0, config=TunerConfig(...))"
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
        self.seed = _whole("seed", seed, 0, 2**63)
        self.num_startup = _whole("num_startup", num_startup, 0, 2**31)
        self.include_status_quo = include_status_quo
        self._study: AxStudy | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the experiment, which a copy is shown anew whenever it is asked."""
        return {n: v for n, v in vars(self).items() if n != "_seen"} | {"_study": None}

    @classmethod
    def serialize_init_args(cls, obj: HyperZeroNode) -> dict[str, Any]:
        """The arguments that make the node again; called by Ax when it stores one."""
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
        """The arguments of a node that Ax has stored.

        Raises:
            ConfigError: a configuration that this version does not know.
        """
        registries = {
            "decoder_registry": decoder_registry,
            "class_decoder_registry": class_decoder_registry,
        }
        given = {name: value for name, value in registries.items() if value is not None}
        criteria = object_from_json(args.get("transition_criteria"), **given)
        return args | {"config": TunerConfig(**args["config"]), "transition_criteria": criteria}

    @property
    def study(self) -> AxStudy:
        """The experiment as it was last folded.

        Raises:
            RoundError: the node has seen none yet.
        """
        if self._study is None:
            raise RoundError(f"node {self.name!r} has seen no experiment yet; generate from it")
        return self._study

    def update_generator_state(self, experiment: Experiment, data: Data) -> None:
        """Fold the experiment; raises and warns as ``fold`` does."""
        self._seen = (experiment, data)
        self._study = fold(experiment, data, self.config, self.seed)

    def get_next_candidate(self, pending_parameters: list[dict[str, Any]]) -> dict[str, Any]:
        """One arm: a draw of its own for each that is pending.

        Raises:
            ReadingsError: as many arms as the start-up takes have data and the status quo has none.
        Warns:
            TunerWarning: as many have data and no posterior can be had; a Sobol point is given.
        """
        study, tuner = self.study, self.study.tuner
        number = 1 + study.num_arms + study.num_unknown(pending_parameters)
        space, bucket = tuner.problem.space, tuner.bucket()
        posterior = self._posterior()
        if posterior is None or int(bucket.tested.sum()) < self.num_startup:
            scramble = random(self.seed, 0, "startup", torch.device("cpu")).initial_seed()
            x = space.sobol(number, scramble % 2**31)[-1:]
        else:
            problem = tuner.problem
            if problem.base_levels is None and bucket.base_levels is not None:
                problem = problem.with_base_levels(bucket.base_levels)
            generator = random(self.seed, number, "search", torch.device("cpu"))
            numbers = (self.config.num_samples, 1)
            x = propose(
                posterior, problem, *numbers, generator, num_starts=self.config.num_starts
            ).x
        return study.parameters(space.from_unit(x)[0].tolist())

    def _posterior(self) -> Posterior | None:
        """None at the start; later that it is missing is no secret."""
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
        """A plan as a generator run; a single arm where ``n`` is 1."""
        if generator_gen_kwargs.get("fixed_features") is not None:
            raise ProblemError(
                "HyperZeroNode cannot hold some parameters fixed for one trial; make them "
                "FixedParameters of the search space"
            )
        if n is not None:
            n = _whole("n, the number of arms,", n, 1, 2**31)
        if n == 1 or self._generator_spec_to_gen_from is not None:
            return super()._gen(experiment, data, n, pending_observations)
        study = self.study
        if n is not None and n != study.tuner.config.max_arms:
            config = self.config.model_copy(update={"max_arms": n})
            self._study = study = fold(*self._seen, config, self.seed)
        coming = 1 + len(experiment.trials)  # the round of the next trial, as ``fold`` counts
        last = study.tuner.history.last_round
        plan = study.tuner.ask(coming if last is None else max(coming, 1 + last))
        first = 0 if self.include_status_quo else 1
        return GeneratorRun(
            arms=[Arm(parameters=study.parameters(row)) for row in plan.theta[first:].tolist()],
            # In units of the control's share: Ax gives a status quo that it loads weight 1.
            weights=[share / plan.control_share for share in plan.shares[first:]],
            generator_key=self.name,
            gen_metadata={"round": plan.round, "control_share": plan.control_share},
        )


def _whole(name: str, value: Any, least: int, below: int) -> int:
    """A number as NumPy's are too, for what comes from loops over arrays; True is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) < below:
        raise ConfigError(f"{name} is a whole number >= {least} and < {below}, got {value!r}")
    return int(value)


def _criteria(given: Any) -> list[TransitionCriterion] | None:
    """Ax takes whatever it is given, and fails at the first trial."""
    listed = isinstance(given, list | tuple)
    if given is None or (listed and all(isinstance(one, TransitionCriterion) for one in given)):
        return None if given is None else list(given)
    raise ConfigError(
        f"transition_criteria is a list of Ax's TransitionCriterions or None, got {given!r}"
    )


def _encoded(node: HyperZeroNode) -> dict[str, Any]:
    return {"__type": "HyperZeroNode", **HyperZeroNode.serialize_init_args(node)}


# Ax reads and writes files with these where a client has no registries of its own, and its
# RegistryBundles begin with them.
CORE_ENCODER_REGISTRY[HyperZeroNode] = _encoded
CORE_DECODER_REGISTRY["HyperZeroNode"] = HyperZeroNode
