"""Learns: one run from the base's evaluation to the trained policy."""
