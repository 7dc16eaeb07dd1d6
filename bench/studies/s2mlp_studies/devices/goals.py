"""The goals of runtimes for devices, compared with measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s2mlp_deploy.system.timing import estimate
from s2mlp_studies.benchmark import on
from s2mlp_studies.devices.artifacts import EXECUTORCH, LITERT, ONNX
from s2mlp_studies.devices.measure import Devices
from s2mlp_studies.goal import Goal

OPENVINO_STATIC = "openvino-static"

ROUNDED = ("int8w", "int8")
"""LiteRT's int8: activations rounded as they come, and in calibrated ranges."""

EXECUTORCH_SPEED = 0.95
SIZE = 0.27
SECONDS, MEMORY = 3, 3


@dataclass(frozen=True)
class Speed:
    """The least by which LiteRT is faster than ONNX Runtime in float32 and in int8, and than OpenVINO's int8 as users get it."""

    fp32: float
    int8: float
    openvino: float | None = None


DEEP, SMALL = "deep", "fashion_mnist"

SPEED: Mapping[str, Speed] = {DEEP: Speed(1.05, 1.15, 1.3), SMALL: Speed(1.2, 1.6)}
"""By the names of the networks."""


def device_goals(found: Devices) -> list[Goal]:
    """Those whose artifacts are all there: speed for both networks, sizes and the cost of writing for the large one."""
    goals = _speed_goals(found, SPEED[found.subject])
    if found.subject == DEEP:
        goals += _size_goals(found)
        if found.writing:
            cost = found.writing
            goals += [
                Goal(found.subject, "seconds of processor time to write for LiteRT", cost.cpu_s, at_most=SECONDS),
                Goal(found.subject, "memory to write for LiteRT / file", cost.memory_ratio, at_most=MEMORY),
            ]
    return goals


def _speed_goals(found: Devices, speed: Speed) -> list[Goal]:
    wanted = [
        (found.name(ONNX, "fp32"), found.name(LITERT, "fp32"), speed.fp32),
        (found.name(ONNX, "int8"), fastest_int8(found), speed.int8),
        (OPENVINO_STATIC, fastest_int8(found), speed.openvino),
        (found.name(ONNX, "fp32"), found.name(EXECUTORCH, "fp32"), EXECUTORCH_SPEED),
    ]
    return [
        found.benchmark.goal(found.subject, slower, faster, at_least=limit)
        for slower, faster, limit in wanted
        if slower and faster and limit and found.has(on(slower))
    ]


def fastest_int8(found: Devices) -> str | None:
    """LiteRT's bundle in int8, of whichever kind is faster; None where there is neither."""
    names = [name for precision in ROUNDED if (name := found.name(LITERT, precision))]
    against = found.name(ONNX, "int8")
    if not names or not against:
        return None
    return min(names, key=lambda name: found.benchmark.over(on(name), on(against)).median)


def _size_goals(found: Devices) -> list[Goal]:
    goals = []
    for format in (LITERT, EXECUTORCH):
        whole = found.name(format, "fp32")
        for precision in ROUNDED:
            name = found.name(format, precision)
            if whole and name:
                share = estimate([found.file_bytes[name] / found.file_bytes[whole]])
                goals.append(Goal(found.subject, f"size of {name} / fp32", share, at_most=SIZE))
    return goals
