"""On the emulated processor: verify each bundle as s2mlp-verify does, and print a line of JSON about it."""

import json
import sys
from pathlib import Path

from s2mlp_deploy.pipeline import verify as verifying


def main(bundles: list[str]) -> None:
    for bundle in map(Path, bundles):
        found = verifying.verify(bundle)
        worst = max(distance.relative_l2 for distance in found.verdict.distances.values())
        print(
            json.dumps({"bundle": bundle.name, "passed": found.passed, "relative_l2": worst, "cause": found.cause}),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
