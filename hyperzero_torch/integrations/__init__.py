"""Adapters for other stacks; each needs that stack's package, and the extra of its name.

    botorch   our posterior as a BoTorch model, a fitted BoTorch model as our posterior
    optuna    a sampler for Optuna's studies
    ax        a node for Ax's generation strategies
    ray       a searcher for Ray Tune
    search    what the sampler and the searcher share: the next point of a study of values

Nothing is imported here: ``from hyperzero_torch.integrations.optuna import HyperZeroSampler``.
"""
