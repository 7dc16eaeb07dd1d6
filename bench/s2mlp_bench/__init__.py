"""``s2mlp-bench``: times bundles against each other and against baselines on this machine. Read benchmark.py first."""
