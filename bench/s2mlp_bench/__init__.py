"""Measuring: bundles against each other and against baselines. Read benchmark.py first.

``devices`` watches the machine meanwhile, ``pictures`` and ``reports`` show what was found, ``mlperf`` and ``scale`` are other ways to
measure, ``presets`` is what ``make bench`` does with S²-MLP-wide and -deep.
"""
