"""Remembers: the run directory, its records and checkpoints, the processes of a run."""
