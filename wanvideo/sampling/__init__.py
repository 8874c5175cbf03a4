"""Sampling: sigma schedules, solvers, guidance and the loop."""
