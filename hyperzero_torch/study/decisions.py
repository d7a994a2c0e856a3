"""The effect of all decisions on a study: candidates not served, rounds excluded, discounts.

Nothing is deleted. A decision is an entry of the journal with the rounds and candidates that it
concerns; a later decision can reverse it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from . import launch_state
from .journal import Decision
from .journal.goals_trace import GoalsChanged
from .journal.launch_trace import (
    Carried,
    LaunchAborted,
    LaunchDecided,
    LaunchStarted,
    Promoted,
)
from .journal.missing_trace import Withdrawn
from .journal.quarantine_trace import Quarantined, ReadingsAccepted, Readmitted
from .journal.source_trace import SourceAdded, SourcesOverridden, SourceWithdrawn
from .journal.switch_trace import Approved, Pinned, StoppedByHand, Unpinned
from .journal.trace import (
    DriftFound,
    Retired,
    RolledBack,
    RoundsExcluded,
    RoundsReinstated,
    Stopped,
)
from .launch_state import Launch
from .switch_state import SwitchState


@dataclass(frozen=True)
class Discount:
    """Since round ``noticed``, deltas of ``metric`` from rounds before ``before`` have less weight.

    Their variances are divided by ``factor``, in (0, 1].
    """

    noticed: int
    before: int
    metric: int
    factor: float


@dataclass
class StudyStatus:
    """The state after all decisions.

    ``retired`` candidates do not compete until they are served again; ``stopped`` ones are not
    served again unless a person lets them back in. Those of them that are ``outside`` are stopped
    by the bounds alone, and compete again once bounds hold them. ``excluded_rounds`` maps
    rounds that are excluded from the evidence to the reason.
    ``readmitted`` maps candidates that were stopped and let back in to the last round before that.
    ``accepted_units`` are metrics whose unit a person confirmed, with the code that doubted it.
    ``launches`` are all launches so far; ``promoted`` is set once the study goes on as another.
    ``switches`` are those that people have thrown.
    ``version`` counts the decisions that changed the evidence.
    """

    retired: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)
    excluded_rounds: dict[int, str] = field(default_factory=dict)
    discounts: tuple[Discount, ...] = ()
    readmitted: dict[int, int] = field(default_factory=dict)
    accepted_units: set[tuple[int, str]] = field(default_factory=set)
    launches: tuple[Launch, ...] = ()
    promoted: Promoted | None = None
    switches: SwitchState = field(default_factory=SwitchState)
    version: int = 0

    @property
    def launch(self) -> Launch | None:
        """The launch that plans serve now; None where none does."""
        latest = self.launches[-1] if self.launches else None
        return latest if latest is not None and latest.is_served else None

    def copy(self) -> StudyStatus:
        """An independent copy."""
        return replace(
            self,
            retired=set(self.retired),
            stopped=set(self.stopped),
            outside=set(self.outside),
            excluded_rounds=dict(self.excluded_rounds),
            readmitted=dict(self.readmitted),
            accepted_units=set(self.accepted_units),
        )

    def fold(
        self,
        entry: Decision,
        num_candidates: int,
        num_metrics: int,
        is_planned: Callable[[int], bool],
    ) -> None:
        """Apply a decision; a remark changes nothing.

        Args:
            entry: the decision.
            num_candidates: number of candidates in the study.
            num_metrics: number of its metrics.
            is_planned: whether a round was planned.
        Raises:
            ValueError: it names candidates or rounds that do not exist, or its facts are damaged.
        """

        def check(candidates: Collection[int] = (), rounds: Collection[int] = ()) -> None:
            _check_all(candidates, "candidates", lambda c: 0 <= c < num_candidates)
            _check_all(rounds, "rounds", is_planned)

        self.launches = launch_state.fold(self.launches, entry)
        match entry.trace:
            case Approved(candidates=candidates) | StoppedByHand(candidates=candidates):
                check(candidates)
            case Pinned(candidate=candidate) | Unpinned(candidate=candidate):
                check([candidate])
        self.switches = self.switches.after(entry)
        match entry.trace:
            case LaunchStarted(candidate=candidate) | LaunchDecided(candidate=candidate):
                check([candidate])
                return
            case LaunchAborted():
                return
            case Promoted(candidate=candidate) as trace:
                check([candidate])
                self.promoted = trace
                return
            case Retired(candidates=candidates):
                check(candidates)
                self.retired.update(candidates)
                return  # a retired candidate's evidence still counts
            case (
                Stopped(candidates=candidates)
                | Withdrawn(candidates=candidates)
                | StoppedByHand(candidates=candidates)
            ):
                check(candidates)
                self._stop(candidates)
                return
            case RoundsExcluded(rounds=rounds):
                check(rounds=rounds)
                self.excluded_rounds.update(dict.fromkeys(rounds, entry.reason))
            case RoundsReinstated(rounds=rounds):
                check(rounds=rounds)
                for round_ in rounds:
                    self.excluded_rounds.pop(round_, None)
            case RolledBack(candidates=candidates, rounds=rounds, to_round=to):
                check(candidates, rounds if to is None else (*rounds, to))
                self._stop(candidates)
                self.excluded_rounds.update(dict.fromkeys(rounds, entry.reason))
                self.retired.clear()
                self.discounts = tuple(d for d in self.discounts if to is None or d.noticed <= to)
            case DriftFound(metrics=metrics, before=before, factor=factor):
                _check_all(metrics, "metrics", lambda m: 0 <= m < num_metrics)
                self.discounts += tuple(Discount(entry.round, before, m, factor) for m in metrics)
            case Readmitted(candidates=candidates):
                check(candidates)
                self.stopped.difference_update(candidates)
                self.retired.difference_update(candidates)
                self.readmitted.update(dict.fromkeys(candidates, entry.round))
                return
            case GoalsChanged(outside=outside, judged_anew=judged_anew):
                check((*outside, *judged_anew))
                self._move_bounds(outside, judged_anew)
            case ReadingsAccepted(units=units):
                self.accepted_units.update(units)
            case (
                SourceAdded() | SourceWithdrawn() | SourcesOverridden() | Quarantined() | Carried()
            ):
                pass  # evidence of sources is part of the evidence; ``History`` has the readings
            case _:
                return
        self.version += 1

    def _stop(self, candidates: Collection[int]) -> None:
        self.stopped.update(candidates)
        self.outside.difference_update(candidates)

    def _move_bounds(self, outside: Collection[int], judged_anew: Collection[int]) -> None:
        self.stopped -= self.outside | set(judged_anew)
        self.outside = set(outside) - self.stopped
        self.stopped |= self.outside
        self.retired.clear()  # who lost under the earlier goals may win under these


def _check_all(listed: Collection[int], name: str, exists: Callable[[int], bool]) -> None:
    if not all(map(exists, listed)):
        raise ValueError(f"its facts name {name} that do not exist: {list(listed)!r:.60}")
