"""The version of this library, as its distribution says it."""

from importlib.metadata import version

__version__ = version("pah-opt")
