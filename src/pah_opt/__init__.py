"""Compress and speed up Vision Transformers with recipes, and report true figures."""
