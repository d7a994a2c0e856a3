"""Which parameters carry over: what the sources say about each, by how well it came true.

For each parameter the sources are asked once more with what they say about it left out, that is,
only where it stands as in the target's base. The nats by which they then predict the target's
evidence worse are what this parameter has carried over; below 0 it misled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import coregionalization
from .family import Family, without
from .inducing import Reduced, Spectrum, spectrum


def left_out(family: Family, base: Tensor, columns: Sequence[slice]) -> tuple[Spectrum, ...]:
    """The sources' evidence without what it says about each parameter, in their order.

    Args:
        family: the sources.
        base: ``(dims,)`` of the target.
        columns: coordinates of each parameter.
    """
    basis, eigen, information = family.spectrum
    whole = Reduced(
        (basis * eigen.unsqueeze(-2)) @ basis.mT,
        (basis @ information.unsqueeze(-1)).squeeze(-1),
        torch.zeros_like(family.share),
    )
    found = []
    for some in columns:
        parts = [
            [
                without(Reduced(*(f[i, j] for f in whole)), family.inducing, i, some, base, 0.0)
                for j in range(len(family.names))
            ]
            for i in range(len(family.share))
        ]
        fields = (
            torch.stack([torch.stack([part[k] for part in row]) for row in parts]) for k in range(3)
        )
        found.append(spectrum(Reduced(*fields)))
    return tuple(found)


def carried(
    family: Family, target: Spectrum, share: Tensor, less: Mapping[str, Spectrum]
) -> dict[str, Tensor]:
    """Nats ``(metrics,)`` that each parameter has carried over.

    Args:
        family: the sources.
        target: its evidence, leading axes ``(metrics, 1)``.
        share: ``(metrics, sources + 1)`` as learned; metrics where it is 0 carry nothing.
        less: the sources without what they say about each parameter.
    """

    def told(sources: Spectrum) -> Tensor:
        return coregionalization.told(
            coregionalization.factor(sources, share[:, :-1]), target, share[:, -1]
        )

    whole = told(family.spectrum)
    return {name: whole - told(rest) for name, rest in less.items()}
