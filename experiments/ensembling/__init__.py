"""Averaging weights against ensembling outputs, of pairs of tasks, of all tasks, and of seeds."""
