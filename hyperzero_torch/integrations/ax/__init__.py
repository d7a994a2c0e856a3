"""A node for Ax's generation strategies; importing it registers the node with Ax's stores.

node       the node itself
study      an Ax experiment as a study of ours
problem    its search space and optimization config as a problem
readings   its data as readings
"""

from ...errors import MissingExtraError

try:
    from .node import AX_CONFIG, HyperZeroNode
    from .study import AxStudy, fold
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ax", "ax-platform", "ax") from error

__all__ = ["AX_CONFIG", "AxStudy", "HyperZeroNode", "fold"]
