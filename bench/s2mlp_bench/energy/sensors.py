"""The sensors of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from s2mlp_bench.energy import jetson, nvml, processor
from s2mlp_bench.energy.device import Sensor


@dataclass(frozen=True)
class Sensors:
    """The sensors that can be read here, and the reasons why others cannot."""

    found: tuple[Sensor, ...]
    unknown: tuple[str, ...]

    def of(self, kind: Literal["cpu", "gpu"]) -> Sensor | None:
        """The sensor that measures the energy of the processor or the GPU: the board, or the only one of its kind.

        None without one, and with several GPUs: NVML does not show which of them CUDA runs on.
        """
        for wanted in ("board", kind):
            of_kind = [sensor for sensor in self.found if sensor.kind == wanted]
            if len(of_kind) == 1:
                return of_kind[0]
        return None


@contextmanager
def open_sensors(root: Path = Path("/")) -> Iterator[Sensors]:
    """All sensors with readings, open until the block ends; a missing sensor is no error.

    ``root`` is the directory that holds ``sys`` and ``proc``.
    """
    found: list[Sensor] = []
    unknown: list[str] = []
    with ExitStack() as stack:
        for find in (nvml.gpus, partial(jetson.boards, root), partial(processor.processors, root)):
            opened, missing = find()
            unknown += missing
            for sensor in opened:
                stack.callback(sensor.close)
                state = sensor.read()
                if state.silent:
                    unknown.append(f"{sensor.name}: {'; '.join(state.unknown)}")
                else:
                    found.append(sensor)
        yield Sensors(tuple(found), tuple(unknown))
