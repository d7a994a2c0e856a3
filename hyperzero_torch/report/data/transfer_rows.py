"""Transfer from other domains as tables, from the journal alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...study.journal import Decision
from ...study.journal.source_trace import SourceAdded, SourcesOverridden
from ...study.journal.trace import (
    DRIFT,
    Retired,
    SourceWeighed,
    TransferTrace,
)
from ...transfer import features, similarity
from ...transfer.decision import choice, weight
from ...transfer.journaled import override_from
from ...transfer.sharing.terms import Terms, terms_of
from ...transfer.source import Source
from ...tuner.transfer_candidates import TRANSFERRED
from .facts import Facts
from .tables import Table, Values, from_rows, name_of, table

#: Rounds that are shown one by one, the latest.
MOST_ROUNDS = 240


class UsedSource(NamedTuple):
    """A source of the study, the ``round`` it was recorded in, and its package's terms."""

    source: Source
    round: int
    terms: Terms | None


def used_sources(facts: Facts) -> tuple[UsedSource, ...]:
    """The sources of the study, in the order in which they were added."""
    prior = facts.model.prior
    if prior is None:
        return ()
    added = ((d.round, d.trace) for d in facts.history.decisions)
    rounds = {t.source["name"]: r for r, t in added if isinstance(t, SourceAdded)}
    return tuple(UsedSource(s, rounds[s.name], terms_of(s.origin)) for s in prior.sources)


def weighed_rounds(facts: Facts) -> list[tuple[int, TransferTrace]]:
    """Rounds in which sources were weighed against the study's own evidence."""
    traces = ((r, plan.trace.transfer) for r, plan in sorted(facts.history.plans.items()))
    return [(r, t) for r, t in traces if t is not None and t.metrics is not None]


def sources(facts: Facts) -> Table:
    """The sources: their origin, how much of their evidence is used, and their terms."""
    aligned = {} if facts.model.prior is None else {a.name: a for a in facts.model.prior.aligned}
    rows = []
    for source, round_, terms in used_sources(facts):
        own = aligned[source.name]
        settings = f"{len(own.rows)} of {len(source)}"
        metrics = ", ".join(m for m in facts.problem.metrics if m not in own.missing)
        origin, expires, scopes, privacy = source.origin or "given in Python", "–", "–", "–"
        if terms is not None:
            origin = f"package {terms.sha256[:12]}"
            expires, scopes = terms.expires.isoformat(" ", "minutes"), ", ".join(terms.scopes)
            privacy = _privacy(terms.privacy)
        used = (origin, round_, settings, metrics, source.num_rounds)
        rows.append((source.name, *used, expires, scopes, privacy))
    return from_rows(
        [
            ("name", "source", "text"),
            ("origin", "origin", "text"),
            ("round", "added in round", "whole"),
            ("settings", "settings used", "text"),
            ("metrics", "metrics covered", "text"),
            ("rounds", "rounds (at most)", "whole"),
            ("expires", "expires", "text"),
            ("scopes", "permitted uses", "text"),
            ("privacy", "privacy", "text"),
        ],
        rows,
    )


def _privacy(statement: Mapping[str, Any] | None) -> str:
    if statement is None:
        return "no noise added"
    try:
        return f"epsilon {float(statement['epsilon']):.3g} at delta {float(statement['delta']):g}"
    except (KeyError, TypeError, ValueError):
        return "noise added, parameters not given"


def by_features(facts: Facts) -> similarity.ByFeatures | None:
    """Similarity of the domains' features; None where no two have a feature in common."""
    prior = facts.model.prior
    if prior is None:
        return None
    own = features.of(facts.history, facts.config.rounds_per_day, facts.bucket.dispersion)
    name = f"{facts.study} (this study)"
    by = similarity.by_features({a.name: a.meta for a in prior.aligned} | {name: own})
    others = by.num_common.clone().fill_diagonal_(0)
    return by if bool((others > 0).any()) else None


_MEASURES = {
    "similarity": "correlation with this study",
    "agreement": "agreement with the other sources",
    "log_bayes_factor": "log Bayes factor (nats)",
    "weight": "weight",
}


def similarities(facts: Facts, by: similarity.ByFeatures | None) -> Table:
    """Each source: similarity by features, and what the latest weighing learned of it."""
    metrics = facts.problem.metrics
    names = [used.source.name for used in used_sources(facts)]
    latest = next((t.sources for _, t in reversed(weighed_rounds(facts)) if t.sources), {})
    by_name = [None if by is None else by.value[by.names.index(n), -1] for n in names]
    columns: list[Values] = [
        ("name", "source", "text", names),
        ("features", "similarity by features", "number", by_name),
    ]
    for key, label in _MEASURES.items():
        by_metric = [getattr(latest.get(n, SourceWeighed()), key) for n in names]
        for m, metric in enumerate(metrics):
            values = [v[m] if v else None for v in by_metric]
            if any(v is not None for v in values):
                columns.append((f"{key}:{metric}", f"{metric}: {label}", "number", values))
    return table(*columns)


def parameters(facts: Facts) -> Table:
    """What the sources add to each parameter; no rows where they do not count now."""
    rounds = weighed_rounds(facts)
    nats = rounds[-1][1].parameters if rounds else {}
    return table(
        ("name", "parameter", "text", nats),
        *(
            (name, f"{name} (nats)", "number", [values[m] for values in nats.values()])
            for m, name in enumerate(facts.problem.metrics)
        ),
    )


def by_round(facts: Facts) -> Table:
    """Whether sources counted, the evidence for them, and each one's weight."""
    rounds = weighed_rounds(facts)[-MOST_ROUNDS:]
    traces = [trace for _, trace in rounds]
    taken = [
        f"with sources: {', '.join(t.metrics or ())}" if t.used else "own evidence only"
        for t in traces
    ]
    columns: list[Values] = [
        ("round", "round", "whole", [r for r, _ in rounds]),
        ("taken", "plan made from", "text", taken),
        ("log_e_value", "log e-value of the sources", "number", [t.log_e_value for t in traces]),
        ("needed", "threshold", "number", [t.needed for t in traces]),
    ]
    for metric in facts.problem.metrics:
        held = [t.held_out.get(metric) for t in traces]
        gained = [None if h is None else h.transferred - h.cold for h in held]
        columns.append((f"held:{metric}", f"{metric}: held-out gain (nats)", "number", gained))
    for name in (used.source.name for used in used_sources(facts)):
        weights = [weight(t, name) for t in traces]
        columns.append((f"weight:{name}", f"weight of {name}", "prob", weights))
    return table(*columns)


def decisions(facts: Facts) -> Table:
    """Each change of use with its reason and the alternative, the latest first."""
    rows: list[tuple[int, str, str, str]] = []
    before: tuple[object, ...] | None = None
    for round_, plan in sorted(facts.history.plans.items()):
        trace = plan.trace.transfer
        if trace is not None:
            state = (trace.used, "seeds" if trace.seeds is not None else trace.metrics)
            if state != before:
                rows.append((round_, *choice(trace)))
            before = state
    for d in facts.history.decisions:
        ids = _proposed(facts, d)
        if ids:
            names = ", ".join(map(name_of, ids))
            rows.append((d.round, f"{names} retired", d.reason, "more traffic for them"))
    rows.sort(key=lambda row: row[0], reverse=True)
    return from_rows(
        [
            ("round", "in round", "whole"),
            ("taken", "decision", "text"),
            ("why", "reason", "text"),
            ("alternative", "alternative not taken", "text"),
        ],
        rows,
    )


def _proposed(facts: Facts, decision: Decision) -> list[int]:
    """Candidates retired by a decision that sources had proposed."""
    candidates, trace = facts.history.candidates, decision.trace
    ids = trace.candidates if isinstance(trace, Retired) else ()
    return [c for c in ids if candidates[c].origin == TRANSFERRED]


def proposals(facts: Facts) -> Table:
    """Candidates that sources proposed, and their status today."""
    status, belief = facts.history.status, facts.belief
    added = [
        c
        for c in facts.history.candidates
        if c.origin == TRANSFERRED and c.candidate < len(belief.mean)
    ]
    ids = [c.candidate for c in added]
    risks = []
    for c in added:
        trace = facts.history.plans[c.round].trace.transfer
        risks.append(None if trace is None else trace.screened.get(c.candidate))
    today = [
        "recommended"
        if c == facts.best.candidate_id
        else "stopped"
        if c in status.stopped
        else "retired"
        if c in status.retired
        else "active"
        for c in ids
    ]
    return table(
        ("candidate", "candidate", "text", map(name_of, ids)),
        ("round", "proposed in round", "whole", [c.round for c in added]),
        ("success", "P(gain > 0 and feasible) then", "prob", [r and r.prob for r in risks]),
        ("needed", "required", "prob", [r and r.needed for r in risks]),
        ("served", "rounds served", "whole", [facts.history.times_served[c] for c in ids]),
        ("gain", "estimated gain", "signed", facts.gain(belief.mean[ids])),
        ("prob", "P(feasible)", "prob", facts.prob_feasible(ids)),
        ("status", "status", "text", today),
    )


def overrides(facts: Facts) -> Table:
    """Experts' overrides, the latest first; only the latest is in force."""
    overridden = [
        (d, d.trace)
        for d in reversed(facts.history.decisions)
        if isinstance(d.trace, SourcesOverridden)
    ]
    entries = [d for d, _ in overridden]
    return table(
        ("round", "in round", "whole", [d.round for d in entries]),
        ("words", "override", "text", [override_from(t).summary or "none" for _, t in overridden]),
        (
            "holds",
            "in force",
            "text",
            ["no, replaced" if i else "yes" for i in range(len(entries))],
        ),
        ("reason", "journal entry", "text", [d.reason for d in entries]),
    )


def criteria(facts: Facts, now: datetime | None = None) -> Table:
    """When a source should be refreshed, and whether that is the case today."""
    now = datetime.now(UTC) if now is None else now
    used = used_sources(facts)
    expired = [u.source.name for u in used if u.terms is not None and u.terms.expires <= now]
    drift = [d.round for d in facts.history.decisions if d.kind == DRIFT]
    stale = [u.source.name for u in used if any(r > u.round for r in drift)]
    traces = [trace for _, trace in weighed_rounds(facts)]
    counted = {m for trace in traces for m in trace.metrics or ()}
    lost = sorted(counted.difference(traces[-1].metrics or () if traces else ()))
    idle = [u.source.name for u in used if traces and not weight(traces[-1], u.source.name)]
    rows = [
        ("its package has expired", _yes(expired),
         "ask its owner for a new package, or forbid the source"),
        ("drift was detected after it was added", _yes(stale),
         "old evidence of this study is discounted automatically; read the source again"),
        ("it no longer counts for a metric for which it counted before", _yes(lost, "metrics "),
         "plans use the study's own evidence again; compare the domains, read the source again"),
        ("it had no weight in the latest round", _yes(idle),
         "nothing has to be done; remove it, or read it again when it has more evidence"),
    ]  # fmt: skip
    return from_rows(
        [
            ("criterion", "refresh a source when", "text"),
            ("met", "today", "text"),
            ("action", "action", "text"),
        ],
        rows,
    )


def _yes(names: Sequence[str], what: str = "") -> str:
    return f"yes: {what}{', '.join(names)}" if names else "no"
