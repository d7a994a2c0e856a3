"""Checks that run on the simulated card, in a process of their own: see ``tests/device``.

python -m support.card_checks GUARD         prints {"name": ..., "error": ...} for each check
"""

import contextlib
import io
import json
import sys
import tempfile
import traceback
from pathlib import Path

from bench.device import guard

guard.load(Path(sys.argv[1]))

import pytest  # noqa: E402
import torch  # noqa: E402

import hyperzero_torch as hz  # noqa: E402
from bench import cuda  # noqa: E402
from bench.device import rows  # noqa: E402
from bench.device.card import on_card, simulated  # noqa: E402
from bench.device.studies import problem  # noqa: E402
from hyperzero_torch.stats import delta, dispersion, evidence, moments  # noqa: E402
from hyperzero_torch.surrogate.kernels import matern52  # noqa: E402
from hyperzero_torch.surrogate.paths import Paths  # noqa: E402

f64 = torch.float64
WEIGHT = torch.tensor([1.0, 0.5, 0.0], dtype=f64)


def rand(*shape, seed=0):
    return torch.rand(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def posteriors(n=20, shared=False):
    """The same posterior on the CPU and on the card."""
    x, mean = rand(n, 2), rand(n, 3, seed=1)
    system = 0.001 * torch.ones(3, n, n, dtype=f64) if shared else None
    given = (x, mean, torch.full_like(mean, 0.01), system)
    here = hz.Surrogate().condition(*given)
    there = hz.Surrogate().condition(*(t if t is None else on_card(t) for t in given))
    return here, there


def check_the_card_refuses_what_a_card_refuses(record):
    a = torch.rand(3, device="cuda")
    assert str(a.device) == "cuda:0"
    for mixes in (lambda: a + torch.rand(3), lambda: torch.rand(3)[a.long()], lambda: a @ WEIGHT):
        with pytest.raises(RuntimeError, match="two devices"):
            mixes()
    with pytest.raises(RuntimeError, match="two devices"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    with pytest.raises(TypeError, match="numpy"):
        a.numpy()
    assert (a + torch.tensor(1.0)).device == a.device  # a single number is taken from anywhere


def check_the_card_counts(record):
    a = torch.rand(4, device="cuda")
    record.clear()
    a.add_(1).mul_(2)
    assert record.totals() == {"launches": 2, "waits": 0, "uploads": 0, "atomics": 0}
    float(a.sum()), a.cpu(), a[a > 1]
    assert sum(record.waits.values()) == 3
    torch.ones(3).to("cuda")
    assert sum(record.uploads.values()) == 1
    a.index_add(0, torch.tensor([0, 1]).to("cuda"), torch.ones(2, device="cuda"))
    assert sum(record.atomics.values()) == 1


def check_a_callable_that_holds_a_cpu_tensor_is_refused_when_the_tuner_is_made(record):
    closes_over = problem("module", lambda delta: delta @ WEIGHT)
    hz.Tuner(closes_over)
    with pytest.raises(hz.ProblemError, match=r"does not work on cuda:0.* nn\.Module .*\.to\(del"):
        hz.Tuner(closes_over, device="cuda")
    returns = problem("module", lambda delta: (delta @ WEIGHT.to(delta.device)).cpu())
    with pytest.raises(hz.ProblemError, match="returned a tensor on cpu"):
        hz.Tuner(returns, device="cuda")
    tuner = hz.Tuner(problem("module"), device="cuda")
    with pytest.raises(hz.ProblemError, match="does not work on cuda:0"):
        tuner.change_goals(closes_over, reason="a test")


def check_a_callable_that_holds_a_tensor_of_the_card_is_called_there(record):
    weight = WEIGHT.to("cuda")
    utility = problem("module", lambda delta: delta @ weight)
    assert utility.evaluate(rand(2, 3)).utility.device.type == "cpu"
    hz.Tuner(utility, device="cuda")
    with pytest.raises(hz.ProblemError, match="fails on deltas"):
        problem("module", lambda delta: delta @ weight[:2])


def check_a_network_is_copied_once_an_ask(record):
    import copy

    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(-2)).double()
    small = hz.TunerConfig(num_draws=16, num_samples=32, initial_candidates=4, num_starts=1)
    from bench.device.studies import reply

    tuner = hz.Tuner(problem("module", net), small, device="cuda")
    for _ in range(2):
        tuner.tell(reply(tuner.ask()))
    copies, real = [], copy.deepcopy

    def counted(value, *rest):
        copies.append(type(value) is torch.nn.Sequential)
        return real(value, *rest)

    from hyperzero_torch.problem import terms

    terms.copy.deepcopy = counted
    try:
        tuner.ask()
    finally:
        terms.copy.deepcopy = real
    assert sum(copies) == 1


def check_marginals_and_paths_are_the_cpu_s(record):
    for shared in (False, True):
        here, there = posteriors(shared=shared)
        x = rand(33, 2, seed=2)
        for got, want in zip(there.marginal(on_card(x)), here.marginal(x)):
            torch.testing.assert_close(got.cpu(), want, rtol=1e-9, atol=1e-12)
        paths = there.paths(3, torch.Generator("cuda").manual_seed(0))
        host = paths.on_cpu()
        torch.testing.assert_close(paths(on_card(x)).cpu(), host(x), rtol=1e-9, atol=1e-9)
        each = rand(3, 5, 2, seed=3)
        want = paths.each(on_card(each)).cpu()
        torch.testing.assert_close(host.each(each), want, rtol=1e-9, atol=1e-9)


def check_points_are_evaluated_in_tiles_without_large_arrays(record):
    """``Paths`` in tiles gives what one call gives, and no more memory is held than for a tile."""
    _, there = posteriors()
    x = on_card(rand(50, 2, seed=4))
    paths = there.paths(2, torch.Generator("cuda").manual_seed(0))
    want, tile = paths(x).cpu(), Paths.tile
    Paths.tile = property(lambda self: 7)
    try:
        record.clear()
        torch.testing.assert_close(paths(x).cpu(), want, rtol=1e-12, atol=1e-12)
    finally:
        Paths.tile = tile
    assert sum(record.waits.values()) == 1  # the copy to the CPU above


def check_a_kernel_of_the_card_is_the_kernel(record):
    here, there = posteriors()
    x = rand(9, 2, seed=5)
    want = here.outputscale[:, None, None] * matern52(x, here.x, here.lengthscale)
    torch.testing.assert_close(there.cross(on_card(x)).cpu(), want, rtol=1e-12, atol=1e-12)


def check_constraints_on_theta_are_met_with_one_copy(record):
    from bench.device.studies import space

    constrained = space("constrained")
    x = rand(40, 2, seed=6)
    record.clear()
    snapped = constrained.snap(on_card(x))
    assert sum(record.waits.values()) == 1
    assert torch.equal(snapped.cpu(), constrained.snap(x))


def check_an_arm_out_of_range_is_refused_before_it_reaches_the_card(record):
    values, arm = on_card(rand(4, 2)), torch.tensor([0, 1, 2, 5])
    with pytest.raises(hz.ShapeError, match=r"arm must lie in \[0, 3\), got 0 to 5"):
        moments.summarise(values, on_card(arm), 3)
    record.clear()
    assert moments.summarise(values, on_card(arm), 6).count.device.type == "cuda"
    assert sum(record.waits.values()) == 1
    deltas = delta.Delta(values, values)
    with pytest.raises(hz.ShapeError, match=r"candidates must lie in \[0, 5\), got 0 to 5"):
        evidence.summarise(on_card(arm), deltas, on_card(rand(4)), 5)
    with pytest.raises(hz.ShapeError, match=r"candidates must lie in \[0, 5\), got 0 to 5"):
        dispersion.follow(on_card(arm), on_card(arm), deltas, 5)
    with pytest.raises(hz.ShapeError, match=r"group must lie in \[0, 2\), got -1 to 1"):
        moments.moderate(moments.empty(4, 2, device="cuda"), on_card(arm.clamp(0, 2) - 1), 2)


def check_all_figures_come_from_one_process(record):
    cuda._TIMES, every = 1, rows.rows
    # Fits are whole studies' affair, and slow on a simulated card.
    rows.rows = lambda *given: [r for r in every(*given) if r.question[:3] not in ("fit", "a w")]
    with tempfile.TemporaryDirectory() as folder:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            cuda.main(["--scale", "0.0005", "--results", folder, "--only", "rows"])
        lines = printed.getvalue().splitlines()
        assert not [line for line in lines if line.startswith("FAILED")], lines
        report = json.loads((Path(folder) / "speed_cuda_rows.json").read_text())
        assert all(row["group"].endswith(", cuda") for row in report["benchmarks"])
        assert report["machine_info"]["device"] == "simulated"


def check_a_device_that_is_not_there_is_one_error(record):
    for wrong in ("cuda9", "gpu", "privateuseone"):
        with pytest.raises(hz.ConfigError, match=f"device '{wrong}' cannot be used here"):
            hz.Tuner(problem("module"), device=wrong)


def main():
    torch.set_num_threads(1)
    for name, check in list(globals().items()):
        if not name.startswith("check_"):
            continue
        error = None
        with simulated() as record:
            try:
                check(record)
            except Exception:
                error = traceback.format_exc()
        print(json.dumps({"name": name, "error": error}), flush=True)


if __name__ == "__main__":
    main()
