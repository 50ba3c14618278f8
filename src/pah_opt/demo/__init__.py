"""The embedded default: a small ViT trained on real images, and recipes for it; no download, no GPU."""

from pah_opt.demo.run import demo_recipes, run_demo

__all__ = ["demo_recipes", "run_demo"]
