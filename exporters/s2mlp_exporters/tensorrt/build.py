"""Builds an engine from an ONNX file, with the builder's errors in the user's terms."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import CompilerError, UsageError
from s2mlp_exporters.tensorrt.log import Log, reason
from s2mlp_exporters.tensorrt.options import configure
from s2mlp_exporters.tensorrt.profile import Profile
from s2mlp_exporters.tensorrt.runtime import Module


def build(trt: Module, model: Path, profiles: Mapping[str, Profile], given: Mapping[str, Any], log: Log) -> memoryview:
    """The serialized, strongly typed engine of the ONNX file ``model``; the graph decides the precision.

    ``profiles`` has the range of shapes of each input, by name.

    Raises:
        UsageError: where ``given`` or ``profiles`` are not for this runtime or model.
        CompilerError: where its parser does not take the graph, or it cannot build an engine.
    """
    logger = log.into(trt)
    builder = trt.Builder(logger)
    # By the member's value: it is not the same number in TensorRT 10 and 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise CompilerError(f"{trt.__name__} {trt.__version__} does not take the graph: {_refusal(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the log lists the kernels
    configure(trt, config, given)
    shapes = builder.create_optimization_profile()
    for name, profile in profiles.items():
        shapes.set_shape(name, profile.smallest, profile.usual, profile.largest)
    if config.add_optimization_profile(shapes) < 0:
        raise UsageError(
            f"inputs from {', '.join(map(str, profiles.values()))}: {trt.__name__} does not take this profile: {reason(log.errors)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompilerError(f"{trt.__name__} {trt.__version__} cannot build an engine: {_failure(log)}")
    if cache := given.get("timing_cache"):
        _keep_timing_cache(config, cache)
    return memoryview(plan)


def _refusal(parser: Any) -> str:
    if not parser.num_errors:
        return "it gives no reason"
    error = parser.get_error(0)
    where = f"at {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
    return where + re.sub(r"^Assertion failed: ", "", error.desc())


def _failure(log: Log) -> str:
    """Why, and what to do about it."""
    why = reason(log.errors)
    if re.search(r"workspace|out of memory|OutOfMemory|allocat", why, re.IGNORECASE):
        return f"{why}. Change --workspace-mib, or build for a smaller --batch"
    if "Turing" in why:
        return f"{why}. Leave out --compute-capability sm75, or use --precision fp16"
    return f"{why}. Try another --shift or --precision, and please report this with the build log"


def _keep_timing_cache(config: Any, path: Path) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(memoryview(config.get_timing_cache().serialize()))
    scratch.replace(path)
