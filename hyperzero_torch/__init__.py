"""HyperZero Torch: tune the weights of a live recommender from hourly A/B feedback.

    readings -> moments -> deltas -> evidence -> surrogate -> draws -> plan -> (served) -> readings

The rooms, in the order of the data; each imports only from those above it:

    errors        every error in one tree
    memory        what cannot fit is refused, what turns out too large shrinks
    locks         one writer of a file at a time
    tokens        strings cut into tokens, for both grammars
    linear        linear constraints on theta: the region where they hold, points in it
    space         parameters; theta <-> unit cube; Sobol, grid and uniform samples
    expressions   objective and constraint strings, parsed and never evaluated as code
    problem       objective and constraints -> utility and slack
    native        compiled kernels for large work on the CPU
    stats         moments, delta, dispersion, evidence: pure batched kernels
    randomness    generators by seed, round and purpose
    readings      what a platform reports, checked; tidy tables and files
    surrogate     an exact Gaussian process per metric: marginals and joint paths
    thompson      select (Algorithm 1) and propose (Algorithm 3)
    plan          what a platform is asked to serve
    config        TunerConfig; a whole study in one YAML file
    journal       the append-only log: memory, SQL
    standing      what decisions have changed: who may compete, which evidence counts
    round_table   what has arrived for one round
    history       the fold over a journal: facts
    interventions rounds set aside, and the way back
    pooling       facts of some rounds -> deltas -> evidence of the candidates served in them
    blocks        all but the latest rounds are pooled once
    bucket        evidence of every candidate from all rounds
    retention     readings that nothing needs any more, let go of
    view          who still matters in a long study
    births        who enters the bucket
    outlook       what would be believed after more traffic
    transfer      what other domains have found, guarded
    learn         history -> evidence, levels, a fitted posterior
    transferred   what a round does with other domains: seeds, suggestions, changes of mind
    guard         nobody harmed: candidates that surely break a guardrail are stopped
    watch         has the world moved? old evidence discounted
    allocate      slots -> arms and their shares, within limits
    leaders       the points most worth verifying
    decide        one round of Algorithm 2
    recommend     the candidate to promote
    explain       why each arm of a round got its traffic
    study         one study in its journal: opened, folded, written to safely
    tuner         ask / tell / recommend
    simulate      worlds whose truth is known
    online        the live system around the tuner: aggregator, updater, loop
    report        history -> tables, plots, one HTML file
    integrations  BoTorch, Optuna, Ax, Ray Tune
    cli           the command line
    testing       contract suites for journals of your own

Glossary: an *arm* is a candidate as served in one round; a *candidate* is a theta in the bucket,
candidate 0 is the *control*; a *round* is an hour; a *delta* is a relative change against the
control of the same round; a *level* is base level x (1 + delta); *evidence* is a candidate's
deltas pooled over rounds; *slack* >= 0 is feasible; a *slot* is one unit of traffic won in a draw;
a *share* is a fraction of the traffic.
"""

from . import thompson
from .config import StudyConfig, TunerConfig
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
from .journal import Journal, MemoryJournal, open_journal
from .plan import Plan
from .problem import Constraint, Objective, Outcome, Problem
from .readings import Readings
from .recommend import Recommendation
from .space import Choice, Float, Int, SearchSpace
from .stats import delta, evidence, moments
from .stats.evidence import Evidence
from .surrogate import Hyperparameters, Paths, Posterior, Surrogate
from .tuner import Tuner

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
