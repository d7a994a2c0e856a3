"""What a study's model says of its candidates, and of any other theta.

``Tuner`` inherits these methods.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import FitError, RoundError
from ..runtime.randomness import random
from ..study.evidence.bucket import Bucket
from ..study.journal import Planned
from ..study.journal.times import times_of
from ..study.study import Study
from ..surrogate.foreign import CheckedPosterior, ForeignSurrogate
from ..surrogate.protocol import FittedPosterior
from . import frames
from .beliefs import Belief, believe, no_belief
from .fit_cache import FitCache
from .frames import Backend, FrameOf
from .model import Fitted, ModelState, update_model

_T = TypeVar("_T")


class Estimates(ABC):
    """A study's model, made anew where there is new evidence."""

    study: Study
    device: torch.device
    _cache: FitCache
    _surrogate: ForeignSurrogate | None

    def belief(self) -> tuple[ModelState, Belief]:
        """The model, and the posterior of every candidate, as reports use them."""
        self.study.sync()
        self._last_plan()

        def work(state: ModelState) -> tuple[ModelState, Belief]:
            if not isinstance(state, Fitted):
                return state, no_belief(state.problem, state.bucket)
            generator = random(
                self.study.seed, self.study.history.num_messages, "believe", self.device
            )
            problem = state.problem.to(self.device)
            return state, believe(
                problem, self.study.config, state.bucket, state.posterior, generator, state.fit_set
            )

        return self._with_model(work)

    def posterior(
        self, theta: Tensor | Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the deltas at any theta.

        Args:
            theta: ``(..., params)`` in the user's units, or one or several parameter mappings.
        Returns:
            mean and var, each ``(..., metrics)``, fractions, on the CPU.
        Raises:
            SpaceError, ShapeError: a theta that is not in the space.
            RoundError: there is no evidence yet.
        """
        self.study.sync()
        space = self.study.problem.space
        if isinstance(theta, Mapping):
            theta = space.theta(theta)
        elif not isinstance(theta, Tensor):
            theta = torch.stack([space.theta(row) for row in theta])
        x = space.to_unit(space.check(theta.double().cpu()))
        mean, var = self.surrogate().marginal(x.to(self.device))
        return mean.cpu(), var.cpu()

    def surrogate(self) -> FittedPosterior:
        """The posterior over the unit cube that the next plan would be made with.

        Raises:
            RoundError: there is no evidence yet.
        """
        self.study.sync()
        state = self._update_model()
        if not isinstance(state, Fitted):
            raise RoundError(f"there is no posterior yet: {state.why_not}")
        return state.posterior

    def bucket(self) -> Bucket:
        """All candidates with their evidence."""
        self.study.sync()
        return self._update_model().bucket

    def to_frame(self, what: FrameOf = "candidates", *, backend: Backend = "pandas") -> Any:
        """The study as a data frame.

        Args:
            what: ``"candidates"`` with their parameters, evidence and estimates, ``"rounds"``,
                ``"readings"`` in their latest revision, or ``"decisions"``.
            backend: ``"pandas"`` or ``"polars"``; both come with the extra ``frames``.
        Raises:
            ConfigError: another frame or backend.
            MissingExtraError: the package is not installed.
        """
        kind, package = frames.check_kind(what), frames.package_of(backend)
        self.study.sync()
        if kind != "candidates":
            times = times_of(self.study.journal, self.study.name)
            return frames.as_frame(frames.PLAIN[kind](self.study.history, times), package)
        problem, history = self.study.problem, self.study.history
        if history.last_plan is None:
            return frames.as_frame(frames.candidates(problem, history, None, None), package)
        state, belief = self.belief()
        return frames.as_frame(frames.candidates(problem, history, state.bucket, belief), package)

    def _last_plan(self) -> Planned:
        plan = self.study.history.last_plan
        if plan is None:
            raise RoundError("no round was planned yet; call ask() first")
        return plan

    def _update_model(self, broken: str | None = None) -> ModelState:
        """The model of the evidence so far; ``broken`` says why the surrogate is not to be used."""
        study, surrogate = self.study, self._surrogate
        facts = (study.problem, study.config, study.history, self.device, self._cache)
        return update_model(*facts, surrogate, broken)

    def _with_model(self, work: Callable[[ModelState], _T]) -> _T:
        """Work with the model; with the default one where the study's surrogate fails at it."""
        state = self._update_model()
        try:
            return work(state)
        except FitError as error:
            if not isinstance(state.posterior, CheckedPosterior):
                raise
            return work(self._update_model(str(error)))
