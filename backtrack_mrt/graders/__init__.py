"""Graders: what an answer is worth. One file each; `--grader NAME`."""
