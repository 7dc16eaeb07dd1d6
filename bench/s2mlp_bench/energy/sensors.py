"""The gauges of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from s2mlp_bench.energy import jetson, nvml, processor
from s2mlp_bench.energy.device import Gauge


@dataclass(frozen=True)
class Gauges:
    """What can be read here, and in words, what cannot."""

    found: tuple[Gauge, ...]
    unknown: tuple[str, ...]

    def of(self, kind: Literal["cpu", "gpu"]) -> Gauge | None:
        """What tells the energy of something that runs on the processor or the GPU: the board, or the only one of its kind.

        None where there is none, and where there are several GPUs: which of them CUDA runs on, NVML cannot tell.
        """
        for wanted in ("board", kind):
            of_kind = [gauge for gauge in self.found if gauge.kind == wanted]
            if len(of_kind) == 1:
                return of_kind[0]
        return None


@contextmanager
def gauges(root: Path = Path("/")) -> Iterator[Gauges]:
    """All gauges that say something, open until the block ends; what is missing is no error.

    ``root`` is the directory that holds ``sys`` and ``proc``.
    """
    found: list[Gauge] = []
    unknown: list[str] = []
    with ExitStack() as stack:
        for find in (nvml.gpus, partial(jetson.boards, root), partial(processor.processors, root)):
            opened, missing = find()
            unknown += missing
            for gauge in opened:
                stack.callback(gauge.close)
                state = gauge.read()
                if state.silent:
                    unknown.append(f"{gauge.name}: {'; '.join(state.unknown)}")
                else:
                    found.append(gauge)
        yield Gauges(tuple(found), tuple(unknown))
