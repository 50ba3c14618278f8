"""The library that training runs through."""

from __future__ import annotations

from pah_opt.environment import Backend

ACCELERATE = Backend("accelerate", ">=1.12,<2", "pip install 'pah-opt[train]'")
