"""The searcher as Ray Tune drives it, on a cluster of one machine."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")

from ray import tune

from hyperzero_torch.integrations.ray import HyperZeroSearch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_ray_tune_runs_it_and_leaves_a_state_that_goes_on(cluster, tmp_path):
    def trainable(config):
        return {"loss": (config["x"] - 0.3) ** 2 + 0 * config["constant"]}

    space = {"x": tune.uniform(0, 1), "constant": 4}
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=5,
            max_concurrent_trials=2,
            search_alg=HyperZeroSearch(seed=0, num_startup=3),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert results.num_terminated == 5
    assert all(r.config["constant"] == 4 for r in results)
    again = HyperZeroSearch(num_startup=3)
    again.restore_from_dir(str(tmp_path / "run"))
    again.set_search_properties("loss", "min", space)
    learnt = sorted(theta[0] for theta, _, _ in again.get_state()["finished"])
    assert learnt == sorted(r.config["x"] for r in results)
    assert 0 <= again.suggest("next")["x"] <= 1


def test_a_wrong_report_is_that_trials_error_and_the_others_go_on(cluster, tmp_path):
    """Ray takes what a searcher raises for the failure of the trial."""

    def trainable(config):
        quarter = int(4 * config["x"])  # each has one of Sobol's first four points
        report = {"loss": config["x"], "latency": 0.5, "loss_var": 0.1}
        wrong = {0: {"loss_var": "small"}, 1: {"latency": None}}
        return report | wrong.get(quarter, {})

    options = {"at_most": {"latency": 1.0}, "variances": {"loss": "loss_var"}}
    tuner = tune.Tuner(
        trainable,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=4,
            search_alg=HyperZeroSearch(seed=0, **options),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    errors = {int(4 * r.config["x"]): str(r.error) for r in results}
    assert "loss_var = 'small'" in errors[0]
    assert "latency = None" in errors[1]
    assert errors[2] == errors[3] == "None"
    again = HyperZeroSearch(**options)
    again.restore_from_dir(str(tmp_path / "run"))
    assert len(again.get_state()["finished"]) == 2
    assert again.get_state()["live"] == {}
