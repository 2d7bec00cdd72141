"""Helios: one daemon per GPU machine that serves any model it knows without running out of memory."""

__version__ = "0.1.0"
