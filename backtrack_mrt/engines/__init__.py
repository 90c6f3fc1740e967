"""Engines: what samples from the policy."""
