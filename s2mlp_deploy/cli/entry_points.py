"""Entry points of the commands, which load nothing before they can be interrupted."""

from __future__ import annotations

from s2mlp_deploy.cli.signals import entered

inspect = entered("s2mlp_deploy.cli.inspect", "main", "Show what a checkpoint or a bundle holds.")
export = entered("s2mlp_deploy.cli.export", "main", "Make bundles of a checkpoint, and check their numbers.")
repair = entered("s2mlp_deploy.cli.repair", "main", "Write the shifts in an ONNX file plainly, and check every bit.")
tune = entered("s2mlp_deploy.cli.tune", "main", "Find the fastest artifact of this machine within limits.")
sweep = entered("s2mlp_deploy.cli.sweep", "main", "Make the exports of a plan, on several processes.")
verify = entered("s2mlp_deploy.cli.verify", "main", "Check a bundle on this machine.")
doctor = entered("s2mlp_deploy.cli.doctor", "main", "Show what this machine can export and run.")
bench = entered("s2mlp_bench.cli", "main", "Time bundles against each other, and against baselines.")
