"""Plays: prompts and chat in tokens, rollouts, values of the meta-prover."""
