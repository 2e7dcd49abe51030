"""Globally optimal scaling coefficients: one for all tasks, one per task, one per task and part."""
