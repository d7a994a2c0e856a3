"""A searcher for Ray Tune: ``tune.TuneConfig(search_alg=HyperZeroSearch(), ...)``.

    HyperZeroSearch(at_most={"latency": 0.2}, variances={"loss": "loss_var"})

What trials report may be noisy; where nobody reports a variance, one is estimated. ``save`` writes
JSON, and ``restore`` reads it.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, MissingExtraError, ProblemError, ReadingsError, StudyMismatchError
from ..plan import write_atomically
from .search import Axis, Search, Tried, choice_axis, number_axis

try:
    from ray.tune.search import Searcher
    from ray.tune.search.sample import (
        Categorical,
        Domain,
        Float,
        Integer,
        LogUniform,
        Quantized,
        Uniform,
    )
    from ray.tune.search.variant_generator import parse_spec_vars
    from ray.tune.utils.util import flatten_dict, unflatten_dict
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ray", "ray[tune]", "ray") from error

_VERSION = 1
_SUPPORTED = (
    "supported are tune.uniform, quniform, loguniform, qloguniform, randint, qrandint, lograndint, "
    "qlograndint, choice, and constants"
)


class HyperZeroSearch(Searcher):  # type: ignore[misc]  # untyped
    """Thompson sampling of an exact Gaussian process, with constraints and known noise.

    What is suggested is a function of the seed, the finished trials and the number of suggestions
    before, so a restored searcher goes on as the saved one would have.

    Args:
        space: Ray's parameter space; by default the ``param_space`` of ``tune.Tuner``.
        metric: what trials report and is optimised; by default that of ``tune.TuneConfig``.
        mode: ``"min"`` or ``"max"``; likewise.
        at_most: bounds on other reported metrics, by name.
        at_least: likewise from below.
        variances: for a metric, the name under which trials report its variance.
        seed: of all randomness; drawn anew where it is None.
        num_startup: finished trials before the surrogate speaks; until then Sobol points.
        num_samples: random points of the space among which a draw's best are found.
        num_starts: of these, how many are moved uphill along the draw.
    Raises:
        ProblemError: several metrics, a mode that is none, or a space that cannot be carried:
            grid searches, functions, conditional choices.
        ConfigError: bounds, a seed or numbers that cannot be.
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
        # Of each bounded metric: minus the value and plus the bound, or the other way round.
        self._bounds = [(name, -1.0, bound) for name, bound in (at_most or {}).items()]
        self._bounds += [(name, 1.0, bound) for name, bound in (at_least or {}).items()]
        for name, _, bound in self._bounds:
            if not isinstance(bound, int | float) or not math.isfinite(bound):
                raise ConfigError(f"the bound on {name!r} must be a finite number, got {bound!r}")
        self._variances = dict(variances or {})
        self._seed = secrets.randbits(62) if seed is None else seed
        self._numbers = (num_startup, num_samples, num_starts)
        self._search: Search | None = None
        self._constants: dict[str, Any] = {}
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
        self._metric, self._mode = metric or self._metric, mode or self._mode
        if self._search is not None:
            return not config
        self._set_space(config)
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The parameters of the next trial.

        Raises:
            ProblemError: nobody has said yet what is optimised, or over which space.
        """
        if self._search is None or not self._metric or not self._mode:
            raise ProblemError(
                "HyperZeroSearch needs a space, a metric and a mode: pass them to it, or to "
                "tune.Tuner(param_space=...) and tune.TuneConfig(metric=..., mode=...)"
            )
        found = self._search.next(self._tried(), self._seed, self._suggested)
        self._suggested += 1
        self._live[trial_id] = self._search.theta(found)
        suggestion: dict[str, Any] = unflatten_dict(found)
        return suggestion

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from a finished trial; one that failed says nothing.

        Raises:
            ReadingsError: the result lacks a metric that matters, or has a wrong variance.
        """
        theta = self._live.pop(trial_id, None)
        if theta is None or error or not result:
            return
        names = [self._metric, *(name for name, _, _ in self._bounds)]
        flat = flatten_dict(dict(result)) | dict(result)
        wanted = [*names, *(self._variances[n] for n in names if n in self._variances)]
        missing = [name for name in wanted if name not in flat]
        if missing:
            raise ReadingsError(
                f"trial {trial_id} reported no {missing}; it reported "
                f"{sorted(k for k, v in flat.items() if isinstance(v, int | float))}"
            )
        variances = [
            float(flat[self._variances[n]]) if n in self._variances else math.nan for n in names
        ]
        if any(v < 0 or v == math.inf for v in variances):
            raise ReadingsError(f"trial {trial_id} reported variances {variances}, expected >= 0")
        slacks = [sign * (float(flat[name]) - bound) for name, sign, bound in self._bounds]
        self._learn(theta, [float(flat[names[0]]), *slacks], variances)

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from a trial that ran elsewhere; what has bounds is not known of it."""
        if self._search is None:
            raise ProblemError("HyperZeroSearch needs its space before points; pass space=...")
        if error or pruned:
            return
        unknown = [math.nan] * len(self._bounds)
        theta = self._search.theta(flatten_dict(dict(parameters)))
        self._learn(theta, [float(value), *unknown], [math.nan, *unknown])

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, whole or not at all."""
        write_atomically(checkpoint_path, json.dumps(self.get_state(), allow_nan=False))

    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote.

        Raises:
            ConfigError: not such a file.
            StudyMismatchError: it was written for another space, metric or bounds.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{checkpoint_path!r} cannot be read: {error}") from None
        self.set_state(state)

    def get_state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": _VERSION,
            "space": self._space,
            "metric": self._metric,
            "mode": self._mode,
            "bounds": [list(bound) for bound in self._bounds],
            "seed": self._seed,
            "suggested": self._suggested,
            "live": self._live,
            "finished": [[theta, *map(_plain, both)] for theta, *both in self._finished],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` gave."""
        expected = self.get_state()
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            raise ConfigError("this is no state of HyperZeroSearch; pass what save() wrote")
        if set(state) != set(expected):
            raise ConfigError(
                f"the state is damaged: it has {sorted(state)}, expected {sorted(expected)}"
            )
        ours = {
            name: getattr(self, f"_{name}") or state[name] for name in ("space", "metric", "mode")
        } | {"bounds": expected["bounds"]}
        for key, value in ours.items():
            if state[key] != value:
                raise StudyMismatchError(
                    f"the state was saved for another {key}: {state[key]}, here {value}"
                )
        self._space, self._metric, self._mode = state["space"], state["metric"], state["mode"]
        self._seed, self._suggested = state["seed"], state["suggested"]
        self._live = dict(state["live"])
        self._finished = [
            (theta, [float(v) for v in values], [float(v) for v in variances])
            for theta, values, variances in state["finished"]
        ]

    def _set_space(self, config: Mapping[str, Any]) -> None:
        axes = _axes(config)
        space = [repr((axis.name, axis.parameter, axis.step, axis.values)) for axis in axes]
        if self._space is not None and space != self._space:
            raise StudyMismatchError(
                f"the state was saved for another space: {self._space}, here {space}"
            )
        self._space, self._search = space, Search(axes, *self._numbers)

    def _learn(self, theta: list[float], values: list[float], variances: list[float]) -> None:
        if not math.isnan(values[0]):
            self._finished.append((theta, values, variances))

    def _tried(self) -> Tried:
        """Finished trials, the value first and to be maximised."""
        columns = list(zip(*self._finished)) or [(), (), ()]
        assert self._search is not None  # the caller's branch
        widths = (len(self._search.axes), *[1 + len(self._bounds)] * 2)
        theta, value, var = (
            torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
            for rows, width in zip(columns, widths)
        )
        if self._mode == "min":
            value[:, 0] *= -1.0
        return Tried(theta, value, var)


def _plain(values: Iterable[float]) -> list[float | str]:
    """What JSON can hold: it has no NaN and no infinity."""
    return [value if math.isfinite(value) else str(value) for value in values]


def _check_metric(metric: Any, mode: Any) -> None:
    if metric is not None and not isinstance(metric, str):
        raise ProblemError(
            f"HyperZeroSearch tunes one metric, got {metric!r}; make one of them the metric and "
            "set bounds on the others with at_most and at_least"
        )
    if mode not in (None, "min", "max"):
        raise ProblemError(f"mode must be 'min' or 'max', got {mode!r}")


def _axes(config: Mapping[str, Any]) -> list[Axis]:
    """What varies in Ray's space; constants are Ray's to fill in."""
    _, domains, grids = parse_spec_vars(dict(config))
    names = ["/".join(map(str, path)) for path, _ in grids]
    if names:
        raise ProblemError(f"{names} are grid searches, take tune.choice; {_SUPPORTED}")
    axes = [_axis("/".join(map(str, path)), domain) for path, domain in domains]
    if not axes:
        raise ProblemError(f"there is nothing to tune in {dict(config)}; {_SUPPORTED}")
    return axes


def _axis(name: str, domain: Domain) -> Axis:
    sampler, step = domain.get_sampler(), None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    if isinstance(domain, Categorical):
        if any(_varies(value) for value in domain.categories):
            raise ProblemError(
                f"{name!r} chooses between spaces, and conditional spaces cannot be carried; "
                "make its parameters parameters of their own"
            )
        return choice_axis(name, domain.categories)
    known = isinstance(domain, Float | Integer) and isinstance(sampler, Uniform | LogUniform)
    if not known or not (math.isfinite(domain.lower) and math.isfinite(domain.upper)):
        raise ProblemError(f"{name!r} is {domain.domain_str or domain!r}; {_SUPPORTED}")
    low, high = domain.lower, domain.upper
    if step is not None:  # Ray rounds to multiples, the upper bound included
        low, high = math.ceil(low / step - 1e-9) * step, math.floor(high / step + 1e-9) * step
    elif isinstance(domain, Integer):
        low, high, step = low, high - 1, 1
    if isinstance(domain, Integer):
        low, high, step = int(low), int(high), int(step or 1)
    if low == high:
        raise ProblemError(f"{name!r} can only be {low}; make it a constant")
    return number_axis(name, low, high, log=isinstance(sampler, LogUniform), step=step)


def _varies(value: Any) -> bool:
    """Whether anything in it is sampled."""
    if isinstance(value, Mapping):
        return any(_varies(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(_varies(v) for v in value)
    return isinstance(value, Domain)
