"""Load artifacts that passed the gate, as many together as memory holds, and race them on one input."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.latency import images_for
from s2mlp_deploy.pipeline.tune.candidates import Candidate
from s2mlp_deploy.pipeline.tune.race import Race, Sampling, Standing
from s2mlp_deploy.pipeline.tune.workspace import Made
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock, timed_ms


@dataclass(frozen=True)
class Heat:
    """The standing of a race, the reasons of those that could not be loaded, by name, and a name for the input."""

    standing: Standing
    refused: Mapping[str, str] = field(default_factory=dict)
    input: str = ""


@dataclass(frozen=True)
class Rules:
    """How a race is run: ``batch`` images at a time, for about ``seconds``, by ``clock``; ``sampling`` gives the cost that counts."""

    batch: int
    seconds: float
    clock: Clock = time.perf_counter
    sampling: Sampling = timed_ms


SESSION_BYTES = 64 << 20
"""For a session of any artifact, beside its weights."""

COPIES = 4
"""Of an artifact that is loaded: as it is read, as it is kept, and as it is laid out for the processor (formats/memory_limit.py)."""


def groups(entered: Mapping[Candidate, Made], room: int | None) -> list[dict[Candidate, Made]]:
    """``entered``, divided so that each group's sessions fit into ``room`` bytes together, or are two; None: all fit."""
    found: list[dict[Candidate, Made]] = [{}]
    taken = 0
    for candidate, made in entered.items():
        needed = SESSION_BYTES + COPIES * made.bundle.size_bytes
        if room is not None and len(found[-1]) >= 2 and taken + needed > room:
            found.append({})
            taken = 0
        found[-1][candidate] = made
        taken += needed
    if len(found) > 1 and len(found[-1]) == 1:  # a race of one decides nothing
        before, last = found[-2:]
        if len(before) > 2:
            moved = next(reversed(before))
            last[moved] = before.pop(moved)
        else:
            before |= found.pop()
    return found


def run_in_groups(
    entered: Mapping[Candidate, Made], rules: Rules, listener: Listener, room: int | None
) -> tuple[Heat, ...]:
    """:func:`run`, where the sessions of all do not fit into ``room`` bytes in groups, and then among those that each group has kept; all
    races, the one that decides last. None where not one candidate can be loaded.

    A group keeps at most half of its candidates, the fastest first, so the races end.
    """
    found: list[Heat] = []
    while True:
        parts = groups(entered, room)
        if len(parts) == 1:
            last = run(entered, rules, listener)
            return (*found, last) if last else tuple(found)
        heats = [run(part, replace(rules, seconds=rules.seconds / len(parts)), listener) for part in parts]
        found += [heat for heat in heats if heat]
        kept = {name for heat in heats if heat for name in _first_half(heat.standing)}
        entered = {candidate: made for candidate, made in entered.items() if candidate.name in kept}
        if not entered:
            return tuple(found)


def _first_half(standing: Standing) -> list[str]:
    order = sorted(standing.running, key=lambda name: standing.milliseconds(name).median)
    return order[: max(1, len(standing.samples_ms) // 2)]


def run(entered: Mapping[Candidate, Made], rules: Rules, listener: Listener) -> Heat | None:
    """Race the candidates; None where not one can be loaded.

    All are loaded in this process, and each rests while another runs, so that all of a round run under the same conditions.
    """
    memory.release()
    images, source = images_for([made.bundle for made in entered.values()], rules.batch)
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
        race = Race(calls, rules.seconds, rules.clock, sampling=rules.sampling)
        return Heat(race.run(), refused, source)
