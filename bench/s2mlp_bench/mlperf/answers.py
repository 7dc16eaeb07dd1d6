"""The logits of a session that LoadGen drives: kept cheaply while it is timed, checked afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.distance import compare, scale_of
from s2mlp_deploy.schema.array import Array

MOST = 16
"""Distinct logits of one image that are kept before they are checked, so that memory stays bounded."""


class Answers:
    """Logits of ``name`` for images whose reference logits (count, classes) are ``expected``, within relative L2 ``limit``.

    A session mostly repeats itself, bit for bit; so logits seen before cost a look into a table, and distinct
    ones are checked once. ``worst`` is the largest distance so far.
    """

    def __init__(self, expected: Array, limit: float, name: str) -> None:
        self._expected, self._limit, self._name = expected, limit, name
        self._scale = scale_of([expected])
        self._distinct: list[dict[bytes, Array]] = [{} for _ in expected]
        self._judged: list[set[bytes]] = [set() for _ in expected]
        self.worst = 0.0

    def keep(self, indices: Sequence[int], logits: Array) -> None:
        """Remember ``logits`` (batch, classes), computed for the images ``indices``.

        Raises:
            ParityError: where their shape is wrong, or logits that had to be checked now.
        """
        expected = (len(indices), self._expected.shape[1])
        if logits.shape != expected:
            raise ParityError(
                f"{self._name} gave logits of shape {list(logits.shape)} to {len(indices)} images: expected {list(expected)}"
            )
        for index, row in zip(indices, logits, strict=True):
            content = row.tobytes()
            distinct = self._distinct[index]
            if content not in distinct and content not in self._judged[index]:
                distinct[content] = row.copy()
                if len(distinct) >= MOST:
                    self._judge(index)

    def judge(self) -> None:
        """Check all logits that were kept against those expected.

        Raises:
            ParityError: where one is further away than the limit.
        """
        for index in range(len(self._distinct)):
            self._judge(index)

    def _judge(self, index: int) -> None:
        distinct = self._distinct[index]
        if not distinct:
            return
        rows = np.stack(list(distinct.values()))
        expected = np.broadcast_to(self._expected[index], rows.shape)
        distance = compare(rows, expected, self._scale).relative_l2
        if not distance <= self._limit:
            raise ParityError(
                f"{self._name} gave wrong logits while it was measured (relative L2 {distance:.2g}, limit {self._limit:.0e}), "
                "so its figures say nothing: run s2mlp-verify on it"
            )
        self.worst = max(self.worst, distance)
        # The latest is enough for a session that repeats itself; one that never does would fill the memory.
        self._judged[index] = set(distinct)
        distinct.clear()
