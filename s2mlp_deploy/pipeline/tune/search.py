"""The state of a tune: what became of each candidate so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.pipeline.tune import energy, heat, make
from s2mlp_deploy.pipeline.tune.candidates import Build, Candidate, thread_counts
from s2mlp_deploy.pipeline.tune.decision import Figures, Miss, figures_of, misses
from s2mlp_deploy.pipeline.tune.energy import Joules
from s2mlp_deploy.pipeline.tune.heat import Heat, Rules
from s2mlp_deploy.pipeline.tune.race import Standing
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.pipeline.tune.workspace import Made, Refused, Workspace
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock

ROOM = 0.5
"""The share of the free memory that sessions may take which race together."""

MAKING = 0.7
"""The share of the budget in which candidates are made; they are timed in the rest."""


@dataclass(frozen=True)
class Budget:
    """The time of a tune, from ``start`` on by ``clock``."""

    seconds: float
    clock: Clock
    start: float

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def making_is_over(self) -> bool:
        """Whether no more candidates are to be made."""
        return self.spent > MAKING * self.seconds

    def race_seconds(self, most: float) -> float:
        """How long a race may take that takes ``most`` where there is time."""
        return max(0.0, min(most, self.seconds - self.spent))


@dataclass
class Search:
    """Makes and races the candidates of ``request``, and keeps what became of each.

    ``measure_memory`` gives the peak bytes of a process that loads and runs a bundle; it is called where there is a limit on that.
    """

    request: TuneRequest
    workspace: Workspace
    listener: Listener
    budget: Budget
    measure_memory: Callable[[Made], int]
    builds: list[Build] = field(default_factory=list)
    made: dict[Build, Made] = field(default_factory=dict)
    refused: dict[Build, Refused] = field(default_factory=dict)
    figures: dict[Build, Figures] = field(default_factory=dict)
    heats: list[Heat] = field(default_factory=list)
    energy: Heat | None = None

    def make(self, builds: Sequence[Build]) -> None:
        """Make ``builds``, each through the gate, while the budget lasts.

        Raises:
            CheckpointError: where the source changed meanwhile.
            Error: as :func:`s2mlp_deploy.pipeline.tune.make.make`.
        """
        self.builds += builds
        over = self.budget.making_is_over
        for outcome in make.make(self.request, builds, self.workspace, self.listener, over):
            if isinstance(outcome, Refused):
                self.refused[outcome.build] = outcome
                continue
            if self.workspace.is_of_another_source(outcome.bundle):
                raise CheckpointError(source_changed(self.request))
            self.made[outcome.build] = outcome
            peak = None
            if self.request.limits.memory_bytes is not None:
                with self.listener.step(f"measuring the memory of {outcome.build.name}"):
                    peak = self.measure_memory(outcome)
            self.figures[outcome.build] = figures_of(outcome, peak)

    def misses(self, build: Build) -> list[Miss]:
        """The limits, but for that on latency, that the artifact does not keep."""
        return misses(self.figures[build], self.request.limits, self.request.accuracy_drop)

    def entries(self, builds: Sequence[Build]) -> Iterator[Candidate]:
        """The candidates of those artifacts that were made and keep their limits."""
        for build in builds:
            if build in self.made and not self.misses(build):
                yield from (Candidate(build, threads) for threads in thread_counts(build, self.request))

    def race(self, entered: Sequence[Candidate], seconds: float) -> Heat | None:
        """Race the candidates ``entered``; None where there is none, or none that can be loaded."""
        if not entered:
            return None
        rules = Rules(self.request.batch, self.budget.race_seconds(seconds), self.budget.clock)
        found = self._run(entered, rules)
        self.heats += found
        return found[-1] if found else None

    def race_by_energy(self, entered: Sequence[Candidate], seconds: float, joules: Joules) -> Heat | None:
        """Race the candidates by the energy of a batch, which ``joules`` counts."""
        if not entered:
            return None
        rules = Rules(
            self.request.batch,
            self.budget.race_seconds(seconds),
            self.budget.clock,
            lambda call, clock: energy.millijoules(call, joules, clock),
        )
        found = self._run(entered, rules)
        self.energy = found[-1] if found else None
        return self.energy

    def _run(self, entered: Sequence[Candidate], rules: Rules) -> tuple[Heat, ...]:
        made = {candidate: self.made[candidate.build] for candidate in entered}
        free = memory.available_bytes()
        return heat.run_in_groups(made, rules, self.listener, None if free is None else int(free * ROOM))

    def took_part(self, name: str) -> bool:
        """Whether the candidate was entered into a race."""
        return any(name in one.refused or name in one.standing.samples_ms for one in self.heats)

    def standing_of(self, name: str) -> Standing | None:
        """The standing of the last race that the candidate took part in."""
        return next((one.standing for one in reversed(self.heats) if name in one.standing.samples_ms), None)


def source_changed(request: TuneRequest) -> str:
    """The message where the source is no longer as it was when the tune began."""
    return f"{request.source.path} changed while it was worked on, so nothing was published: run the tune again when nothing writes to it"
