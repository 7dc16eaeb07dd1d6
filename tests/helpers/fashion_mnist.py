"""Fashion-MNIST's 10,000 test images, from Debian's package dataset-fashion-mnist or where S2MLP_FASHION_MNIST says."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from s2mlp_deploy.schema.array import Array

DATASET = Path(os.environ.get("S2MLP_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


needs_dataset = pytest.mark.skipif(
    not (DATASET / "t10k-images-idx3-ubyte.gz").exists(),
    reason="needs Fashion-MNIST: Debian's package dataset-fashion-mnist, or S2MLP_FASHION_MNIST=DIR",
)


def read(name: str, header: int) -> Array:
    with gzip.open(DATASET / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def run_alone(model: Path, pixels: Array) -> Array:
    """Classes from ONNX Runtime and what the file's own metadata says; pixels are (count, 28, 28) uint8."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # in small batches, a second one mostly waits, and busily
    session = onnxruntime.InferenceSession(model, options)
    preprocessing = json.loads(session.get_modelmeta().custom_metadata_map["s2mlp.preprocessing"])
    mean, std = (np.array(preprocessing[k], np.float32).reshape(3, 1, 1) for k in ("mean", "std"))
    prepared = (pixels[:, None].astype(np.float32) * np.float32(preprocessing["scale"]) - mean) / std
    return np.concatenate(
        [session.run(None, {"input": x})[0].argmax(1) for x in np.split(prepared, len(prepared) // 25)]
    )
