"""Run configurations; the embedded default needs none."""
