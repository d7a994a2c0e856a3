"""A node for Ax's generation strategies; importing it registers the node with Ax's stores."""

from .node import AX_CONFIG, AxStudy, HyperZeroNode, fold

__all__ = ["AX_CONFIG", "AxStudy", "HyperZeroNode", "fold"]
