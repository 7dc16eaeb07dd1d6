"""The entry point of ``s2mlp-bench``."""

from __future__ import annotations

from s2mlp_deploy.cli.signals import entered

main = entered("s2mlp_bench.cli", "main", "Time bundles against each other, and against baselines.")
