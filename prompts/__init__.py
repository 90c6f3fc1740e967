"""Prompt files, ``<protocol>/<style>/<phase>.md``; read by `backtrack_mrt.rollouts.prompts`."""
