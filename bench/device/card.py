"""A simulated card: tensors that say they are on ``cuda:0`` and hold their values on the CPU.

    guard.load(library)                     before torch is imported
    with simulated() as record:
        hz.Tuner(problem, device="cuda").ask()
    print(sum(record.launches.values()), sum(record.waits.values()))

Every operation runs on the CPU, so results are the CPU's. What a card would refuse is refused:
tensors of two devices in one operation, a generator of the wrong device, ``numpy()``. What a card
would pay for is counted, by the line of the package that asked for it. The simulation knows no
streams, no limit of memory and no rounding of a card's own kernels.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cuda", 0)
CPU = torch.device("cpu")
MEMORY = 139 * 2**30
aten = torch.ops.aten
# Their result is a number on the host, or has a size that only the card knows.
_READS = {
    *("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "nonzero_static"),
    *("_unique2", "unique_consecutive", "unique_dim", "repeat_interleave"),
}
# On a card they add floats in an order that differs from run to run.
_ATOMICS = {
    *("index_add", "index_add_", "scatter_add", "scatter_add_", "put_", "histc", "bincount"),
    *("scatter_reduce", "scatter_reduce_"),
}
_PUTS = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
# They only describe memory that is there already.
_FREE = {"detach", "lift_fresh", "alias"}
_COPIES = {"copy_", "_to_copy"}


@dataclass
class Record:
    """What was asked of the card, by ``file:line function`` of the package.

    ``launches`` of kernels; ``waits`` of the host for a result; ``uploads`` of tensors from the
    host, for which it waits as well where the memory is pageable; ``atomics``: sums of floats whose
    order a card does not fix.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    atomics: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Count from zero."""
        for counter in (self.launches, self.waits, self.uploads, self.atomics):
            counter.clear()

    def totals(self) -> dict[str, int]:
        """The sums."""
        return {
            name: sum(getattr(self, name).values())
            for name in ("launches", "waits", "uploads", "atomics")
        }


#: The record of the simulated card of this process.
current = Record()


class CardTensor(torch.Tensor):
    """A tensor on the simulated card; ``values`` are on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> CardTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=CARD,
        )
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CardTensor({self.values!r})"

    def tolist(self) -> Any:
        current.waits[_line()] += 1
        return self.values.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def data_ptr(self) -> int:
        raise RuntimeError("a tensor on the simulated card has no memory of its own")

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied: torch.Tensor = CardTensor(self.values.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


_Generator = torch.Generator


class _CardGenerator(_Generator):
    """A generator of the CPU that says it is the card's: both draw the same numbers."""

    known: dict[int, _CardGenerator] = {}  # noqa: RUF012

    def __new__(cls) -> _CardGenerator:
        return _Generator.__new__(cls)

    def __init__(self) -> None:
        self.known[self._cdata] = self  # kept, so that no other generator gets its address

    @property
    def device(self) -> torch.device:
        return CARD

    def get_offset(self) -> int:
        return 0


def _dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation: refused, counted, run on the CPU, and its result put where it belongs."""
    flat, _ = tree_flatten((args, kwargs))
    on_card = [a for a in flat if isinstance(a, CardTensor)]
    target, generator = kwargs.get("device"), kwargs.get("generator")
    makes = target is not None and torch.device(target).type == "cuda"
    name = func._schema.name.removeprefix("aten::")
    if generator is not None and (generator._cdata in _CardGenerator.known) != bool(
        makes or on_card
    ):
        raise RuntimeError(f"{name}: the generator and the tensor are on two devices")
    if not on_card and not makes:
        return func(*args, **kwargs)
    on_cpu = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, CardTensor)]
    line = _line()
    if on_card and on_cpu and not _may_mix(func, name, args, on_cpu):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({name} at {line})"
        )
    stays = makes or (target is None and bool(on_card))
    if name in _COPIES and not makes:
        stays = isinstance(args[0], CardTensor) and (name == "copy_" or target is None)
    views = name != "_to_copy" and any(
        a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments
    )
    if not views and name not in _FREE:
        current.launches[line] += 1
    if _waits(func, name, args, on_card, stays):
        current.waits[line] += 1
    if any(t.ndim or name in _COPIES for t in on_cpu):
        current.uploads[line] += 1
    if _is_atomic(name, args):
        current.atomics[line] += 1
    result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    if not stays:
        return result
    result = tree_map(_put_on_card, result)
    if views or func._schema.is_mutable:
        return return_and_correct_aliasing(func, args, kwargs, result)
    return result


def _may_mix(func: Any, name: str, args: Any, on_cpu: list[torch.Tensor]) -> bool:
    """Whether PyTorch takes these tensors of the CPU beside tensors of the card."""
    first = isinstance(args[0], CardTensor)
    if name in _COPIES or (name == "index" and first):
        return True
    if name in _PUTS and first:
        return isinstance(args[2], CardTensor) or args[2].ndim == 0
    scalars = all(t.ndim == 0 for t in on_cpu)
    if name in ("fill", "fill_", "masked_fill", "masked_fill_"):
        return first and scalars
    if torch.Tag.pointwise in func.tags or func is aten.where.self:
        return scalars and (first or not name.endswith("_"))
    return False


def _waits(func: Any, name: str, args: Any, on_card: list[CardTensor], stays: bool) -> bool:
    """Whether the host waits for the card."""
    if name in _READS:
        return True
    if name in _COPIES:
        return bool(on_card) and not stays
    by_mask = name == "index" or name in _PUTS
    return by_mask and any(t is not None and t.dtype == torch.bool for t in args[1])


def _is_atomic(name: str, args: Any) -> bool:
    adds = name in _ATOMICS or (name in _PUTS and len(args) > 3 and bool(args[3]))
    return adds and isinstance(args[0], CardTensor) and args[0].dtype.is_floating_point


def _on_cpu(value: Any) -> Any:
    if isinstance(value, CardTensor):
        return value.values
    return CPU if isinstance(value, torch.device) else value


def _put_on_card(value: Any) -> Any:
    is_plain = isinstance(value, torch.Tensor) and not isinstance(value, CardTensor)
    return CardTensor(value) if is_plain else value


def _line() -> str:
    """The innermost line of the package that is being run."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        _, package, rest = path.rpartition("hyperzero_torch/")
        if package and "/bench/" not in path:
            return f"{rest}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside the package"


def on_card(tensor: torch.Tensor) -> torch.Tensor:
    """The same values on the card, without an entry in the record."""
    return CardTensor(tensor)


@contextlib.contextmanager
def simulated() -> Iterator[Record]:
    """There is a card within; the record is cleared at the start."""
    current.clear()
    with present(), _Mode():
        yield current


@contextlib.contextmanager
def present() -> Iterator[None]:
    """PyTorch says that there is a card; what is put on it is the caller's affair."""

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, _Generator)

    class Generator(metaclass=Kind):
        def __new__(cls, device: torch.device | str = "cpu") -> Any:
            on_card = torch.device(device).type == "cuda"
            return _CardGenerator() if on_card else _Generator(device)

    replaced = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_device_name": lambda device=None: "simulated",
        "default_generators": (_CardGenerator(),),
    }
    swap = torch.__future__.get_swap_module_params_on_conversion()
    lift = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as undo:
        for name, value in replaced.items():
            undo.callback(setattr, torch.cuda, name, getattr(torch.cuda, name))
            setattr(torch.cuda, name, value)
        undo.callback(setattr, torch, "Generator", _Generator)
        torch.Generator = Generator  # type: ignore[misc,assignment]
        undo.callback(torch.__future__.set_swap_module_params_on_conversion, swap)
        torch.__future__.set_swap_module_params_on_conversion(True)
        undo.callback(torch._C._set_only_lift_cpu_tensors, lift)
        torch._C._set_only_lift_cpu_tensors(True)
        yield
