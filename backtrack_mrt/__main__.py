"""`python -m backtrack_mrt` is `backtrack-mrt`."""

from backtrack_mrt.cli.main import run

run()
