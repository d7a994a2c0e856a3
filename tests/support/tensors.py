"""Tensors in float64 from seeds of their own."""

import torch

f64 = torch.float64


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def tensor(values):
    return torch.tensor(values, dtype=f64)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=gen(seed), dtype=f64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=f64)
