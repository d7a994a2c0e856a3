"""Ax for the tests, imported with its warnings off, and the client and the truth that they share.

Ax's names are imported here once; the tests take them from here.
"""
# ruff: noqa: F401

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():  # Ax's own imports warn
    warnings.simplefilter("ignore")
    pytest.importorskip("ax", reason="needs Ax: pip install 'hyperzero-torch[ax]'")

    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig, StorageConfig
    from ax.core.arm import Arm
    from ax.core.data import Data, DataRow, relativize_dataframe
    from ax.core.experiment import Experiment
    from ax.core.metric import Metric
    from ax.core.objective import Objective
    from ax.core.optimization_config import OptimizationConfig
    from ax.core.outcome_constraint import OutcomeConstraint
    from ax.core.parameter import (
        ChoiceParameter,
        DerivedParameter,
        FixedParameter,
        ParameterType,
        RangeParameter,
    )
    from ax.core.parameter_constraint import ParameterConstraint
    from ax.core.search_space import SearchSpace
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.generation_strategy.transition_criterion import MinTrials
    from ax.storage.json_store.decoder import object_from_json
    from ax.storage.json_store.encoder import object_to_json
    from ax.storage.registry_bundle import RegistryBundle
    from ax.storage.sqa_store.db import (
        create_all_tables,
        get_engine,
        init_engine_and_session_factory,
    )

    from hyperzero_torch.integrations.ax import AX_CONFIG, HyperZeroNode, fold
    from hyperzero_torch.integrations.ax.problem import axes_of, space_of
    from hyperzero_torch.integrations.ax.readings import readings_of

QUIET = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
#: Few draws and samples, for tests that do not depend on their number.
SMALL = AX_CONFIG.model_copy(update={"num_samples": 256, "num_draws": 200})
BASE = {"a": 0.3, "b": 0.3}
BOUND = "unfollows <= 1.02 * baseline"
UNIT = [RangeParameterConfig(name=n, parameter_type="float", bounds=(0.0, 1.0)) for n in "ab"]


def truth(p):
    """Views are best at (0.7, 0.5), by 20 %; unfollows rise with a: 2 % more at a = 0.7."""
    views = 10 * (1 + 0.2 - 0.8 * ((p["a"] - 0.7) ** 2 + (p["b"] - 0.5) ** 2))
    return {"views": views, "unfollows": 1 + 0.05 * (p["a"] - 0.3)}


def optimization_config(names, objective="views", constraints=(BOUND,)):
    """Of metrics whose signatures are their names."""
    signatures = {name: name for name in names}
    return OptimizationConfig(
        objective=Objective(expression=objective, metric_name_to_signature=signatures),
        outcome_constraints=[
            OutcomeConstraint(expression=c, metric_name_to_signature=signatures)
            for c in constraints
        ],
    )


# Ax's client shows neither its experiment nor its strategy, so the tests reach for them here alone.


def experiment_of(client):
    """The experiment with all trials of a client."""
    return client._experiment


def strategy_of(client):
    """The strategy that plans a client's trials, also of a client that was loaded."""
    return client._generation_strategy


def node_of(client):
    """The only node of a client's strategy."""
    (node,) = strategy_of(client).nodes_by_name.values()
    return node


def updated_node(client):
    """The same node, knowing all of the client's data, as before a trial."""
    node, experiment = node_of(client), experiment_of(client)
    node.update_generator_state(experiment, experiment.lookup_data())
    return node


def client_with(
    node,
    parameters=UNIT,
    objective="views",
    constraints=(BOUND,),
    *,
    base=None,
    linear=(),
    **options,
):
    """A client whose trials the node plans; ``base`` is attached as trial 0."""
    client = Client(**options)
    client.configure_experiment(
        name="feed", parameters=list(parameters), parameter_constraints=list(linear)
    )
    client.configure_optimization(objective=objective, outcome_constraints=list(constraints))
    client.set_generation_strategy(GenerationStrategy(nodes=[node]))
    if base is not None:
        client.attach_baseline(base)
    return client
