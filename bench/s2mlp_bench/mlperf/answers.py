"""Every answer of a session that others drive: kept as cheaply as possible while times are taken, judged afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.distance import compare, scale_of
from s2mlp_deploy.schema.array import Array

MOST = 16
"""Distinct answers to one question that are kept before they are judged, so that memory stays bounded."""


class Answers:
    """What ``name`` answers to questions whose logits (count, classes) are ``expected``, within relative L2 ``limit``.

    A session mostly repeats itself, bit for bit; so an answer that is known costs a look into a table, and each distinct
    one is judged once. ``worst`` is the largest distance so far.
    """

    def __init__(self, expected: Array, limit: float, name: str) -> None:
        self._expected, self._limit, self._name = expected, limit, name
        self._scale = scale_of([expected])
        self._distinct: list[dict[bytes, Array]] = [{} for _ in expected]
        self._judged: list[set[bytes]] = [set() for _ in expected]
        self.worst = 0.0

    def keep(self, questions: Sequence[int], logits: Array) -> None:
        """Remember ``logits`` (batch, classes), the answers to ``questions``.

        Raises:
            ParityError: where their shape is wrong, or an answer that had to be judged.
        """
        expected = (len(questions), self._expected.shape[1])
        if logits.shape != expected:
            raise ParityError(
                f"{self._name} gave logits of shape {list(logits.shape)} to {len(questions)} images: expected {list(expected)}"
            )
        for question, row in zip(questions, logits, strict=True):
            content = row.tobytes()
            distinct = self._distinct[question]
            if content not in distinct and content not in self._judged[question]:
                distinct[content] = row.copy()
                if len(distinct) >= MOST:
                    self._judge(question)

    def judge(self) -> None:
        """Hold all answers that were kept against those expected.

        Raises:
            ParityError: where one is further away than the limit.
        """
        for question in range(len(self._distinct)):
            self._judge(question)

    def _judge(self, question: int) -> None:
        distinct = self._distinct[question]
        if not distinct:
            return
        rows = np.stack(list(distinct.values()))
        expected = np.broadcast_to(self._expected[question], rows.shape)
        distance = compare(rows, expected, self._scale).relative_l2
        if not distance <= self._limit:
            raise ParityError(
                f"{self._name} gave wrong logits while it was measured (relative L2 {distance:.2g}, limit {self._limit:.0e}), "
                "so its figures say nothing: run s2mlp-verify on it"
            )
        self.worst = max(self.worst, distance)
        # The latest is enough for a session that repeats itself; one that never does would fill the memory.
        self._judged[question] = set(distinct)
        distinct.clear()
