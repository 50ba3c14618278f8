"""The main job as one call: load a model and images, run recipes, compare, and write a folder of results."""

from pah_opt.workflow.folder import require_writable, write_folder
from pah_opt.workflow.ranks import is_main, main_progress
from pah_opt.workflow.runs import Outcome, run_recipes
from pah_opt.workflow.sources import Source, empty_model

__all__ = [
    "Outcome",
    "Source",
    "empty_model",
    "is_main",
    "main_progress",
    "require_writable",
    "run_recipes",
    "write_folder",
]
