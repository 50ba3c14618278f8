"""Plan a recipe, so that everything wrong is found before anything is touched; then run it, every step verified."""

from pah_opt.pipeline.plan import Plan, PlannedStep, plan
from pah_opt.pipeline.run import OnCollapse, apply

__all__ = ["OnCollapse", "Plan", "PlannedStep", "apply", "plan"]
