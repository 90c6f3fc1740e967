"""Measures: what a policy is worth, with intervals."""
