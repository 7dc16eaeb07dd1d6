"""Latency on a CPU, beside other runtimes and other ways to write the same network."""
