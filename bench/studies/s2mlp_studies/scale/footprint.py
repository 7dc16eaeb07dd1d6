"""Memory of an ONNX file that runs batches of one shape, in a process of its own.

    python footprint.py FILE THREADS BATCHxCHANNELSxHEIGHTxWIDTH OUT.json

writes the memory that running takes beyond the loaded model.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.process_cost import measure

RUNS = 3
"""ONNX Runtime plans its memory from what the first run with a shape needed; from the second run on the plan holds."""

_STATUS, _FORGET_PEAK = "/proc/self/status", (Path("/proc/self/clear_refs"), "5")


@dataclass(frozen=True)
class Footprint:
    """Largest resident set of the process, its Python and its runtime included, and by how much running raised it above
    the resident set after loading (None: this system does not report it)."""

    peak_bytes: int
    running_bytes: int | None


def take(path: Path, shape: tuple[int, ...], *, threads: int, scratch: Path) -> Footprint:
    """The footprint of the ONNX file at ``path`` on images of ``shape``; ``scratch`` is for the output file.

    Raises:
        BundleError: where the process fails.
    """
    out = scratch / "footprint.json"
    words = [str(path), str(threads), "x".join(map(str, shape)), str(out)]
    try:
        cost = measure([sys.executable, __file__, *words])
    except RuntimeError as error:
        raise BundleError(
            f"a process of its own cannot run images of {'x'.join(map(str, shape))}, perhaps for lack of memory: {error}"
        ) from error
    return Footprint(cost.peak_rss_bytes, json.loads(out.read_text("utf-8"))["running_bytes"])


def _running_bytes(session: OnnxSession, images: np.ndarray) -> int | None:
    file, command = _FORGET_PEAK
    try:
        file.write_text(command)
        forgotten = True
    except OSError:
        forgotten = False
    before = memory.kibibytes(_STATUS, "VmRSS")
    for _ in range(RUNS):
        session.run(images)
    peak = memory.kibibytes(_STATUS, "VmHWM")
    return 1024 * max(peak - before, 0) if forgotten and peak is not None and before is not None else None


def main() -> None:
    path, threads, shape, out = sys.argv[1:]
    # Otherwise glibc keeps a quarter more or less of the memory freed after loading, differently each time.
    memory.release()
    images = np.zeros(tuple(map(int, shape.split("x"))), np.float32)
    session = OnnxSession(Path(path), Loading(threads=int(threads), config=RESTING))
    Path(out).write_text(json.dumps({"running_bytes": _running_bytes(session, images)}), "utf-8")


if __name__ == "__main__":
    main()
