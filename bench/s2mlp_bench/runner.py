"""A loaded candidate: times one batch after another, and checks the logits when the clock has stopped."""

from __future__ import annotations

import math
from dataclasses import replace

from s2mlp_bench.candidate import Candidate
from s2mlp_bench.inputs import TestInputs
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.distance import compare, scale_of
from s2mlp_deploy.gate.io_adapter import as_logits, scoring_every_class
from s2mlp_deploy.runtime.session import Session, TimedSession, Times, execution_of
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.timing import Clock


class Runner:
    """``candidate`` with its session and its test inputs.

    ``distance`` is that of its worst logits from those expected (relative L2); None where it
    computes another network. A session that can time its own parts does so outside the timed run;
    ``parts`` collects that.

    Raises:
        RuntimeMissingError, BundleError, UsageError: where it cannot be loaded or run here.
        ParityError: where a bundle's logits are wrong.
    """

    def __init__(self, candidate: Candidate, inputs: TestInputs) -> None:
        self.session = candidate.backend.open(candidate.point)
        self._interface = candidate.interface
        self._scoring = scoring_every_class(self.session, self._interface, inputs.logits.shape[1])
        self._scale = scale_of([inputs.logits])
        self._inputs, self._batch = inputs, candidate.point.batch
        self._turn = 0
        self.parts: list[Times] = []
        self.distance = self._examine(candidate.limit is not None)
        if self.distance is not None and candidate.limit is not None and not self.distance <= candidate.limit:
            if candidate.kind == "bundle":
                raise _wrong(candidate.name, self.distance, candidate.limit)
            candidate = candidate.wrong(f"computes something else (relative L2 {self.distance:.2g})")
        self.candidate = _with_execution(candidate, self.session)

    @property
    def images(self) -> Array:
        """A batch of its test inputs."""
        return self._inputs.turn(0, self._batch)[0]

    def time_ms(self, clock: Clock) -> float:
        """Milliseconds of one batch.

        Raises:
            ParityError: where the logits are wrong.
        """
        images, expected = self._inputs.turn(self._turn, self._batch)
        self._turn = (self._turn + 1) % len(self._inputs.images)
        start = clock()
        answers = self._scoring.run(images)
        elapsed = clock() - start
        limit = self.candidate.limit
        if limit is not None:
            distance = compare(as_logits(answers, expected, self._interface), expected, self._scale).relative_l2
            if not distance <= limit:
                raise _wrong(self.candidate.name, distance, limit)
        if isinstance(self.session, TimedSession):
            self.parts.append(self.session.time(images))
        return elapsed * 1e3

    def _examine(self, answers: bool) -> float | None:
        worst = 0.0
        for number in range(len(self._inputs.images) if answers else 1):
            images, expected = self._inputs.turn(number, self._batch)
            logits = as_logits(self._scoring.run(images), expected, self._interface)
            if answers:
                same_shape = logits.shape == expected.shape
                worst = max(worst, compare(logits, expected, self._scale).relative_l2 if same_shape else math.inf)
        return worst if answers else None


def _with_execution(candidate: Candidate, session: Session) -> Candidate:
    """``candidate`` with a remark where it runs without a CUDA graph, though one was wanted."""
    execution = execution_of(session)
    if not execution or not execution.without_graph:
        return candidate
    said = f"without a CUDA graph: {execution.without_graph}"
    return replace(candidate, remark=f"{candidate.remark}, {said}" if candidate.remark else said)


def _wrong(name: str, distance: float, limit: float) -> ParityError:
    return ParityError(
        f"{name} gave wrong logits while it was timed (relative L2 {distance:.2g}, limit {limit:.0e}), so its times say "
        "nothing: run s2mlp-verify on it"
    )
