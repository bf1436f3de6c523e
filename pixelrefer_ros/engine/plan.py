# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decide when regions are described unasked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixelrefer_ros.core.region_store import RegionStore


@dataclass(slots=True)
class _Plan:
    """Hold when a region is next described, and the newest observation asked about so far."""

    next_ns: int | None
    asked_ns: int | None = None


class DescriptionPlan:
    """Decide which regions are due for a description.

    A region is due ``after`` its first observation and then every ``period``, as long as there
    are observations newer than those of the description before.
    """

    def __init__(self, after_ns: int, period_ns: int) -> None:
        """Set the times; a period of 0 describes each region once."""
        self._after_ns = after_ns
        self._period_ns = period_ns
        self._plans: dict[str, _Plan] = {}

    def due(self, store: RegionStore, now_ns: int) -> list[str]:
        """Return the ids that are due, and count them as asked."""
        ids = store.ids()
        for gone in self._plans.keys() - set(ids):
            del self._plans[gone]
        due = []
        for region_id in ids:
            plan = self._plans.get(region_id)
            if plan is None:
                plan = _Plan(store.first_ns(region_id) + self._after_ns)
                self._plans[region_id] = plan
            newest_ns = store.newest(region_id).given_ns
            if plan.next_ns is None or now_ns < plan.next_ns:
                continue
            if plan.asked_ns is not None and newest_ns <= plan.asked_ns:
                continue
            plan.asked_ns = newest_ns
            plan.next_ns = now_ns + self._period_ns if self._period_ns else None
            due.append(region_id)
        return due

    def looked(self, region_id: str, newest_ns: int) -> None:
        """Note how new the newest observation was when the description began."""
        plan = self._plans.get(region_id)
        if plan is not None and plan.asked_ns is not None:
            plan.asked_ns = max(plan.asked_ns, newest_ns)

    def hasten(self, region_id: str) -> None:
        """Make the next description of a region due at once: it changed.

        Its first description still waits until the region was watched for long enough, and one
        that is described once only is not described again.
        """
        plan = self._plans.get(region_id)
        if plan is not None and plan.asked_ns is not None and plan.next_ns is not None:
            plan.next_ns = 0

    def reopen(self, region_id: str) -> None:
        """Count a region as not asked: its description never ran."""
        if region_id in self._plans:
            self._plans[region_id] = _Plan(next_ns=0)

    def forget(self, region_ids: Iterable[str]) -> None:
        """Forget regions that were removed."""
        for region_id in region_ids:
            self._plans.pop(region_id, None)

    def clear(self) -> None:
        """Forget all regions."""
        self._plans.clear()
