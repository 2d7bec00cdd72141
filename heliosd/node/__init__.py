"""The node: carries events to the scheduler and its commands to the world, and is the only caller of either."""

from heliosd.node.node import Node

__all__ = ["Node"]
