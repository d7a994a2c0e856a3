"""Operations that would make the host wait for a device."""

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal")


class Waits(TorchDispatchMode):
    """Collects the names of the waiting operations that run inside it."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        if name in WAITING:
            self.operations.append(name)
        return func(*args, **(kwargs or {}))
