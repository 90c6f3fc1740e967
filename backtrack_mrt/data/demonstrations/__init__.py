"""Demonstrations: trajectories to learn from, generated, stitched or read."""
