"""Adapters for other packages; each needs its package, installed by the extra of the same name.

    botorch   our posterior as a BoTorch model, a fitted BoTorch model as our posterior
    optuna    a sampler for Optuna studies
    ax        a node for Ax generation strategies
    ray       a searcher for Ray Tune
    http      a JSON API and a live page: ``hyperzero serve``
    search    the next point to evaluate, shared by the sampler and the searcher
    axes      parameters of another package as ours, and back

Nothing is imported here: ``from hyperzero_torch.integrations.optuna import HyperZeroSampler``.
"""
