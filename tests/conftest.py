from __future__ import annotations

from hypothesis import settings

# Examples have no time limit each: on a busy machine one that imports something first takes far longer than its twin.
settings.register_profile("any-speed", deadline=None)
settings.load_profile("any-speed")
