"""Numbers about trajectories, as pure functions of arrays and frozen data (docs/evaluation.md).

Shapes: N trajectories, P problems, S samples of a problem, E turns, K answers, C budgets, R resamples. Intervals are
95 % bootstrap intervals over problems: the samples of one problem are not independent.
"""
