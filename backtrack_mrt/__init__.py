"""Meta Reinforcement fine-Tuning (MRT) for backtracking search."""

__version__ = "0.1.0"
