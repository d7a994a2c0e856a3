"""Mixed mode keeps its precision whatever the program has set, and leaves the setting as it was."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hyperzero_torch as hz
from hyperzero_torch.runtime.precision import full_precision

f64 = torch.float64
ROUGH = ("high", "medium")


@pytest.fixture
def setting():
    """Sets the precision; it is the default again afterwards."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


class Products(TorchDispatchMode):
    """The setting at each matrix product."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func.overloadpacket) in ("aten.mm", "aten.bmm", "aten.mv", "aten.addmm"):
            self.settings.append(torch.backends.cuda.matmul.allow_tf32)
        return func(*args, **(kwargs or {}))


def posterior():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, dtype=f64, generator=generator)
    mean = torch.stack([x.sum(1).sin(), x[:, 0]], 1)
    return hz.Surrogate().condition(x, mean, torch.full_like(mean, 1e-3))


@pytest.mark.parametrize("rough", ROUGH)
def test_mixed_mode_has_full_precision(setting, rough):
    fitted = posterior()
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(1))
    paths = fitted.paths(20, torch.Generator().manual_seed(2))  # too many for the compiled kernel

    def evaluated():
        return (*fitted.marginal(x), paths(x))

    want = evaluated()
    setting(rough)
    with Products() as products:
        results = evaluated()
    assert products.settings
    assert not any(products.settings)
    assert torch.get_float32_matmul_precision() == rough  # for the program, as it was
    for got, right in zip(results, want):
        assert torch.equal(got, right)


def test_other_dtypes_change_nothing(setting):
    setting("high")
    with full_precision(torch.zeros(1, dtype=f64)):
        assert torch.get_float32_matmul_precision() == "high"


def test_an_error_leaves_the_setting_as_it_was(setting):
    setting("high")
    with pytest.raises(hz.ShapeError), full_precision(torch.zeros(1)):
        raise hz.ShapeError("inside")
    assert torch.get_float32_matmul_precision() == "high"


def test_the_last_of_several_threads_restores_it(setting):
    setting("high")
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with full_precision(torch.zeros(1)):
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    with full_precision(torch.zeros(1)):
        leave.set()
        thread.join()
        assert not torch.backends.cuda.matmul.allow_tf32  # the other has left, this one has not
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="PyTorch below 2.9")
def test_a_setting_of_one_backend_is_kept():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_precision(torch.zeros(1)):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
