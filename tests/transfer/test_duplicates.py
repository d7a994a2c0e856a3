"""``transfer.overlap`` and ``own``: a copy, or an older part of the same evidence, counts once."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.transfer_cli import begin, run
from support.transfer_study import lift, problem

import hyperzero_torch as hz
from hyperzero_torch.study.config import SourceConfig
from hyperzero_torch.transfer import (
    Rescaled,
    Source,
    check_distinct,
    duplicates,
    refresh,
    translate,
)
from hyperzero_torch.transfer.duplicates import own_evidence
from hyperzero_torch.transfer.sharing import package as packages

CONFIG = hz.TunerConfig(
    num_draws=40, num_samples=8, num_starts=0, num_proposals=1, initial_candidates=24,
    drift_alpha=None,
)  # fmt: skip


def measured(generator, n=30, shared=0.0, gap=0.0, known=False, name="north", truth=None):
    """One domain's deltas at common settings; ``shared`` of their variance is the control's."""
    grid = torch.linspace(0, 1, n, dtype=torch.float64)
    var = 10 ** (-5 + grid.flip(0)).unsqueeze(1).expand(n, 2).clone()

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own, control = normal(n, 1), normal(1, 1)  # metrics of the same users: wholly correlated
    noise = ((1 - shared) * var).sqrt() * own + (shared * var).sqrt() * control
    mean = (0 if truth is None else truth) + gap * normal(n, 2) + noise.expand(n, 2)
    root = (shared * var.T).sqrt()
    part = root.unsqueeze(-1) * root.unsqueeze(-2) if known else None
    rows = [{"a": float(v), "b": 0.5} for v in grid]
    return Source(name, rows, ["gain", "guard"], mean, var, shared=part)


@pytest.mark.parametrize("gap", [0.0, 0.003])
@pytest.mark.parametrize(("shared", "known"), [(0.0, True), (0.5, False), (0.8, True)])
def test_independent_evidence_is_taken_for_the_same_no_oftener_than_it_says(
    shared, known, gap, monkeypatch
):
    monkeypatch.setattr(duplicates, "CHANCE", 0.05)
    generator = torch.Generator().manual_seed(0)
    num, alarms = 400, 0
    for _ in range(num):
        pair = [measured(generator, shared=shared, known=known, gap=gap) for _ in range(2)]
        alarms += duplicates.same_evidence(*map(duplicates.Comparable, pair)) is not None
    assert alarms <= 0.05 * num + 3 * math.sqrt(0.05 * 0.95 * num)


@pytest.mark.parametrize("known", [True, False])
def test_evidence_that_was_added_to_is_the_same_evidence(known):
    """Two thirds of the rounds, and all of them."""
    generator = torch.Generator().manual_seed(1)
    detected = []
    for _ in range(20):
        before = measured(generator, n=96, shared=0.1, known=known)
        later = measured(generator, n=96, shared=0.1, known=known)
        # Twice as many rounds before as after: precisions 2 : 1.
        later = replace(later, var=2 * later.var, mean=math.sqrt(2) * later.mean, shared=None)
        both = replace(
            before, name="june", mean=(2 * before.mean + later.mean) / 3, var=before.var * 2 / 3,
            shared=None if before.shared is None else before.shared * 2 / 3,
        )  # fmt: skip
        detected.append(
            duplicates.same_evidence(duplicates.Comparable(before), duplicates.Comparable(both))
            is not None
        )
    assert sum(detected) >= 18


@given(st.permutations(range(8)), st.booleans(), st.integers(1, 8))
def test_no_order_hides_a_copy(order, swapped, num):
    one = measured(torch.Generator().manual_seed(2), n=8)
    rows = list(range(num))
    one = replace(one, parameters=one.parameters[:num], mean=one.mean[:num], var=one.var[:num])
    rows = [i for i in order if i < num]
    columns = [1, 0] if swapped else [0, 1]
    settings = [dict(reversed(one.parameters[i].items())) for i in rows]
    copy = Source(
        "copy", settings, [one.metrics[j] for j in columns],
        one.mean[rows][:, columns], one.var[rows][:, columns],
    )  # fmt: skip
    with pytest.raises(hz.ConfigError, match="count twice"):
        check_distinct([one, copy])
    with pytest.raises(hz.ConfigError, match="evidence as the target"):
        check_distinct([copy], target=one)


def test_a_copy_among_other_settings_and_in_another_unit_is_found():
    one = measured(torch.Generator().manual_seed(3), n=12)
    more = measured(torch.Generator().manual_seed(4), n=12)
    rows = [{"percent": 100 * row["a"], "b": 0.5} for row in one.parameters[:6]]
    rows += [{"percent": 100 * row["a"] + 1, "b": 0.7} for row in more.parameters]
    other = Source(
        "south", rows, one.metrics, torch.cat([one.mean[:6], more.mean]),
        torch.cat([one.var[:6], more.var]),
    )  # fmt: skip
    mapped = translate(other, problem_of("a", "b"), {"a": Rescaled("percent", 0.01)})
    with pytest.raises(hz.ConfigError, match="the deltas of 6 settings are equal"):
        check_distinct([one, mapped])


def problem_of(*names):
    space = hz.SearchSpace([hz.Float(name, 0.0, 2.0) for name in names])
    return hz.Problem(space, dict.fromkeys(names, 0.4), ["gain", "guard"], "gain")


def test_what_is_equal_by_nature_is_no_copy():
    # A metric without any spread is known exactly, and is 0 everywhere.
    pair = [measured(torch.Generator().manual_seed(seed), name=str(seed)) for seed in (5, 6)]
    for source in pair:
        source.mean[:, 1], source.var[:, 1] = 0.0, 1e-18
    check_distinct(pair)
    # Deltas that people wrote down with two digits coincide now and then.
    rows = [{"a": 0.1 * i, "b": 0.5} for i in range(5)]
    var = torch.full((5, 1), 1e-5, dtype=torch.float64)
    check_distinct([
        Source("n", rows, ["gain"], [[0.01], [0.02], [-0.01], [0.03], [0.04]], var),
        Source("s", rows, ["gain"], [[0.01], [0.02], [-0.01], [-0.02], [0.0]], var),
    ])  # fmt: skip


def reply(plan, noise):
    """Readings that scatter more than their variances say, so that weights are calibrated."""
    generator = torch.Generator().manual_seed(1000 * noise + plan.round)
    count = (20_000.0 * torch.tensor(plan.shares)).unsqueeze(-1).expand(-1, 2)
    scatter = torch.randn(count.shape, generator=generator, dtype=torch.float64)
    mean = 10 * (1 + lift(plan.theta)) + 3 * scatter / count.sqrt()
    return hz.Readings(
        plan.round, plan.candidate_ids, count, mean, torch.full_like(mean, 4.0)
    )  # fmt: skip


def play(tuner, rounds, noise=1):
    for _ in range(rounds):
        tuner.tell(reply(tuner.ask(), noise))
    return own_evidence(tuner.problem, tuner.history)


def sent(source, path, name="another"):
    """A source as a package brings it."""
    packages.export(replace(source, name=name), path, timedelta(days=1), ["feed"])
    return packages.load(path, "feed").source


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study after nine rounds, what it exported after six, and a twin with noise of its own."""
    folder = tmp_path_factory.mktemp("studies")
    tuner = hz.Tuner(problem(), CONFIG, None, "south", 5)
    old = sent(play(tuner, 6).source, folder / "old.json")
    play(tuner, 3)
    twin = hz.Tuner(problem(), CONFIG, None, "north", 5)
    other = sent(play(twin, 6, noise=2).source, folder / "twin.json", "twin")
    return tuner, old, other


def test_a_studys_older_evidence_is_no_source_of_it(studies):
    tuner, old, other = studies
    assert old.fingerprint() != own_evidence(tuner.problem, tuner.history).source.fingerprint()
    before = tuner.history.num_entries
    order = torch.randperm(len(old), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = Source(
        "shuffled", [old.parameters[i] for i in order], old.metrics, old.mean[order], old.var[order]
    )
    for copy in (old, shuffled):
        with pytest.raises(hz.ConfigError, match="evidence as the target, now or after an earl"):
            tuner.learn_from([copy])
    assert tuner.history.num_entries == before
    # Most settings are the same, but not the noise.
    tuner.learn_from([other])
    assert tuner.history.num_entries == before + 1


def test_what_a_study_knew_before_is_what_it_knew_then():
    config = CONFIG.model_copy(update={"calibrate": False, "initial_candidates": 4})
    tuner = hz.Tuner(problem(), config, None, "south", 5)
    then = [play(tuner, 1).source for _ in range(5)]
    own = play(tuner, 1)
    earlier = own.earlier(torch.arange(len(own.source)))
    assert len(earlier) == 5
    for mean, source in zip(earlier, then):
        at = [own.source.parameters.index(row) for row in source.parameters]
        assert torch.allclose(mean[at], source.mean, atol=1e-12)
        left = [i for i in range(len(own.source)) if i not in at]
        assert bool(mean[left].isnan().all())


def test_nothing_is_known_before_the_first_readings():
    tuner = hz.Tuner(problem(), CONFIG, None, "south", 5)
    tuner.ask()
    assert own_evidence(tuner.problem, tuner.history) is None


def export(folder, capsys, out):
    code, *_ = run(capsys, "export", "-c", folder / "south.yaml", "-o", folder / out,
                   "--expires", "30d", "--scope", "feed/eu")  # fmt: skip
    assert code == 0


def test_commands_and_refreshes_see_it_too(tmp_path, capsys):
    config = begin(tmp_path, "south", 4, 3)
    export(tmp_path, capsys, "own.json")
    for command in ("compare", "space"):
        code, _, err = run(capsys, command, "-c", config, f"north={tmp_path / 'own.json'}",
                           "--scope", "feed/eu")  # fmt: skip
        assert code == 3
        assert "same evidence as the target" in err
    # A source that is known, and whose file holds the study's own evidence one day.
    study = hz.StudyConfig.from_file(config)
    tuner = hz.Tuner.resume(study.journal_url(tmp_path), "south", problem=study.problem())
    foreign = measured(torch.Generator().manual_seed(7), name="own")
    tuner.learn_from([replace(foreign, metrics=study.metrics)])
    entry = SourceConfig(source="own.json", scope="feed/eu", refresh=1)
    read = refresh.read([entry], tmp_path, study.problem(), tuner.history, every=True)
    assert read.sources == ()
    assert "stays as it was read" in read.remarks[0]
    assert "same evidence as the target" in read.remarks[0]
