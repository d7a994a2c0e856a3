"""What a study made of other domains, as plain rows: from the journal, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...study.decisions import DRIFT, OVERRULED, RETIRED, SOURCE
from ...study.journal import Decision
from ...transfer import features, similarity
from ...transfer.decision import choice, weight
from ...transfer.journaled import word_of
from ...transfer.sharing.terms import Terms, terms_of
from ...transfer.source import Source
from ...tuner.transfer_candidates import TRANSFERRED
from .facts import Facts
from .tables import Kind, Table, name_of, table

#: Rounds that are shown one by one, the latest.
MOST_ROUNDS = 240


class Given(NamedTuple):
    """A source as the study has it, the ``round`` it was recorded in, and its package's terms."""

    source: Source
    round: int
    terms: Terms | None


def given(facts: Facts) -> tuple[Given, ...]:
    """The sources of the study, in the order in which they came."""
    prior = facts.known.prior
    if prior is None:
        return ()
    rounds = {
        d.details["source"]["name"]: d.round for d in facts.history.decisions if d.kind == SOURCE
    }
    return tuple(Given(s, rounds[s.name], terms_of(s.origin)) for s in prior.sources)


def judged(facts: Facts) -> list[tuple[int, Mapping[str, Any]]]:
    """Rounds in which sources were weighed against the target's evidence, with the facts."""
    return [
        (r, plan.details["transfer"])
        for r, plan in sorted(facts.history.plans.items())
        if "metrics" in plan.details.get("transfer", {})
    ]


def sources(facts: Facts) -> Table:
    """What there is to learn from, where it came from, and what it may be used for."""
    aligned = {} if facts.known.prior is None else {a.name: a for a in facts.known.prior.aligned}
    rows = []
    for source, round_, terms in given(facts):
        one = aligned[source.name]
        used = f"{len(one.rows)} of {len(source)}"
        known = [m for m in facts.problem.metrics if m not in one.missing]
        origin = source.origin or "given by hand"
        scopes, expires, noise = "–", "–", "–"
        if terms is not None:
            origin = f"package {terms.sha256[:12]}"
            scopes, expires = ", ".join(terms.scopes), terms.expires.isoformat(" ", "minutes")
            noise = _noise(terms.privacy)
        fields = (origin, round_, used, ", ".join(known), source.num_rounds)
        rows.append((source.name, *fields, expires, scopes, noise))
    columns: list[tuple[str, str, Kind]] = [
        ("name", "source", "text"),
        ("origin", "from", "text"),
        ("round", "recorded in round", "whole"),
        ("settings", "settings used", "text"),
        ("metrics", "metrics it knows", "text"),
        ("rounds", "its rounds, at most", "whole"),
        ("expires", "expires", "text"),
        ("scopes", "may be used for", "text"),
        ("noise", "privacy", "text"),
    ]
    return table(columns, rows)


def _noise(statement: Mapping[str, Any] | None) -> str:
    if statement is None:
        return "no noise"
    try:
        return f"epsilon {float(statement['epsilon']):.3g} at delta {float(statement['delta']):g}"
    except (KeyError, TypeError, ValueError):
        return "noise, not described"


def by_features(facts: Facts) -> similarity.ByFeatures | None:
    """How alike the domains look; None where no two have a feature in common."""
    prior = facts.known.prior
    if prior is None:
        return None
    own = features.of(facts.history, facts.config.rounds_per_day, facts.bucket.dispersion)
    name = f"{facts.study} (this study)"
    found = similarity.by_features({a.name: a.meta for a in prior.aligned} | {name: own})
    off = found.num_common.clone().fill_diagonal_(0)
    return found if bool((off > 0).any()) else None


def similarities(facts: Facts, looks: similarity.ByFeatures | None) -> Table:
    """Each source: how alike it looks, what it was worth, and how much it counts now."""
    metrics = facts.problem.metrics
    latest: Mapping[str, Any] = next(
        (f for _, f in reversed(judged(facts)) if f.get("sources")), {}
    )
    columns: list[tuple[str, str, Kind]] = [
        ("name", "source", "text"),
        ("features", "alike by features", "number"),
    ]
    for key, label in _MEASURES.items():
        columns += [(f"{key}:{m}", f"{m}: {label}", "number") for m in metrics]
    rows = []
    for one, *_ in given(facts):
        told = latest.get("sources", {}).get(one.name, {})
        cells: list[object] = [one.name, None]
        if looks is not None:
            cells[1] = float(looks.value[looks.names.index(one.name), -1])
        for key in _MEASURES:
            cells += told.get(key, [None] * len(metrics))
        rows.append(cells)
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] is not None for row in rows)]
    return table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def parameters(facts: Facts) -> Table:
    """What the sources' word on each parameter is worth; no rows where they do not count now."""
    metrics, found = facts.problem.metrics, judged(facts)
    told: Mapping[str, Any] = found[-1][1] if found else {}
    columns: list[tuple[str, str, Kind]] = [("name", "parameter", "text")]
    columns += [(m, f"{m}: nats", "number") for m in metrics]
    return table(columns, [(name, *nats) for name, nats in told.get("parameters", {}).items()])


_MEASURES = {
    "similarity": "learned correlation",
    "agreement": "share in common with the other sources",
    "nats": "bets won (nats)",
    "weight": "weight",
}


def by_round(facts: Facts) -> Table:
    """Whether sources counted, by how much they predicted better, and each one's weight."""
    found = judged(facts)[-MOST_ROUNDS:]
    names = [g.source.name for g in given(facts)]
    metrics = facts.problem.metrics
    columns: list[tuple[str, str, Kind]] = [
        ("round", "round", "whole"),
        ("taken", "plan made from", "text"),
        ("wealth", "log wealth of the bets", "number"),
        ("needed", "needed", "number"),
        *((f"held:{m}", f"{m}: left-out evidence, nats gained", "number") for m in metrics),
        *((f"weight:{n}", f"weight of {n}", "prob") for n in names),
    ]
    rows = []
    for round_, told in found:
        held = [told.get("held_out", {}).get(m) for m in metrics]
        gained = [None if h is None else h["transferred"] - h["cold"] for h in held]
        weights = [weight(told, name) for name in names]
        taken = f"sources too: {', '.join(told['metrics'])}" if told["used"] else "cold start"
        rows.append((round_, taken, told.get("wealth"), told.get("needed"), *gained, *weights))
    return table(columns, rows)


def decisions(facts: Facts) -> Table:
    """Each change of mind with its reason and the alternative not taken, the latest first."""
    rows: list[tuple[object, ...]] = []
    before: object = None
    for round_, plan in sorted(facts.history.plans.items()):
        told = plan.details.get("transfer")
        if told is None:
            continue
        state = ("seeds", told["used"]) if "seeds" in told else (told["used"], told["metrics"])
        if state != before:
            rows.append((round_, *choice(told)))
        before = state
    for d in facts.history.decisions:
        if d.kind == RETIRED and _suggested(facts, d):
            names = ", ".join(name_of(c) for c in _suggested(facts, d))
            rows.append((d.round, f"{names} given up", d.reason, "more traffic for them"))
    rows.sort(key=lambda row: row[0], reverse=True)  # type: ignore[arg-type, return-value]
    return table(
        [
            ("round", "in round", "whole"),
            ("taken", "what was decided", "text"),
            ("why", "why", "text"),
            ("alternative", "alternative not taken", "text"),
        ],
        rows,
    )


def _suggested(facts: Facts, decision: Decision) -> list[int]:
    births = facts.history.candidates
    listed = decision.details.get("candidates", ())
    return [c for c in listed if births[c].origin == TRANSFERRED]


def suggestions(facts: Facts) -> Table:
    """Candidates that other domains suggested, and what became of them."""
    standing, belief = facts.history.status, facts.belief
    gain = facts.gain(belief.mean)
    rows = []
    for one in facts.history.candidates:
        c = one.candidate
        if one.origin != TRANSFERRED or c >= len(belief.mean):
            continue
        gone = "stopped" if c in standing.stopped else "retired" if c in standing.retired else ""
        best = "recommended" if c == facts.best.candidate_id else gone or "competes"
        prob = float(belief.prob_feasible[c]) if belief.mean[c].isfinite() else None
        times = int(facts.history.times_served[c])
        told = facts.history.plans[one.round].details.get("transfer", {})
        risk = told.get("screened", {}).get(str(c), {})
        then = (risk.get("prob"), risk.get("needed"))
        rows.append((name_of(c), one.round, *then, times, float(gain[c]), prob, best))
    return table(
        [
            ("candidate", "candidate", "text"),
            ("born", "suggested in round", "whole"),
            ("success", "P(gain > 0 and feasible) then", "prob"),
            ("needed", "its risk asked for", "prob"),
            ("served", "rounds served", "whole"),
            ("gain", "believed gain", "signed"),
            ("prob", "P(feasible)", "prob"),
            ("standing", "today", "text"),
        ],
        rows,
    )


def overrules(facts: Facts) -> Table:
    """What experts said over what was computed, the latest first; the latest holds."""
    said = [d for d in facts.history.decisions if d.kind == OVERRULED]
    rows = []
    for i, d in enumerate(said):
        words = word_of(d).words
        holds = "yes" if i == len(said) - 1 else "no, replaced"
        rows.append((d.round, words or "nothing any more", holds, d.reason))
    return table(
        [
            ("round", "in round", "whole"),
            ("words", "what was said", "text"),
            ("holds", "holds today", "text"),
            ("reason", "entry of the journal", "text"),
        ],
        rows[::-1],
    )


def criteria(facts: Facts, now: datetime | None = None) -> Table:
    """When a prior should be refreshed, and whether that is so today."""
    now = datetime.now(UTC) if now is None else now
    known = given(facts)
    expired = [g.source.name for g in known if g.terms is not None and g.terms.expires <= now]
    drift = [d.round for d in facts.history.decisions if d.kind == DRIFT]
    stale = [g.source.name for g in known if any(r > g.round for r in drift)]
    found = judged(facts)
    lost = sorted({m for _, told in found for m in told["metrics"]} - _now(found))
    idle = [g.source.name for g in known if found and not weight(found[-1][1], g.source.name)]
    rows = [
        ("its package has expired", _listed(expired), "ask its maker for a new one, or forbid it"),
        ("drift was noticed since it was recorded", _listed(stale),
         "old evidence of this study is discounted by itself; read the source anew"),
        ("it counted in a metric before, and does so no longer", _listed(lost, "metrics"),
         "plans went back to a cold start by themselves; compare the domains, read it anew"),
        ("it has no weight in the latest round", _listed(idle),
         "nothing, it does no harm; leave it out, or read it anew once it has learnt more"),
    ]  # fmt: skip
    return table(
        [
            ("criterion", "a source is to be refreshed when", "text"),
            ("met", "today", "text"),
            ("then", "what then", "text"),
        ],
        rows,
    )


def _now(found: list[tuple[int, Mapping[str, Any]]]) -> set[str]:
    return set(found[-1][1]["metrics"]) if found else set()


def _listed(names: list[str], what: str = "") -> str:
    return f"yes: {what + ' ' if what else ''}{', '.join(names)}" if names else "no"
