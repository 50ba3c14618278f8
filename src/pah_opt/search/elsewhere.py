"""What other processes need, to run trials as this one would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import SearchError

if TYPE_CHECKING:
    from pah_opt.layout import ModelAdapter
    from pah_opt.registry import Registry
    from pah_opt.search.space import Space


def check_installed(space: Space, registry: Registry, adapter: ModelAdapter) -> None:
    """See that another process finds what the trials need: it loads the installed plugins, and no others.

    Raises:
        SearchError: names what was only registered in this process.
    """
    installed = [plugin for plugin in registry.plugins.loaded if plugin.origin.distribution is not None]
    named = {each.name for plugin in installed for each in plugin.optimizers}
    missing = [f"the strategy {step.use!r}" for step in space.steps if step.use not in named]
    if type(adapter) not in {type(each) for plugin in installed for each in plugin.adapters}:
        missing.append(f"the adapter {type(adapter).__name__}")
    if missing:
        raise SearchError(
            f"{', '.join(dict.fromkeys(missing))}: known to this process only, and with a time limit for trials or the "
            "engine ray they run in others; install the plugin as a package (pah-opt plugin new NAME writes one; on "
            "every node of a cluster), or search without trial_limit_s and engine"
        )
