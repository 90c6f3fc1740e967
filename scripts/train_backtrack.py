#!/usr/bin/env python
"""`backtrack-mrt train` by its old name."""

import sys

from backtrack_mrt.cli.main import run

run(["train", *sys.argv[1:]])
