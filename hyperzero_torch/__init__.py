"""HyperZero Torch: tune the weights of a live recommender from hourly A/B feedback.

    readings -> moments -> deltas -> evidence -> surrogate -> draws -> plan -> (served) -> readings

The packages, in the order of the data; each imports only from those above it:

    errors        every error in one tree
    runtime       memory limits, files, random generators, compiled kernels
    problem       parameters and space; objective and constraints -> utility and slack
    stats         moments, delta, dispersion, evidence, drift: pure batched kernels
    surrogate     an exact Gaussian process per metric: marginals and joint paths
    thompson      select (Algorithm 1) and propose (Algorithm 3)
    study         one study: config, readings, journal, history, evidence, decisions
    transfer      what other domains have measured, guarded
    tuner         ask / tell / recommend; one round of Algorithm 2
    simulate      worlds whose truth is known
    live          the live system: aggregate events, serve plans, the loop
    report        history -> tables, figures, one HTML file
    integrations  BoTorch, Optuna, Ax, Ray Tune
    testing       contract suites for journals and platforms of your own
    cli           the command line

Glossary: an *arm* is a candidate as served in one round; a *candidate* is a theta in the bucket,
candidate 0 is the *control*; a *round* is an hour; a *delta* is a relative change against the
control of the same round; a *level* is base level x (1 + delta); *evidence* is a candidate's
deltas pooled over rounds; *slack* >= 0 is feasible; a *slot* is one unit of traffic won in a draw;
a *share* is a fraction of the traffic.
"""

from . import thompson
from .errors import (
    BudgetError,
    ConfigError,
    DeviceMemoryError,
    ExpressionError,
    FitError,
    ForeignJournalError,
    GivenUpError,
    HyperZeroError,
    InputError,
    JournalCorruptError,
    JournalError,
    MissingExtraError,
    PackageError,
    ProblemError,
    ReadingsError,
    RoundError,
    ShapeError,
    SizeError,
    SpaceError,
    StudyMismatchError,
    StudyNotFoundError,
    TunerWarning,
)
from .problem.problem import Constraint, Objective, Outcome, Problem
from .problem.space import Choice, Float, Int, SearchSpace
from .stats import delta, evidence, moments
from .stats.evidence import Evidence
from .study.config import StudyConfig, TunerConfig
from .study.journal import Journal, MemoryJournal, open_journal
from .study.plan import Plan
from .study.readings import Readings
from .surrogate import Hyperparameters, Paths, Posterior, Surrogate
from .tuner.recommend import Recommendation
from .tuner.tuner import Tuner

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "Choice",
    "ConfigError",
    "Constraint",
    "DeviceMemoryError",
    "Evidence",
    "ExpressionError",
    "FitError",
    "Float",
    "ForeignJournalError",
    "GivenUpError",
    "HyperZeroError",
    "Hyperparameters",
    "InputError",
    "Int",
    "Journal",
    "JournalCorruptError",
    "JournalError",
    "MemoryJournal",
    "MissingExtraError",
    "Objective",
    "Outcome",
    "PackageError",
    "Paths",
    "Plan",
    "Posterior",
    "Problem",
    "ProblemError",
    "Readings",
    "ReadingsError",
    "Recommendation",
    "RoundError",
    "SearchSpace",
    "ShapeError",
    "SizeError",
    "SpaceError",
    "StudyConfig",
    "StudyMismatchError",
    "StudyNotFoundError",
    "Surrogate",
    "Tuner",
    "TunerConfig",
    "TunerWarning",
    "delta",
    "evidence",
    "moments",
    "open_journal",
    "thompson",
]
