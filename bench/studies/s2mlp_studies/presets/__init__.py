"""The run of ``make bench``: every part in turn, and a page of docs/benchmarks for each."""
