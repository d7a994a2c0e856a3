"""Which parameters transfer: the predictive value of what sources say about each parameter.

For each parameter the log Bayes factor of the sources is computed once more without their evidence
about it, that is, with their functions known only where the parameter has the target's base value.
The nats that are lost are the parameter's contribution; a negative one misled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import coregionalization
from .family import Family, without
from .inducing import Reduced, Spectrum, spectrum


def without_each_parameter(
    family: Family, base: Tensor, columns: Sequence[slice]
) -> tuple[Spectrum, ...]:
    """The sources' evidence without what it says about each parameter, in their order.

    Args:
        base: ``(dims,)`` of the target.
        columns: coordinates of each parameter.
    """
    basis, eigen, information = family.spectrum
    whole = Reduced(
        (basis * eigen.unsqueeze(-2)) @ basis.mT,
        (basis @ information.unsqueeze(-1)).squeeze(-1),
        torch.zeros_like(family.loading),
    )
    reduced_spectra = []
    for parameter in columns:
        parts = [
            [
                without(
                    Reduced(*(f[i, j] for f in whole)), family.inducing, i, parameter, base, 0.0
                )
                for j in range(len(family.names))
            ]
            for i in range(len(family.loading))
        ]
        fields = (
            torch.stack([torch.stack([part[k] for part in row]) for row in parts]) for k in range(3)
        )
        reduced_spectra.append(spectrum(Reduced(*fields)))
    return tuple(reduced_spectra)


def contributions(
    family: Family, target: Spectrum, loading: Tensor, reduced: Mapping[str, Spectrum]
) -> dict[str, Tensor]:
    """Nats ``(metrics,)`` that each parameter contributes to the prediction of the target.

    Args:
        target: its evidence, leading axes ``(metrics, 1)``.
        loading: ``(metrics, sources + 1)`` as fitted; metrics where it is 0 contribute nothing.
    """

    def log_bayes_factor(sources: Spectrum) -> Tensor:
        shared = coregionalization.shared_posterior(sources, loading[:, :-1])
        return coregionalization.log_bayes_factor(shared, target, loading[:, -1])

    whole = log_bayes_factor(family.spectrum)
    return {name: whole - log_bayes_factor(rest) for name, rest in reduced.items()}
