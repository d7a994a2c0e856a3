"""A searcher for Ray Tune: ``tune.TuneConfig(search_alg=HyperZeroSearch(), ...)``.

    HyperZeroSearch(at_most={"latency": 0.2}, variances={"loss": "loss_var"})

Reported values may be noisy: an unknown variance is estimated from all trials. ``save`` writes
JSON, and ``restore`` reads it.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

import torch
from ray.tune.search import Searcher

from ...errors import (
    ConfigError,
    ProblemError,
    ReadingsError,
    RoundError,
    SpaceError,
    StudyMismatchError,
)
from ...runtime.files import write_atomically
from ..axes import number, whole_number
from ..search import Search, Trials
from . import state as states
from .reports import Reports
from .space import axes_of, description, nested, values_at


class HyperZeroSearch(Searcher):  # type: ignore[misc]  # untyped
    """Thompson sampling of an exact Gaussian process, with constraints and known noise.

    A suggestion is a function of the seed, the finished trials and the number of earlier
    suggestions, so a restored searcher continues exactly as the saved one would have. A call that
    raises changes nothing: a trial that was reported wrongly can be reported again.

    Args:
        space: Ray's parameter space; by default the ``param_space`` of ``tune.Tuner``.
        metric: the reported metric to optimise; by default that of ``tune.TuneConfig``.
        mode: ``"min"`` or ``"max"``; likewise.
        at_most: upper bounds on other reported metrics, by name.
        at_least: lower bounds, likewise.
        variances: for the metric or a bounded one, the name under which trials report its variance.
        seed: of all randomness; drawn at random if None.
        num_startup: finished trials before the surrogate is used; Sobol points until then.
        num_samples: random points of the space at which each draw is evaluated.
        num_starts: how many of these are refined by gradient ascent along the draw.
    Raises:
        ProblemError: several metrics, an invalid mode, or an unsupported space: grid searches,
            functions, conditional choices, parameters in lists.
        ConfigError: invalid bounds, variances, seed or numbers.
    """

    CKPT_FILE_TMPL = "searcher-state-{}.json"  # the attribute's name is Ray's
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
        self._seed = secrets.randbits(62) if seed is None else whole_number("seed", seed, 0)
        self._numbers = (
            whole_number("num_startup", num_startup, 0),
            whole_number("num_samples", num_samples, 1),
            whole_number("num_starts", num_starts, 0),
        )
        super().__init__(metric=metric, mode=mode)
        self._reports = Reports(at_most, at_least, variances)
        self._reports.check(metric)
        self._search: Search | None = None
        self._space: list[str] | None = None  # that of a restored state, or else of the search
        self._suggested = 0
        self._live: dict[str, list[float]] = {}
        self._finished: list[tuple[list[float], list[float], list[float]]] = []
        if space is not None:
            self._set_space(space)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take over the settings of ``tune.Tuner``; False if the space was given before."""
        _check_metric(metric, mode)
        for name, new in (("metric", metric), ("mode", mode)):
            current = getattr(self, f"_{name}")
            if self._finished and new and current and new != current:
                raise StudyMismatchError(
                    f"the search has learnt from trials with {name} {current!r}, got {new!r}"
                )
        self._reports.check(metric or self._metric)
        without_space = self._search is None
        if without_space:
            self._set_space(config)
        self._metric, self._mode = metric or self._metric, mode or self._mode
        return without_space or not config

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The parameters of the next trial.

        Raises:
            ProblemError: the metric, the mode or the space is not set yet.
            RoundError: the trial already has parameters, and has not finished.
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
        parameters = self._search.next(self._trials(self._search), self._seed, self._suggested)
        self._live[trial_id] = self._search.theta(parameters)
        self._suggested += 1
        return nested(parameters)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a finished trial; a failed one, or one whose value is NaN, is dropped.

        A bounded metric or a variance that is NaN counts as unknown. A trial that was never
        suggested is ignored.

        Raises:
            ReadingsError: a needed metric is missing or not a number, or a variance is invalid; the
                trial can be reported again.
        """
        _check_trial(trial_id)
        theta = self._live.get(trial_id)
        if theta is None:
            return
        if not error and result is not None and result != {}:
            values, variances = self._reports.read(trial_id, str(self._metric), result)
            self._add_finished(theta, values, variances)
        del self._live[trial_id]

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from a trial that ran elsewhere; its bounded metrics count as unknown.

        Raises:
            ProblemError: there is no space yet.
            SpaceError: parameters that are missing, or outside the space.
            ReadingsError: the value is not a number.
        """
        if self._search is None:
            raise ProblemError("HyperZeroSearch needs its space before points; pass space=...")
        if error or pruned:
            return
        theta = self._search.theta(values_at(parameters, self._search.axes))
        reported = number(value)
        if reported is None:
            raise ReadingsError(f"the value at {dict(parameters)} must be a number, got {value!r}")
        unknown = [math.nan] * len(self._reports.bounds)
        self._add_finished(theta, [reported, *unknown], [math.nan, *unknown])

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, completely or not at all; it replaces an earlier state only.

        Raises:
            ConfigError: the folder does not exist or cannot be written to, or it is another file.
        """
        text = json.dumps(self.get_state(), allow_nan=False)
        path = states.checked_path(checkpoint_path)
        states.check_free(path)
        write_atomically(path, text)

    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote; the constructor's numbers are not part of it.

        Raises:
            ConfigError: not such a file.
            StudyMismatchError: it was written for another space, metric, mode or bounds.
        """
        self.set_state(states.read(checkpoint_path))

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Read what Ray has saved in an experiment's folder.

        Raises:
            ConfigError: it holds no state of ours; else see ``restore``.
        """
        folder = states.checked_path(checkpoint_dir)
        if not any(folder.glob(self.CKPT_FILE_TMPL.format("*"))):
            raise ConfigError(
                f"{str(folder)!r} holds no {self.CKPT_FILE_TMPL.format('*')}; name the folder of "
                "an experiment that ran with HyperZeroSearch: storage_path and its name"
            )
        super().restore_from_dir(str(folder))

    def get_state(self) -> dict[str, Any]:
        """The state as plain JSON values."""
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
        """Continue from the result of ``get_state``.

        Raises:
            ConfigError: anything else.
            StudyMismatchError: it is of another space, metric, mode or bounds.
        """
        saved = states.checked(state)
        own = {"space": self._space, "metric": self._metric, "mode": self._mode}
        for key, here in (own | {"bounds": self._reports.bounds}).items():
            there = getattr(saved, key)
            if there is not None and here is not None and there != here:
                raise StudyMismatchError(
                    f"the state was saved for another {key}: {there}, here {here}"
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

    def _add_finished(
        self, theta: list[float], values: list[float], variances: list[float]
    ) -> None:
        if not math.isnan(values[0]):
            self._finished.append((theta, values, variances))

    def _trials(self, search: Search) -> Trials:
        """Finished trials; the value comes first and is to be maximised."""
        trials = Trials.from_rows(self._finished, len(search.axes), len(self._reports.bounds))
        if self._mode == "min":
            trials.value[:, 0] *= -1.0
        return trials


def _check_metric(metric: Any, mode: Any) -> None:
    if metric is not None and not isinstance(metric, str):
        raise ProblemError(
            f"HyperZeroSearch tunes one metric, got {metric!r}; make one of them the metric and "
            "set bounds on the others with at_most and at_least"
        )
    if mode not in (None, "min", "max"):
        raise ProblemError(f"mode must be 'min' or 'max', got {mode!r}")


def _check_trial(trial_id: Any) -> None:
    if not isinstance(trial_id, str):  # JSON would turn it into another id
        raise ReadingsError(f"a trial's id is a string, got {trial_id!r}")


def _check_rows(search: Search, thetas: list[list[float]]) -> None:
    """Refuse rows of a damaged file that have the right width but lie outside the space."""
    try:
        if thetas:
            search.space.check(torch.tensor(thetas, dtype=torch.float64))
    except SpaceError as error:
        raise ConfigError(f"the state of HyperZeroSearch is damaged: {error}") from None
