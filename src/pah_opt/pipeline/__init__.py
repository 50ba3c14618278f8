"""Plan a recipe, so that everything wrong is found before anything is touched; then run it, every step verified."""

from pah_opt.pipeline.collapse import OnCollapse
from pah_opt.pipeline.planning import Plan, PlannedStep, plan
from pah_opt.pipeline.running import apply

__all__ = ["OnCollapse", "Plan", "PlannedStep", "apply", "plan"]
