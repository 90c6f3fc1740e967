"""One file per command of `backtrack-mrt`."""
