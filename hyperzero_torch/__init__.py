"""HyperZero Torch: tune the weights of a live recommender from hourly A/B feedback.

    readings -> moments -> deltas -> evidence -> surrogate -> draws -> plan -> (served) -> readings

Layout
    The packages stand in the order of the data. Each imports only from those above it.

    errors        every error, in one tree
    runtime       memory limits, files, random generators, compiled kernels
    problem       parameters, their space, the objective and the constraints
    stats         moments, deltas, dispersion, evidence, sequential tests, drift: pure kernels
    surrogate     an exact Gaussian process per metric: marginals and joint sample paths
    thompson      Thompson sampling: select (Algorithm 1) and propose (Algorithm 3)
    study         one study: configuration, readings, journal, history, evidence, decisions
    transfer      evidence of other domains: prior, checks, privacy
    tuner         ask / tell / recommend: one round of Algorithm 2
    simulate      simulated platforms with a known optimum, and replayed experiments
    live          the live system: aggregate events, serve plans, run the loop
    report        tables, figures and one HTML page from a history
    integrations  BoTorch, Optuna, Ax, Ray Tune, and HTTP: an API and a live page
    testing       contract suites for journals, platforms and surrogates of your own
    cli           the command line

Where to look
    Which parameters and constraints can I state?      problem/space.py, problem/expressions.py
    How is a reading checked?                          study/readings/checks.py (the message alone)
                                                       study/reception.py (against the study)
    Which readings are set aside as absurd?            study/judgement.py, then
                                                       study/readings/plausibility.py,
                                                       study/readings/units.py
    How do late and revised readings count?            study/reception.py, study/round_table.py
    Which rows are left out, and what is missing?      study/unplanned.py, study/lacking.py
    How does a delta get its variance?                 stats/delta.py, stats/dispersion.py
    How are rounds pooled into evidence?               study/evidence/pooling.py, then
                                                       study/evidence/bucket.py
    Which candidates is the model fitted to?           study/evidence/active_set.py
    How is the model fitted?                           tuner/model.py, surrogate/fit.py
    Which other models can be the surrogate?           surrogate/protocol.py, then
                                                       surrogate/foreign/choose.py,
                                                       surrogate/ensemble.py,
                                                       surrogate/multitask.py,
                                                       surrogate/saas.py
    What is expected before there is evidence?         surrogate/foreign/prior_mean.py,
                                                       transfer/prior_mean.py
    What does the journal say of the surrogate?        tuner/surrogates.py
    What does the model say of a candidate?            tuner/estimates.py, tuner/beliefs.py
    Which surrogate predicts a study best?             tuner/comparison.py, tuner/gains.py,
                                                       surrogate/predictive.py
    In which order is a round planned?                 tuner/round.py
    How does a draw win traffic?                       thompson/select.py
    How is traffic divided among arms?                 tuner/allocation.py, tuner/traffic.py
    What limits the exposure to unknown candidates?    tuner/limits.py, tuner/price.py,
                                                       tuner/harm_budget.py
    How does a study start near its base?              tuner/near_start.py, problem/near.py
    What were users exposed to?                        study/exposure.py
    Where do new candidates come from?                 thompson/propose.py, tuner/candidates.py
    Which candidates are verified before a launch?     tuner/verification.py
    When does a candidate retire or return?            tuner/candidates.py
    How does a guardrail stop an arm?                  tuner/guardrails.py, stats/sequential.py,
                                                       tuner/confirmation.py
    What do ask and tell warn of?                      tuner/announcements.py
    How late are readings as a rule?                   study/lateness.py
    Which readings are missing?                        study/silence.py, then tuner/oversight.py
    Do users fit the planned shares?                   study/split.py, stats/sample_ratio.py, then
                                                       study/broken_hours.py
    What does ``hyperzero doctor`` show?               study/findings.py
    How is drift detected, and what follows?           tuner/drift.py, stats/drift.py
    What is recommended, and why?                      tuner/recommend.py, tuner/explain.py
    What is the verdict on a study, and its health?    tuner/verdict.py, study/health.py
    How is a loop that has died noticed?               study/planning.py
    How is a candidate launched in stages?             study/launch.py, tuner/launch.py
    How does the study go on after a launch?           study/promotion.py, stats/rebase.py
    How are rounds excluded, or a study rolled back?   study/interventions.py
    How are goals changed while a study runs?          tuner/goals.py, study/goals.py,
                                                       problem/difference.py
    What can a person switch at once?                  study/switchboard.py, study/switches.py, then
                                                       tuner/switches.py, cli/switches.py
    What is to be served at this moment?               study/serving.py
    What does the journal store?                       study/journal/README.md, then
                                                       study/journal/trace.py
    Is the journal what was written?                   study/journal/chain.py,
                                                       study/journal/verified.py, cli/verify.py
    How are old readings deleted?                      study/compaction.py
    How do other domains enter the model?              transfer/prior.py, transfer/model/
    Which candidates do other domains suggest?         tuner/transfer_candidates.py
    What does a private export release?                transfer/sharing/
    How are packages signed and revoked?               transfer/sharing/signing.py,
                                                       transfer/sharing/revocation.py,
                                                       cli/transfer/keys.py
    How do events become readings?                     live/aggregate/
    Which query does the same in a warehouse?          live/aggregate/query.py, cli/sql.py
    Which events and files are left out?               live/aggregate/screening.py,
                                                       live/aggregate/parquet.py
    How does a plan reach the application?             live/serve/flagd.py, live/serve/files.py,
                                                       live/serve/client.py
    Which other flag services carry a plan?            live/serve/stored.py, then
                                                       live/serve/growthbook.py,
                                                       live/serve/unleash.py
    Until when is a plan served, and what replaces it? live/lease.py, live/serve/fence.py,
                                                       study/epochs.py
    Who is notified when something happens?            live/observers.py, live/series.py,
                                                       live/endpoints.py, live/webhook.py
    Which kernels are compiled, and when are they used? runtime/native/, runtime/fused/
    Which files may a command write over?              runtime/places.py, cli/own_files.py
    Which users take part in the experiment?           live/serve/buckets.py
    What does the live loop do each hour?              live/loop.py
    In which order does the report's page stand?       report/sections/all.py
    What does ``hyperzero serve`` answer, and to whom? integrations/http/app.py,
                                                       integrations/http/gate.py,
                                                       integrations/http/page/views.py
    How is a message recorded once?                    study/messages.py
    How do figures and frames come into a notebook?    report/plot.py, tuner/frames.py
    What does a command do?                            cli/study.py, cli/status.py, cli/live.py,
                                                       cli/explain.py, cli/watch.py, cli/transfer/

Glossary
    arm        a candidate as served in one round
    candidate  one theta in the bucket; candidate 0 is the control
    control    the base parameters, served to a control group in every round
    delta      relative change of a metric against the control of the same round
    draw       one joint sample of the model; its best feasible candidate wins a slot
    evidence   a candidate's deltas pooled over rounds: mean and variance per metric
    level      a metric's absolute value: base level + |base level| x delta
    round      the period of one plan, usually an hour
    share      a fraction of the traffic
    slack      distance to a constraint's bound; >= 0 is feasible
    slot       one unit of traffic, won in a draw or granted to a newcomer
    source     the recorded evidence of another domain
    theta      the parameters of one candidate, as numbers
    trigger    the text that identifies the message which asked for a plan
"""

from typing import TYPE_CHECKING

from . import thompson
from .errors import (
    BudgetError,
    ConfigError,
    DeviceMemoryError,
    ExpressionError,
    FencedError,
    FitError,
    ForeignJournalError,
    GivenUpError,
    HyperZeroError,
    InputError,
    JournalCorruptError,
    JournalError,
    LaunchError,
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
from .runtime import __version__ as __version__
from .stats import delta, evidence, moments
from .stats.evidence import Evidence
from .surrogate import Hyperparameters, Paths, Posterior, Surrogate

# The kernels (stats, surrogate, thompson) need torch and numpy alone, a study the other
# dependencies as well; where they are missing, the names of a study say so when they are used.
_missing: str | None = None
try:
    from .study.config import StudyConfig, TunerConfig
    from .study.journal import Journal, MemoryJournal, open_journal
    from .study.plan import Plan
    from .study.readings import Readings
    from .tuner.recommend import Recommendation
    from .tuner.tuner import Tuner
except ModuleNotFoundError as error:
    _missing = (error.name or "").partition(".")[0]
    if _missing in ("", "hyperzero_torch"):
        raise

if TYPE_CHECKING:
    from .report import plot

__all__ = [
    "BudgetError",
    "Choice",
    "ConfigError",
    "Constraint",
    "DeviceMemoryError",
    "Evidence",
    "ExpressionError",
    "FencedError",
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
    "LaunchError",
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
    "plot",
    "thompson",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """``hz.plot`` is imported when it is first used: notebooks need the report, jobs do not."""
        if name == "plot":
            from .report import plot

            return plot
        if _missing is not None and name in __all__:
            raise ModuleNotFoundError(
                f"hyperzero_torch.{name} needs {_missing}, which is not installed; install the "
                "package's dependencies with: pip install hyperzero-torch. Without them only the "
                "kernels work: hyperzero_torch.stats, .surrogate and .thompson",
                name=_missing,
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
