"""Plan a recipe (everything that can go wrong, before anything is touched), then run it, one verified step at a time."""

from pah_opt.pipeline.plan import Plan, PlannedStep, plan
from pah_opt.pipeline.run import OnCollapse, apply

__all__ = ["OnCollapse", "Plan", "PlannedStep", "apply", "plan"]
