"""When the fused kernels are used, which needs no Triton to test."""

from __future__ import annotations

import logging
import sys
import types

import pytest
import torch

from hyperzero_torch.errors import ConfigError
from hyperzero_torch.runtime import fused
from hyperzero_torch.runtime.fused import build

works = build.works.__wrapped__  # nothing is remembered
CARD = torch.device("cuda")


def never(*_):
    raise AssertionError("not to be asked")


def test_tensors_on_the_cpu_never_ask_for_triton(monkeypatch):
    monkeypatch.setattr(build, "works", never)
    for dtype in (torch.float64, torch.float32):
        assert not fused.usable(torch.ones(2, dtype=dtype))


def test_zero_turns_them_off_and_triton_is_not_looked_for(monkeypatch):
    monkeypatch.setenv(build.VARIABLE, "0")
    monkeypatch.setattr(build, "require", never)
    assert not works(CARD)


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv(build.VARIABLE, "off")
    with pytest.raises(ConfigError, match=r"HYPERZERO_FUSED must be 1 .* or 0 .*'off'"):
        works(CARD)


def test_without_triton_the_log_says_why_and_pytorch_is_used(monkeypatch, caplog):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert not works(CARD)
    assert "Triton is not installed" in caplog.text


def test_an_old_triton_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.1.0"))
    with caplog.at_level(logging.WARNING):
        assert not works(CARD)
    assert "Triton 3.6 or newer is needed, this is 3.1.0" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("wrong results"), ValueError("no such card")])
def test_kernels_that_fail_their_trial_are_not_used(monkeypatch, caplog, error):
    def fail(_):
        raise error

    monkeypatch.setattr(build, "require", lambda: None)
    monkeypatch.setattr(build, "_try", fail)
    with caplog.at_level(logging.WARNING):
        assert not works(CARD)
    assert str(error) in caplog.text


def test_they_are_used_where_the_trial_succeeds(monkeypatch):
    monkeypatch.setattr(build, "require", lambda: None)
    monkeypatch.setattr(build, "_try", lambda _: None)
    assert works(CARD)
