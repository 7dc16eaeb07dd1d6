"""What the device can do at most: a large matrix product at each float type, and a copy from one place in its memory to another.

    python -m s2mlp_studies.gpu.peaks SHEET UNTIL DEVICE

writes a row each.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2mlp_bench.pytorch.place import place_of
from s2mlp_bench.pytorch.products import TorchProducts, copy_rate
from s2mlp_bench.roofline.peaks import NO_IMAGES, REPEATS
from s2mlp_deploy.schema.precision import BF16, FP16, FP32, Precision
from s2mlp_studies.gpu.device import DEVICES, Device
from s2mlp_studies.gpu.sheet import Sheet

FLOATS = (FP32, FP16, BF16)

RUNS = 20

COPY = ("peak", "copy")


def planned() -> list[tuple[str, ...]]:
    """What the rows are about."""
    return [*(("peak", row.name) for row in FLOATS), COPY]


def product_rate(device: Device, row: Precision) -> Mapping[str, Any]:
    """Operations a second of the fastest of several runs."""
    products = TorchProducts((device.large,) * REPEATS, row.on_gpu.outputs)
    session = products.open(device.point())
    fastest_ms = min(session.time(NO_IMAGES).compute_ms for _ in range(RUNS))
    return {"operations_per_s": products.operations / fastest_ms * 1e3, "shape": device.large}


def main() -> None:
    sheet, _, name = sys.argv[1:]
    device, out = DEVICES[name], Sheet(Path(sheet))
    for row in FLOATS:
        out.measure(("peak", row.name), lambda row=row: product_rate(device, row))  # type: ignore[misc]
    out.measure(COPY, lambda: {"bytes_per_s": copy_rate(place_of(device.point()), device.copied_bytes)})


if __name__ == "__main__":
    main()
