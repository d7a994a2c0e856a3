"""A world with a recorded control stream, the ASOS A/B tests, and a known lift added to it.

One round is one interval of an experiment (12 hours or a day, as it was recorded). Recorded are the
users, levels and variances of the control in that interval, with the daily cycle, the gaps and the
missing cells, and the excess of the noise of interval deltas over the formula. Synthetic is the
lift surface over theta, so the true effects are known.

    mean_i = level[t] * (1 + lift_i) * (1 + sqrt(var[t] / (n_i * level[t]^2)) * r_i)
    var_i  = var[t] * (1 + lift_i)^2        n_i = round(share_i * users[t] * traffic)

with ``r_i`` drawn from the metric's real standardised residuals, independently for every arm, the
control included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..problem.problem import Problem
from ..problem.space import Float, SearchSpace
from ..study.plan import Plan
from ..study.readings import COLUMNS, Readings
from . import asos
from .environment import Delivery, Environment, check_range

METRICS = ("metric_1", "metric_2", "metric_3", "metric_4")  # anonymised by the data's owner
PARAMETERS = ("w_click", "w_share", "w_follow", "w_comment")
OBJECTIVE = "0.5 * metric_1 + 0.5 * metric_3"
GUARDRAIL = "metric_2 >= -0.1%"
# Below it the guardrail of 0.1 % would hardly bind; above it a lift is not small any more.
MAX_LIFT_RANGE = (0.01, 0.5)

_RADIUS = 0.45  # distance from the base to every metric's peak, and the width of the bumps
_NOISE, _SURFACE = 0, 1  # the purpose of a random stream, so that none is used twice


class _Surface(NamedTuple):
    """The base ``(params,)``, and each metric's peak relative to it ``(metrics, params)``."""

    base: Tensor
    peaks: Tensor
    scale: float


class ReplayWorld(Environment):
    """Serve plans on the control stream of a real experiment.

    Rounds follow the experiment's intervals, and start again after the last one. A metric whose
    interval is not usable (null or negative variance, ...) is left out of that round's readings. An
    interval without any usable metric gives no readings.

    Args:
        experiment: an id of ``asos.experiments()``; by default ``asos.DEFAULT_EXPERIMENT``.
        seed: of the lift surface and of all noise; the same seed is the same world.
        delay: rounds until an arm's readings arrive; a random 0 or 1 is added for each arm, the
            control included.
        traffic: scale of the recorded user counts, control and treatments together.
        num_params: 2 to 4.
        max_lift: bound of every metric's lift, a fraction.
        path: another file of cumulative A/B tests, see ``asos.load``.
    Raises:
        ConfigError: an argument outside its range.
        InputError: no such experiment, or one where a metric is never usable.
    """

    name = "replay"

    def __init__(
        self,
        experiment: str | None = None,
        *,
        seed: int = 0,
        delay: int = 1,
        traffic: float = 1.0,
        num_params: int = 3,
        max_lift: float = 0.05,
        path: str | Path | None = None,
    ) -> None:
        check_range("seed", seed, 0, 2**63 - 1, whole=True)
        check_range("delay", delay, 0, 1_000_000, whole=True)
        check_range("traffic", traffic, 1e-9, 1e9)
        check_range("num_params", num_params, 2, len(PARAMETERS), whole=True)
        check_range("max_lift", max_lift, *MAX_LIFT_RANGE)
        self.seed, self.delay, self.traffic, self.max_lift = seed, delay, traffic, max_lift
        streams = asos.load(experiment, path)
        self.experiment = streams.experiment
        self.intervals = asos.intervals(streams)
        self.num_intervals = len(self.intervals.days)
        self._residuals = asos.residuals(path)
        columns = _columns(streams, self.intervals, self._residuals)
        self.control_status = self.intervals.status[:, 0, columns]
        count = self.intervals.moments.count[:, :, columns].numpy()
        self._usable = self.intervals.usable[:, 0, columns].numpy()
        self._level = self.intervals.moments.mean[:, 0, columns].numpy()
        self._var = self.intervals.moments.var[:, 0, columns].numpy()
        # A treatment that lost users (corrected records) counts as 0; the control's status says
        # whether its own count is usable.
        self._users = np.where(count > 0, count, 0.0).sum(1)
        self._surface = _surface(seed, num_params, max_lift)
        weight = np.where(self._usable, count[:, 0], 0.0)
        levels = (weight * np.where(self._usable, self._level, 0.0)).sum(0) / weight.sum(0)
        names = PARAMETERS[:num_params]
        super().__init__(
            Problem(
                space=SearchSpace([Float(name=name, low=0.0, high=1.0) for name in names]),
                base=dict(zip(names, self._surface.base.tolist())),
                metrics=METRICS,
                objective=OBJECTIVE,
                constraints=[GUARDRAIL],
                base_levels=torch.from_numpy(levels),
            )
        )

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """The lift surface: ``(n, params)`` to ``(n, metrics)``, fractions within ``max_lift``.

            lift = scale * (exp(-|z - p|^2 / 2 w^2) - exp(-|p|^2 / 2 w^2)),   z = theta - base

        a bump around each metric's peak ``p``, less its height at the base. Written with expm1,
        so that the base's own lift is exactly 0.
        """
        base, peaks, scale = self._surface
        z = theta.to(torch.float64) - base
        closer = 2 * z @ peaks.T - z.square().sum(-1, keepdim=True)  # |p|^2 - |z - p|^2
        at_base = (-peaks.square().sum(-1) / (2 * _RADIUS**2)).exp()
        return scale * at_base * torch.expm1(closer / (2 * _RADIUS**2))

    def serve(self, plan: Plan) -> list[Delivery]:
        """Readings of the plan's arms, one message for each round in which some are due.

        An arm with fewer than two users has no sample variance and is left out. So is a cell whose
        noise exceeds the level itself: below -100 % the mean would not be positive, and above
        +100 % because dropping one side only would bias the rest. All randomness is a function of
        (seed, round): the same plan gives the same readings again.
        """
        t = plan.round % self.num_intervals
        metrics = np.flatnonzero(self._usable[t])
        if not len(metrics):
            return []
        rng = np.random.default_rng([self.seed, plan.round, _NOISE])
        arms = len(plan)
        late = rng.integers(0, 2, size=arms)
        noise = np.stack([self._draw(METRICS[m], arms, rng) for m in metrics], axis=1)

        share = np.array(plan.shares, dtype=np.float64)[:, None]
        users = self._users[t, metrics] * (self.traffic * plan.experiment_share)
        count = np.rint(share * users)
        level, var = self._level[t, metrics], self._var[t, metrics]
        relative = np.sqrt(var / (np.maximum(count, 1) * level**2)) * noise
        growth = 1 + self.true_delta(plan.theta).numpy()[:, metrics]
        mean = level * growth * (1 + relative)
        sent = (count >= 2) & (np.abs(relative) < 1)

        messages: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        for i, j in np.argwhere(sent).tolist():
            messages[plan.round + self.delay + int(late[i])].append(
                (
                    plan.round,
                    plan.candidate_ids[i],
                    METRICS[metrics[j]],
                    count[i, j],
                    mean[i, j],
                    var[j] * growth[i, j] ** 2,
                )
            )
        return [
            Delivery(due, Readings.from_frame(dict(zip(COLUMNS, zip(*rows)))))
            for due, rows in sorted(messages.items())
        ]

    def describe(self) -> str:
        """The data, what is left out and why, the noise, and the licence."""
        steps = ", ".join(f"{_span(d)} x {n}" for d, n in asos.steps(self.intervals).items())
        lines = [
            f"experiment {self.experiment}: {self.num_intervals} intervals ({steps})",
            f"objective {OBJECTIVE}, guardrail {GUARDRAIL}, lifts within {self.max_lift:.1%}",
        ]
        for m, metric in enumerate(METRICS):
            counts = asos.tally(self.control_status[:, m])
            usable = counts.pop(asos.Status.USABLE)
            reasons = ", ".join(f"{reason} {num}" for reason, num in counts.items()) or "nothing"
            noise = self._residuals[metric]
            lines.append(
                f"{metric}: {usable} usable, left out: {reasons}; robust noise "
                f"{asos.robust_std(noise):.2f} x the formula ({noise.std():.2f} x with its tails)"
            )
        silent = int((~self._usable.any(1)).sum())
        lines += [f"intervals without any usable metric: {silent}", f"data: {asos.LICENCE}"]
        return "\n".join(lines)

    def _draw(self, metric: str, num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Bootstrapped residuals ``(num,)`` with a random sign.

        Which of two groups is the treatment is arbitrary, so r and -r are equally likely. The sign
        makes the mean exactly 0 (centring by the median alone does not), so ``true_delta`` stays
        exact.
        """
        sign = 2.0 * rng.integers(0, 2, size=num) - 1.0
        drawn: NDArray[np.float64] = sign * rng.choice(self._residuals[metric], size=num)
        return drawn


def _surface(seed: int, num_params: int, max_lift: float) -> _Surface:
    """Seeded peaks, placed so that the guardrail binds and leaves at least half of the gain.

    Metrics 1 and 3 peak 15 degrees to either side of one direction; the guardrail metric_2 peaks
    80 to 100 degrees away from that direction. All peaks lie at one distance from the base, so a
    metric is positive in the ball around its peak through the base. The best objective lies
    outside the guardrail's ball, and the nearest point of that ball keeps at least half the gain.
    Metric 4 peaks anywhere: it is reported but not tuned.
    """
    rng = np.random.default_rng([seed, num_params, _SURFACE])
    # As far as the radius from every face: all peaks are inside the cube.
    base = np.round(rng.uniform(0.45, 0.55, num_params), 2)
    frame, _ = np.linalg.qr(rng.standard_normal((num_params, num_params)))
    ahead, aside, spread = frame[:, 0], frame[:, 1], frame[:, min(2, num_params - 1)]
    half, apart = np.deg2rad(15), np.deg2rad(rng.uniform(80, 100))
    other = rng.standard_normal(num_params)
    peaks = _RADIUS * np.stack(
        [
            np.cos(half) * ahead + np.sin(half) * spread,
            np.cos(apart) * ahead + np.sin(apart) * aside,
            np.cos(half) * ahead - np.sin(half) * spread,
            other / np.linalg.norm(other),
        ]
    )
    # A bump lies between 0 and 1 and is exp(-1/2) at the base: its largest change is downwards.
    return _Surface(torch.from_numpy(base), torch.from_numpy(peaks), max_lift * np.exp(0.5))


def _columns(
    streams: asos.Streams,
    parts: asos.Intervals,
    residuals: Mapping[str, NDArray[np.float64]],
) -> list[int]:
    """Columns of the world's metrics in the stream; all must be usable in some interval."""
    usable = parts.usable[:, 0].any(0).tolist()
    available = {m for m, ok in zip(streams.metrics, usable) if ok and m in residuals}
    missing = [metric for metric in METRICS if metric not in available]
    if missing:
        raise InputError(
            f"experiment {streams.experiment} has no usable interval of {', '.join(missing)}, or "
            f"its file fewer than {asos.MIN_INTERVALS} in any experiment to estimate its noise; "
            "choose one whose `metrics` in asos.experiments() names all of "
            f"{', '.join(METRICS)}"
        )
    return [streams.metrics.index(metric) for metric in METRICS]


def _span(days: float) -> str:
    return f"{days * 24:g} h" if days < 1 else f"{days:g} d"
