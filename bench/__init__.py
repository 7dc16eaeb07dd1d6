"""Measuring: export time and memory, latency, baselines."""
