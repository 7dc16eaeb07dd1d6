"""Load artifacts that passed the gate, and race them on one input."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.latency import images_for
from s2mlp_deploy.pipeline.tune.candidates import Candidate
from s2mlp_deploy.pipeline.tune.race import Race, Standing
from s2mlp_deploy.pipeline.tune.workspace import Made
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock


@dataclass(frozen=True)
class Heat:
    """The standing of a race, the reasons of those that could not be loaded, by name, and a name for the input."""

    standing: Standing
    refused: Mapping[str, str] = field(default_factory=dict)
    input: str = ""


def run(
    entered: Mapping[Candidate, Made], batch: int, seconds: float, listener: Listener, clock: Clock = time.perf_counter
) -> Heat | None:
    """Race the candidates for about ``seconds``, ``batch`` images at a time; None where not one can be loaded.

    All are loaded in this process, and each rests while another runs, so that all of a round run under the same conditions.
    """
    memory.release()
    images, source = images_for([made.bundle for made in entered.values()], batch)
    calls: dict[str, Callable[[], object]] = {}
    refused: dict[str, str] = {}
    for candidate, made in entered.items():
        try:
            with listener.step(f"loading {candidate.name}"):
                target = registry.find(candidate.build.format)
                session = target.open_with_threads(made.bundle.artifact, candidate.threads)
                session.run(images)
        except (BundleError, RuntimeMissingError) as error:
            refused[candidate.name] = str(error)
            continue
        calls[candidate.name] = partial(session.run, images)
    if not calls:
        return None
    with listener.step(f"timing {len(calls)} candidates, interleaved"):
        return Heat(Race(calls, seconds, clock).run(), refused, source)
