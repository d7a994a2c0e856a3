"""The surrogate of a study: what its journal says, and whether what a caller hands over agrees.

A study has the surrogate that it was started with. Its fits depend on the evidence and on the
surrogate alone, so a study that resumes makes the same plans.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, StudyMismatchError, TunerWarning
from ..problem.problem import Problem
from ..study.config import TunerConfig
from ..study.history import History
from ..study.journal import Decision, Entry
from ..study.journal.surrogate_trace import SurrogateChosen
from ..surrogate.foreign import ForeignSurrogate, PriorMean, choose, with_prior_mean
from ..surrogate.foreign.choose import imported
from ..surrogate.foreign.names import NAMES, QUICK, as_reference
from ..surrogate.foreign.prior_mean import check_prior_mean
from ..transfer.prior_mean import mean_of_source


def chosen_surrogate(
    surrogate: Any, prior_mean: Any, problem: Problem, folder: Path | None = None
) -> ForeignSurrogate | None:
    """The model that a user means, about the prior mean that the user means.

    Args:
        surrogate: see ``surrogate/foreign/choose.py``.
        prior_mean: a function of theta, a mapping from metrics to such, ``"module:function"``, or
            ``"journal-url#study"`` with or without ``@round``; None for a constant.
        problem: of the study.
        folder: where modules are looked for first.
    Raises:
        ConfigError: one of them cannot be used on this problem.
    """
    chosen = choose(surrogate, problem.space.num_dims, folder)
    if prior_mean is None:
        return chosen
    if chosen is not None and chosen.prior_mean is not None:
        raise ConfigError(f"surrogate {chosen.descriptor.text!r} has a prior mean already")
    function, text = prior_mean, None
    if isinstance(prior_mean, str) and "#" in prior_mean:
        function = mean_of_source(prior_mean, problem)
        text = function.text
    elif isinstance(prior_mean, str):
        text = as_reference(prior_mean, "prior_mean")
        function = imported(prior_mean, folder, "prior_mean")
    mean = PriorMean.of(function, problem.metrics, text)
    check_prior_mean(mean, problem)
    return with_prior_mean(chosen, mean)


def warn_of_unused(surrogate: ForeignSurrogate | None, config: TunerConfig) -> None:
    """Warn where ``plausible_lift`` is set, and the model takes no prior scale.

    Warns:
        TunerWarning: it is.
    """
    if surrogate is not None and config.plausible_lift is not None and not surrogate.scaled:
        warnings.warn(
            f"plausible_lift is not the prior scale of surrogate {surrogate.descriptor.text!r}: its"
            " fit takes no argument prior_std; add the argument, or state the scale in the model",
            TunerWarning,
            stacklevel=4,
        )


def first_entries(surrogate: ForeignSurrogate | None) -> list[Entry]:
    """What the journal of a new study says of its surrogate: nothing of the package's own."""
    if surrogate is None:
        return []
    text, digest, name = surrogate.descriptor
    caveat = surrogate.caveat
    trace = SurrogateChosen(text=text, digest=digest, name=name, caveat=caveat)
    reason = f"The surrogate is {text}" + ("" if caveat is None else f"; {caveat}")
    return [Decision.of(0, reason, trace)]


def agreed(
    history: History, given: Any, surrogate: ForeignSurrogate | None, problem: Problem
) -> ForeignSurrogate | None:
    """The surrogate that a study goes on with.

    Args:
        history: of the study.
        given: what the caller handed over; None for the study's own.
        surrogate: what that is.
        problem: of the study.
    Raises:
        StudyMismatchError: the study was started with another one.
    """
    traces = (d.trace for d in history.decisions)
    recorded = next((trace for trace in traces if isinstance(trace, SurrogateChosen)), None)
    if recorded is None:
        if surrogate is not None:
            raise StudyMismatchError(
                "the study was started with the package's own model, got surrogate "
                f"{surrogate.descriptor.text!r}; leave surrogate out, or name another study"
            )
        return None
    if given is None and recorded.name in NAMES:
        return choose(recorded.name, problem.space.num_dims)
    if surrogate is not None and surrogate.descriptor.digest == recorded.digest:
        return surrogate
    came = "no surrogate" if given is None else "the package's own model"
    if surrogate is not None:
        came = f"{surrogate.descriptor.text!r} (digest {surrogate.descriptor.digest})"
    raise StudyMismatchError(
        f"the study was started with surrogate {recorded.text!r} (digest {recorded.digest}), got "
        f"{came}; hand over the same one, with the same settings, priors and initial values, or "
        "name another study"
    )


def check_sources(surrogate: ForeignSurrogate | None, sources: Any) -> None:
    """Refuse sources beside a surrogate that cannot use them.

    Raises:
        ConfigError: there are both.
    """
    if surrogate is not None and sources:
        raise ConfigError(
            f"surrogate {surrogate.descriptor.text!r} cannot learn from other domains, got "
            f"{len(sources)} sources; leave out either the sources or the surrogate"
        )


def check_dims(surrogate: ForeignSurrogate | None, problem: Problem) -> None:
    """Refuse goals under which the unit cube has other dimensions than a surrogate is made for.

    Raises:
        ConfigError: it has.
    """
    dims = problem.space.num_dims
    if surrogate is not None and surrogate.dims not in (None, dims):
        raise ConfigError(
            f"surrogate {surrogate.descriptor.text!r} is over {surrogate.dims} dims, the unit cube "
            f"would have {dims}; keep the number of options, or start another study"
        )


def contenders(
    given: Sequence[Any] | Mapping[str, Any] | None, own: ForeignSurrogate | None, dims: int
) -> dict[str, ForeignSurrogate | None]:
    """Surrogates to compare by name, the study's own among them, all about its prior mean.

    Args:
        given: what a caller names; None for the built-in ones that are quick.
        own: of the study.
        dims: of the unit cube.
    Raises:
        ConfigError: it cannot be used.
    """
    if isinstance(given, str):
        raise ConfigError(f"surrogates to compare are a list, got the text {given!r}")
    named: dict[str, ForeignSurrogate | None] = {}
    if own is not None:
        named[own.descriptor.text] = own
    mean = None if own is None else own.prior_mean
    values = QUICK if given is None else given
    pairs = values.items() if isinstance(values, Mapping) else [(None, v) for v in values]
    for name, value in pairs:
        chosen = choose(value, dims)
        if mean is not None and (chosen is None or chosen.prior_mean is None):
            chosen, name = with_prior_mean(chosen, mean), None
        if chosen is not None:
            named[name or chosen.descriptor.text] = chosen
    return named
