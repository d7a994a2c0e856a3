"""Misleading sources: a study's evidence with the wrong settings or the wrong sign.

reversed    every delta has the other sign
shifted     every setting is moved by four tenths of each range
shuffled    each setting has another setting's evidence
noise       only noise, with the variances that the evidence states

Everything else of the source, its variances, base and meta-features, is unchanged: only the
target's own evidence can reveal it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch

from hyperzero_torch import InputError
from hyperzero_torch.problem.space import SearchSpace
from hyperzero_torch.transfer import Source

Misleading = Literal["reversed", "shifted", "shuffled", "noise"]
MISLEADING: tuple[Misleading, ...] = get_args(Misleading)
_SHIFT = 0.4


def misled(source: Source, kind: Misleading, space: SearchSpace, seed: int) -> Source:
    """The same study with misleading evidence.

    Args:
        source: all its deltas known.
        kind: how it misleads.
        space: of its settings.
        seed: of what is drawn.
    Raises:
        InputError: an unknown kind.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, var, shared, settings = source.mean, source.var, source.shared, source.parameters
    if kind == "reversed":
        mean = -mean
    elif kind == "shifted":
        theta = torch.stack([space.theta(setting) for setting in settings])
        moved = space.snap((space.to_unit(theta) + _SHIFT) % 1.0)
        settings = space.to_parameters(space.from_unit(moved))
    elif kind == "shuffled":
        order = torch.randperm(len(mean), generator=generator)
        mean, var = mean[order], var[order]
        if shared is not None:
            shared = shared[:, order][:, :, order]
    elif kind == "noise":
        own = var if shared is None else var - shared.diagonal(dim1=-2, dim2=-1).T
        normal = torch.randn(mean.shape, dtype=mean.dtype, generator=generator)
        mean = own.clamp_min(0).sqrt() * normal
        if shared is not None:
            # What all settings share is the error of one control, so its covariance has rank 1
            # within a round; eigenvectors take any rank.
            value, basis = torch.linalg.eigh(shared)
            normal = torch.randn(value.shape, dtype=mean.dtype, generator=generator)
            scaled = value.clamp_min(0).sqrt() * normal
            mean = mean + (basis @ scaled.unsqueeze(-1)).squeeze(-1).T
    else:
        raise InputError(f"a source misleads by being {', '.join(MISLEADING)}, got {kind!r}")
    return replace(source, parameters=settings, mean=mean, var=var, shared=shared)
