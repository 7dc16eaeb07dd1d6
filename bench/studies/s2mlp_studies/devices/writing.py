"""Writing a model for LiteRT in a process of its own, so that it can be measured as a whole.

    python writing.py ONNX_BUNDLE DIRECTORY

writes the model of the bundle into DIRECTORY, which must exist; without arguments it imports the packages and ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx_ir  # noqa: F401  # writing imports it, and so does a process that writes nothing
from ai_edge_litert import schema_py_generated  # noqa: F401  # the same

from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_exporters.litert.exporter import LiteRtModel


def main() -> None:
    if len(sys.argv) == 1:
        return
    bundle, directory = map(Path, sys.argv[1:])
    target = LiteRtModel()
    target.compile(read_bundle(bundle), directory, target.options())


if __name__ == "__main__":
    main()
