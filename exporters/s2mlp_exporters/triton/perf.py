"""Files for NVIDIA's perf_analyzer and Model Analyzer, which measure a model in a running Triton: golden inputs, and what to search.

The formats are those of docs/input_data.md in triton-inference-server/perf_analyzer and of docs/config.md in
triton-inference-server/model_analyzer. Logits are not among the data: perf_analyzer would compare their bits, which differ between
runtimes.
"""

from __future__ import annotations

import base64
import json

import numpy as np

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.triton.config import Serving, Signature

DATA, SEARCH = "perf_analyzer.json", "model_analyzer.yaml"
FILES = (DATA, SEARCH)

_LITTLE_ENDIAN = {"TYPE_FP32": "<f4", "TYPE_FP16": "<f2", "TYPE_UINT8": "|u1"}


def texts(model: Signature, serving: Serving, golden: Golden) -> dict[str, str]:
    """The text of each of :data:`FILES`, for a model of one input."""
    requests = _requests(model, serving, golden)
    (image,) = model.inputs
    content = {"data": [{image.name: _tensor(request, _LITTLE_ENDIAN[image.type])} for request in requests]}
    shape = ",".join(map(str, requests[0].shape))
    lines = [
        "# In this directory: model-analyzer profile -f model_analyzer.yaml --model-repository DIR --profile-models NAME,",
        "# where NAME is this directory's name, and DIR the directory that it lies in.",
    ]
    if serving.max_batch:
        lines.append(f"run_config_search_max_model_batch_size: {serving.max_batch}")
    lines += ["perf_analyzer_flags:", f"  input-data: {DATA}"]
    if -1 in image.dims(batched=serving.max_batch > 0):
        lines.append(f"  shape: {json.dumps(f'{image.name}:{shape}')}")
    return {DATA: json.dumps(content, indent=1) + "\n", SEARCH: "\n".join(lines) + "\n"}


def _requests(model: Signature, serving: Serving, golden: Golden) -> list[Array]:
    """The golden inputs of one size, each as a request: of one image, or of the batch that the model is fixed to."""
    size = golden.inputs[golden.traced].shape[1:]
    images = [image for case in golden.inputs.values() if case.shape[1:] == size for image in case]
    if serving.max_batch:
        return images
    batch = model.inputs[0].shape[0]
    assert isinstance(batch, int)
    return [np.repeat(image[None], batch, axis=0) for image in images]


def _tensor(request: Array, dtype: str) -> dict[str, object]:
    content = base64.b64encode(np.ascontiguousarray(request, dtype).tobytes()).decode()
    return {"content": {"b64": content}, "shape": list(request.shape)}
