"""Checkpoints: what a task saves of its work, so that another attempt, here or elsewhere, goes on from there."""
