"""How much the objective and each guardrail depend on each parameter: ``transfer.sensitivity``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.randomness import random
from ...surrogate.protocol import FittedPosterior
from ...transfer.sensitivity import points, total_effects
from .facts import Facts

_NUM_POINTS = 512
_NUM_PATHS = 48
_TILE = 2048  # points at which all paths are held at once


class Sensitivity(NamedTuple):
    """Of the objective, then of each guardrail: ``share (3, functions, params)``.

    Mean, low and high over the draws. ``lengthscale (metrics, params)`` is in fractions of the
    parameter's range.
    """

    share: Tensor
    lengthscale: Tensor


def sensitivity(facts: Facts, posterior: FittedPosterior) -> Sensitivity:
    """Total effects over joint draws of the posterior; on the CPU."""
    space = facts.problem.space
    values = _at_draws(facts, posterior, points(space, _NUM_POINTS))
    share = total_effects(values, facts.config.confidence)
    lengthscale = posterior.lengthscale.cpu()
    parts = torch.split(lengthscale, list(space.widths), dim=-1)
    return Sensitivity(share, torch.stack([p.amin(-1) for p in parts], dim=-1))


def _at_draws(facts: Facts, posterior: FittedPosterior, x: Tensor) -> Tensor:
    """Objective and slacks of joint draws: ``(..., dims)`` to ``(..., paths, functions)``."""
    generator = random(0, facts.history.num_messages, "sensitivity", posterior.device)
    paths = posterior.paths(_NUM_PATHS, generator)
    problem = facts.problem.to(posterior.device)
    parts = []
    with torch.no_grad():
        for tile in torch.split(x.reshape(-1, x.shape[-1]), _TILE):
            delta = paths(tile.to(posterior.x))  # (paths, points, metrics)
            outcome = problem.evaluate(delta)
            functions = torch.cat([outcome.utility.unsqueeze(-1), outcome.slack], dim=-1)
            parts.append(functions.transpose(0, 1).cpu())
    return torch.cat(parts).reshape(*x.shape[:-1], _NUM_PATHS, -1)
