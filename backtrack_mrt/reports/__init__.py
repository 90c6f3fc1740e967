"""report.html: what a run, or a comparison of runs, shows; and the viewer of its traces. One file, no network."""
