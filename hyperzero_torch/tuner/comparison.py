"""Which surrogate predicts a study's own evidence best? ``hyperzero models`` prints the answer.

Two criteria, both log densities of deltas that a model has not seen, and both with the errors that
arms of a round share:

    left out    each candidate's pooled delta from those of all other candidates, under the
                hyperparameters of the fit to all; closed form where the model has it
    ahead       the deltas of a round from the evidence before it; the model is fitted anew before
                every round that is scored, so this is what the tuner itself would have predicted

Compared are differences to the default model, candidate by candidate and round by round; see
``gains``.

Source: Dawid (1984), prequential analysis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, FitError, RoundError
from ..problem.problem import Problem
from ..stats import drift
from ..study.config import TunerConfig
from ..study.evidence.active_set import fit_set
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History
from ..surrogate import Surrogate
from ..surrogate.foreign import ForeignSurrogate
from ..surrogate.predictive import ahead, left_out
from ..surrogate.protocol import FittedPosterior
from .drift import as_it_stood
from .gains import DEFAULT, Comparison, Contender, advice_of, gain_of
from .model import prior_std, training_data

# Candidates that are left out at most, evenly spread; and rounds ahead.
_MOST_ROWS = 128
MOST_ROUNDS = 24


class _Task(NamedTuple):
    """Evidence to fit, and what to predict: rows of it, or a round's deltas."""

    data: tuple[Tensor, Tensor, Tensor, Tensor | None]
    score: Callable[[FittedPosterior], Tensor]
    shape: tuple[int, ...]


class _Scores(NamedTuple):
    left_out: Tensor
    ahead: Tensor
    seconds: float
    failures: list[str]


def compare(
    problem: Problem,
    config: TunerConfig,
    history: History,
    surrogates: Mapping[str, ForeignSurrogate | None],
    device: torch.device,
    own: str = DEFAULT,
    most_rounds: int = MOST_ROUNDS,
) -> Comparison:
    """Compare surrogates on the evidence of a study; nothing is written.

    Args:
        problem: of the study.
        config: how it pools and fits.
        history: the study's facts.
        surrogates: by name; the default, which is None, is added where it is not among them.
        device: where models are fitted.
        own: name of the one that the study has.
        most_rounds: that are predicted, evenly spread among those with readings.
    Raises:
        RoundError: fewer than two candidates have evidence.
        ConfigError: a number of rounds below 1.
    """
    if isinstance(most_rounds, bool) or not isinstance(most_rounds, int) or most_rounds < 1:
        raise ConfigError(f"the number of rounds must be a whole number >= 1, got {most_rounds!r}")
    used = problem.used_metrics
    cache: dict[int, Any] = {}
    pooling = Pooling.of(config)
    bucket = gather(history, pooling, cache)
    rows = _with_evidence(bucket, history, config, used)
    if len(rows) < 2:
        raise RoundError(
            f"surrogates are compared on candidates with readings, and {len(rows)} of this study "
            "have any on every metric of its goals; wait for more rounds"
        )
    data = training_data(problem, config, bucket, rows, device)
    first = len(data[0]) - len(rows)  # the base comes first where it is anchored
    every = range(first, len(data[0]))
    chosen = [every[i] for i in _spread(len(every), _MOST_ROWS)]
    shape = (len(chosen), len(problem.metrics))
    whole = _Task(data, lambda posterior: left_out(posterior, *data, chosen), shape)
    rounds, tasks = _rounds_ahead(problem, config, history, cache, device, most_rounds)
    std = prior_std(problem, config)
    named = {DEFAULT: None, **{n: s.bound(problem) for n, s in surrogates.items() if s is not None}}
    scores: dict[str, _Scores] = {}
    for name, surrogate in named.items():
        scores[name] = _scored(surrogate, whole, tasks, std, scores.get(DEFAULT))
    contenders = tuple(_contender(n, s, scores[DEFAULT], used) for n, s in scores.items())
    advised, advice = advice_of(contenders)
    metrics = tuple(name for name, is_used in zip(problem.metrics, used.tolist()) if is_used)
    sizes = (len(chosen), len(rows), rounds)
    return Comparison(metrics, contenders, advised, advice, *sizes, own)


def _with_evidence(bucket: Bucket, history: History, config: TunerConfig, used: Tensor) -> Tensor:
    candidates = fit_set(history, bucket, config, used)
    return candidates[bucket.has_evidence(used)[candidates]]


def _spread(num: int, most: int) -> list[int]:
    """At most so many of ``range(num)``, evenly spread, the last among them."""
    if num <= most:
        return list(range(num))
    at: list[int] = torch.linspace(0, num - 1, most).round().long().tolist()
    return sorted(set(at))


def _rounds_ahead(
    problem: Problem,
    config: TunerConfig,
    history: History,
    cache: dict[int, Any],
    device: torch.device,
    most: int,
) -> tuple[tuple[int, ...], list[_Task]]:
    """Rounds whose deltas are kept one by one, each with the evidence before it."""
    pooling, used = Pooling.of(config), problem.used_metrics
    raw = gather(as_it_stood(history, None), pooling, cache)
    deltas = raw.deltas
    tasks: dict[int, _Task] = {}
    for round_ in sorted(set(deltas.round.tolist())):
        bucket = gather(as_it_stood(history, round_), pooling, cache)
        rows = _with_evidence(bucket, history, config, used)
        seen = deltas.delta.mean.isfinite().any(-1)
        at = ((deltas.round == round_) & seen).nonzero().flatten()
        if len(rows) < 2 or not len(at):
            continue
        x = problem.space.to_unit(raw.theta[deltas.candidate[at]]).to(device)
        mean, var = (field[at].to(device) for field in deltas.delta)
        loading = deltas.loading[at].to(device).minimum(var.sqrt())
        nothing = var.new_zeros(var.shape[1], len(at), len(at))
        noise = drift.predictive_covariance(nothing, var, loading).nan_to_num()
        data = training_data(problem, config, bucket, rows, device)

        def score(
            posterior: FittedPosterior, x: Tensor = x, mean: Tensor = mean, noise: Tensor = noise
        ) -> Tensor:
            return ahead(posterior, x, mean, noise)

        tasks[round_] = _Task(data, score, (len(problem.metrics),))
    rounds = [sorted(tasks)[i] for i in _spread(len(tasks), most)]
    return tuple(rounds), [tasks[r] for r in rounds]


def _scored(
    surrogate: ForeignSurrogate | None,
    whole: _Task,
    tasks: Sequence[_Task],
    std: Tensor | None,
    default: _Scores | None,
) -> _Scores:
    """Log densities of a model; where it fails the default's stand in."""
    start = time.perf_counter()
    failures: list[str] = []

    def work(task: _Task, instead: Tensor | None) -> Tensor:
        try:
            if surrogate is None:
                posterior: FittedPosterior = Surrogate(None, std).fit(*task.data)
            else:
                posterior = surrogate.fit(*task.data, prior_std=std)
            with torch.no_grad():
                return task.score(posterior).double().cpu()
        except FitError as error:
            failures.append(str(error))
            missing = torch.full(task.shape, torch.nan, dtype=torch.float64)
            return missing if instead is None else instead

    before = work(whole, None if default is None else default.left_out)
    rows = [
        work(task, None if default is None else default.ahead[number])
        for number, task in enumerate(tasks)
    ]
    later = torch.stack(rows) if rows else before.new_empty(0, before.shape[-1])
    return _Scores(before, later, time.perf_counter() - start, failures)


def _contender(name: str, scores: _Scores, default: _Scores, used: Tensor) -> Contender:
    pairs = ((scores.left_out, default.left_out), (scores.ahead, default.ahead))
    gains = [gain_of(own[..., used] - other[..., used]) for own, other in pairs]
    density = [float(own[..., used].nansum()) for own, _ in pairs]
    return Contender(
        name=name,
        left_out=gains[0],
        ahead=gains[1],
        log_density=(density[0], density[1]),
        seconds=scores.seconds,
        num_failed=len(scores.failures),
        why_failed=scores.failures[0] if scores.failures else None,
    )
