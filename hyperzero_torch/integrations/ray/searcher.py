"""A searcher for Ray Tune: ``tune.TuneConfig(search_alg=HyperZeroSearch(), ...)``.

    HyperZeroSearch(at_most={"latency": 0.2}, variances={"loss": "loss_var"})

What trials report may be noisy; where nobody reports a variance, one is estimated. ``save`` writes
JSON, and ``restore`` reads it. Beside it: ``space`` reads Ray's space, ``reports`` what
trials report, ``state`` what was saved.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

import torch

from ...errors import (
    ConfigError,
    MissingExtraError,
    ProblemError,
    ReadingsError,
    RoundError,
    SpaceError,
    StudyMismatchError,
)
from ..axes import number
from ..search import Search, Tried
from . import state as states
from .reports import Reports

try:
    from ray.tune.search import Searcher

    from .space import axes_of, description, nested, values_at
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ray", "ray[tune]", "ray") from error


class HyperZeroSearch(Searcher):  # type: ignore[misc]  # untyped
    """Thompson sampling of an exact Gaussian process, with constraints and known noise.

    What is suggested is a function of the seed, the finished trials and the number of suggestions
    before, so a restored searcher goes on as the saved one would have. Whatever raises an error
    has changed nothing: a trial that was reported wrongly can be reported again.

    Args:
        space: Ray's parameter space; by default the ``param_space`` of ``tune.Tuner``.
        metric: what trials report and is optimised; by default that of ``tune.TuneConfig``.
        mode: ``"min"`` or ``"max"``; likewise.
        at_most: bounds on other reported metrics, by name.
        at_least: likewise from below.
        variances: for the metric or a bounded one, the name under which trials report its variance.
        seed: of all randomness; drawn anew where it is None.
        num_startup: finished trials before the surrogate speaks; until then Sobol points.
        num_samples: random points of the space among which a draw's best are found.
        num_starts: of these, how many are moved uphill along the draw.
    Raises:
        ProblemError: several metrics, a mode that is none, or a space that cannot be carried:
            grid searches, functions, conditional choices, parameters in lists.
        ConfigError: bounds, variances, a seed or numbers that cannot be.
    """

    CKPT_FILE_TMPL = "searcher-state-{}.json"  # Ray's name for the file's name
    _metric: str | None
    _mode: str | None

    def __init__(
        self,
        space: Mapping[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        *,
        at_most: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
        variances: Mapping[str, str] | None = None,
        seed: int | None = None,
        num_startup: int = 10,
        num_samples: int = 1024,
        num_starts: int = 4,
    ) -> None:
        _check_metric(metric, mode)
        least = {"seed": 0, "num_startup": 0, "num_samples": 1, "num_starts": 0}
        given = (0 if seed is None else seed, num_startup, num_samples, num_starts)
        for name, value in zip(least, given):
            if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
                raise ConfigError(f"{name} is a whole number >= {least[name]}, got {value!r}")
        super().__init__(metric=metric, mode=mode)
        self._reports = Reports(at_most, at_least, variances)
        self._reports.check(metric)
        self._seed = secrets.randbits(62) if seed is None else seed
        self._numbers = (num_startup, num_samples, num_starts)
        self._search: Search | None = None
        self._space: list[str] | None = None  # what a restored state was made for
        self._suggested = 0
        self._live: dict[str, list[float]] = {}
        self._finished: list[tuple[list[float], list[float], list[float]]] = []
        if space is not None:
            self._set_space(space)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take over what ``tune.Tuner`` was told; False where the space was given already."""
        _check_metric(metric, mode)
        for name, said in (("metric", metric), ("mode", mode)):
            known = getattr(self, f"_{name}")
            if self._finished and said and known and said != known:
                raise StudyMismatchError(
                    f"the search has learnt from trials with {name} {known!r}, got {said!r}"
                )
        self._reports.check(metric or self._metric)
        new = self._search is None
        if new:
            self._set_space(config)
        self._metric, self._mode = metric or self._metric, mode or self._mode
        return new or not config

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The parameters of the next trial.

        Raises:
            ProblemError: nobody has said yet what is optimised, or over which space.
            RoundError: the trial has its parameters already, and has not finished.
        """
        if self._search is None or not self._metric or not self._mode:
            raise ProblemError(
                "HyperZeroSearch needs a space, a metric and a mode: pass them to it, or to "
                "tune.Tuner(param_space=...) and tune.TuneConfig(metric=..., mode=...)"
            )
        _check_trial(trial_id)
        if trial_id in self._live:
            raise RoundError(
                f"trial {trial_id!r} was given its parameters and has not finished; "
                "call on_trial_complete for it first, or name another trial"
            )
        found = self._search.next(self._tried(), self._seed, self._suggested)
        self._live[trial_id] = self._search.theta(found)
        self._suggested += 1
        return nested(found)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a finished trial; one that failed, or whose value is NaN, says nothing.

        A bounded metric or a variance that is NaN counts as not known. A trial that was never
        suggested is ignored.

        Raises:
            ReadingsError: the result lacks a metric that matters, or has one that is no number, or
                a wrong variance; the trial still waits for its result.
        """
        _check_trial(trial_id)
        theta = self._live.get(trial_id)
        if theta is None:
            return
        if not error and result is not None and result != {}:
            self._learn(theta, *self._reports.read(trial_id, str(self._metric), result))
        del self._live[trial_id]

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from a trial that ran elsewhere; what has bounds is not known of it.

        Raises:
            ProblemError: there is no space yet.
            SpaceError: parameters that are missing, or outside the space.
            ReadingsError: the value is no number.
        """
        if self._search is None:
            raise ProblemError("HyperZeroSearch needs its space before points; pass space=...")
        if error or pruned:
            return
        theta = self._search.theta(values_at(parameters, self._search.axes))
        said = number(value)
        if said is None:
            raise ReadingsError(f"the value at {dict(parameters)} must be a number, got {value!r}")
        unknown = [math.nan] * len(self._reports.bounds)
        self._learn(theta, [said, *unknown], [math.nan, *unknown])

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, whole or not at all.

        Raises:
            ConfigError: the folder does not exist or cannot be written to.
        """
        states.write(checkpoint_path, self.get_state())

    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote; what was passed to the constructor is not in it.

        Raises:
            ConfigError: not such a file.
            StudyMismatchError: it was written for another space, metric, mode or bounds.
        """
        self.set_state(states.read(checkpoint_path))

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Read what Ray has saved in an experiment's folder.

        Raises:
            ConfigError: there is nothing of ours; else see ``restore``.
        """
        folder = states.checked_path(checkpoint_dir)
        if not any(folder.glob(self.CKPT_FILE_TMPL.format("*"))):
            raise ConfigError(
                f"{str(folder)!r} holds no {self.CKPT_FILE_TMPL.format('*')}; name the folder of "
                "an experiment that ran with HyperZeroSearch: storage_path and its name"
            )
        super().restore_from_dir(str(folder))

    def get_state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return states.State.model_construct(
            version=states.VERSION,
            space=self._space,
            metric=self._metric,
            mode=self._mode,
            bounds=self._reports.bounds,
            seed=self._seed,
            suggested=self._suggested,
            live=self._live,
            finished=self._finished,
        ).plain()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` gave.

        Raises:
            ConfigError: anything else.
            StudyMismatchError: it is of another space, metric, mode or bounds.
        """
        saved = states.checked(state)
        own = {"space": self._space, "metric": self._metric, "mode": self._mode}
        for key, ours in (own | {"bounds": self._reports.bounds}).items():
            theirs = getattr(saved, key)
            if theirs is not None and ours is not None and theirs != ours:
                raise StudyMismatchError(
                    f"the state was saved for another {key}: {theirs}, here {ours}"
                )
        self._reports.check(saved.metric or self._metric)
        if self._search is not None:
            _check_rows(self._search, saved.thetas())
        self._space = saved.space or self._space
        self._metric, self._mode = saved.metric or self._metric, saved.mode or self._mode
        self._seed, self._suggested = saved.seed, saved.suggested
        self._live, self._finished = dict(saved.live), list(saved.finished)

    def _set_space(self, config: Any) -> None:
        axes = axes_of(config)
        space, search = description(axes), Search(axes, *self._numbers)
        if self._space is not None and space != self._space:
            raise StudyMismatchError(
                f"the state was saved for another space: {self._space}, here {space}"
            )
        _check_rows(search, [*self._live.values(), *(theta for theta, _, _ in self._finished)])
        self._space, self._search = space, search

    def _learn(self, theta: list[float], values: list[float], variances: list[float]) -> None:
        if not math.isnan(values[0]):
            self._finished.append((theta, values, variances))

    def _tried(self) -> Tried:
        """Finished trials, the value first and to be maximised."""
        columns = list(zip(*self._finished)) or [(), (), ()]
        assert self._search is not None  # the caller's branch
        widths = (len(self._search.axes), *[1 + len(self._reports.bounds)] * 2)
        theta, value, var = (
            torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
            for rows, width in zip(columns, widths)
        )
        if self._mode == "min":
            value[:, 0] *= -1.0
        return Tried(theta, value, var)


def _check_metric(metric: Any, mode: Any) -> None:
    if metric is not None and not isinstance(metric, str):
        raise ProblemError(
            f"HyperZeroSearch tunes one metric, got {metric!r}; make one of them the metric and "
            "set bounds on the others with at_most and at_least"
        )
    if mode not in (None, "min", "max"):
        raise ProblemError(f"mode must be 'min' or 'max', got {mode!r}")


def _check_trial(trial_id: Any) -> None:
    if not isinstance(trial_id, str):  # what is saved would name another one
        raise ReadingsError(f"a trial's id is a string, got {trial_id!r}")


def _check_rows(search: Search, thetas: list[list[float]]) -> None:
    """What a damaged file holds may have the right width, and lie outside all the same."""
    try:
        if thetas:
            search.space.check(torch.tensor(thetas, dtype=torch.float64))
    except SpaceError as error:
        raise ConfigError(f"the state of HyperZeroSearch is damaged: {error}") from None
