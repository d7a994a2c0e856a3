"""A client that Ax has stored goes on in another process as if nothing had happened."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ax_studies import (
    BASE,
    QUIET,
    SMALL,
    Client,
    Data,
    DataRow,
    HyperZeroNode,
    RegistryBundle,
    StorageConfig,
    client_with,
    create_all_tables,
    experiment_of,
    get_engine,
    init_engine_and_session_factory,
    node_of,
    object_from_json,
    object_to_json,
    readings_of,
    strategy_of,
    updated_node,
)

import hyperzero_torch as hz

pytestmark = QUIET

GO_ON = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
from ax.api.client import Client
import hyperzero_torch.integrations.ax
client = Client.load_from_json_file(sys.argv[1])
print(json.dumps(list(client.get_next_trials(max_trials=3).values())))
"""


def measure(number, a, b):
    """Irrational numbers, of which no file keeps all digits."""
    generator = np.random.default_rng(number)
    views = 10 - 2 * (a - 0.6) ** 2 - (b - 0.5) ** 2
    sem = 0.02 * math.sqrt(1 + 0.1 * number)
    return {
        "views": (views + sem * generator.normal(), sem),
        "unfollows": (1 + 0.05 * a + 0.002 * generator.normal(), 0.002),
    }


def a_client(storage=None):
    node = HyperZeroNode("ours", SMALL, seed=5, num_startup=4)
    bounds = ["unfollows <= 1.05 * baseline"]
    client = client_with(node, constraints=bounds, base=BASE, storage_config=storage)
    client.complete_trial(0, measure(0, **BASE))
    return client


def go_on(client, trials):
    for _ in range(trials):
        for index, parameters in client.get_next_trials(max_trials=1).items():
            client.complete_trial(index, measure(index, **parameters))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A client in the middle of its work, with a trial running, and its file."""
    path = tmp_path_factory.mktemp("ax") / "client.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = a_client()
        go_on(client, 8)
        client.get_next_trials(max_trials=1)
        client.save_to_json_file(str(path))
    return client, path


def test_a_fresh_process_goes_on_with_the_same_candidates(stored):
    client, path = stored
    done = subprocess.run(
        [sys.executable, "-c", GO_ON, str(path)], capture_output=True, text=True, check=True
    )
    there = json.loads(done.stdout.splitlines()[-1])
    here = Client.load_from_json_file(str(path)).get_next_trials(max_trials=3)
    assert there == list(here.values())
    assert len({tuple(p.items()) for p in there}) == 3
    # ... and so does the one that was never stored.
    node = updated_node(client)
    assert node.get_next_candidate([]) == there[0]


def test_trial_by_trial_the_loaded_client_does_what_the_other_does(stored):
    _, path = stored
    clients = [Client.load_from_json_file(str(path)) for _ in range(2)]
    for step in range(4):
        go_on(clients[0], 1)
        clients[1].save_to_json_file(str(path.with_name(f"step-{step}.json")))
        clients[1] = Client.load_from_json_file(str(path.with_name(f"step-{step}.json")))
        go_on(clients[1], 1)
        arms = [
            [trial.arm.parameters for trial in experiment_of(client).trials.values()]
            for client in clients
        ]
        assert arms[0] == arms[1]
    node = node_of(clients[1])
    assert (node.name, node.seed, node.num_startup, node.config) == ("ours", 5, 4, SMALL)


@pytest.mark.filterwarnings("ignore:TypeDecorator:sqlalchemy.exc.SAWarning")  # of Ax's tables
def test_axs_database_store_and_registry_bundles_take_the_node(tmp_path, monkeypatch):
    bundle = RegistryBundle(metric_clss={}, runner_clss={})
    assert bundle.decoder_registry["HyperZeroNode"] is HyperZeroNode
    assert HyperZeroNode in bundle.encoder_registry
    # Ax prints data on its way, for which pandas wants a package that Ax does not install.
    monkeypatch.setattr(Data, "__repr__", object.__repr__)
    url = f"sqlite:///{tmp_path}/ax.db"
    init_engine_and_session_factory(url=url, force_init=True)
    create_all_tables(get_engine())
    client = a_client(StorageConfig(url=url))
    go_on(client, 6)
    loaded = Client.load_from_database("feed", storage_config=StorageConfig(url=url))
    assert node_of(loaded).config == SMALL
    there, here = (each.get_next_trials(max_trials=1) for each in (loaded, client))
    assert there == here
    get_engine().dispose()


def test_a_copied_strategy_carries_no_experiment(stored):
    client, _ = stored
    copied = strategy_of(client).clone_reset()
    with pytest.raises(hz.RoundError, match="no experiment yet"):
        _ = copied.nodes_by_name["ours"].study


MEANS = st.floats(-1e7, 1e7).filter(lambda mean: abs(mean) > 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(MEANS, st.floats(2e-5, 1e3)), min_size=2, max_size=5))
def test_what_a_file_brings_back_reads_as_what_was_stored(values):
    """Ax's files keep ten decimals; the node looks at no more where the error hides them."""
    rows = [
        DataRow(
            trial_index=0, arm_name=str(arm), metric_name="m", metric_signature="m",
            mean=mean, se=sem,
        )
        for arm, (mean, sem) in enumerate(values)
    ]  # fmt: skip
    data = Data(data_rows=rows)
    loaded = object_from_json(json.loads(json.dumps(object_to_json(data))))
    arms = {str(arm): arm for arm in range(len(values))}
    here, there = (readings_of(1, [0], source, ["m"], arms) for source in (data, loaded))
    for name in ("count", "mean", "var"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    given = np.array([mean for mean, _ in values])
    sem = np.array([sem for _, sem in values])
    assert (np.abs(here.mean - given) <= 1e-4 * sem + 1e-11 * np.abs(given)).all()


@settings(max_examples=50, deadline=None)
@given(
    mean=st.floats(1e-12, 1e-6),
    sem=st.floats(1e-15, 9e-7),
)
def test_small_units_lose_nothing_as_long_as_nobody_stores_them(mean, sem):
    row = DataRow(
        trial_index=0, arm_name="x", metric_name="m", metric_signature="m", mean=mean, se=sem
    )
    read = readings_of(1, [0], Data(data_rows=[row]), ["m"], {"x": 1})
    assert read.mean[0] == pytest.approx(mean, rel=1e-14, abs=0)
    assert (read.var[0] / read.count[0]) ** 0.5 == pytest.approx(sem, rel=1e-14, abs=0)


def test_a_client_that_earlier_code_stored_goes_on():
    folder = Path(__file__).parent.parent / "fixtures"
    client = Client.load_from_json_file(str(folder / "ax_client.json"))
    expected = json.loads((folder / "integrations.json").read_text())["ax"]
    trials = list(client.get_next_trials(max_trials=2).values())
    np.testing.assert_allclose(
        [list(t.values()) for t in trials], [list(t.values()) for t in expected], atol=1e-6
    )
