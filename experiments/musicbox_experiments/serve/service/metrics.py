"""Counters of the service, in the text format of Prometheus."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from musicbox_env.errors import reason
from musicbox_experiments.text import say

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Folder where the workers of a service count together; prometheus-client reads it on import."""
KINDS: Final = ("counter", "histogram")
"""Files of a place, named as prometheus-client names them."""
ROOM: Final = 1 << 20
"""Bytes of one of them, as prometheus-client makes it."""
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)

_place = 0
if SHARED in os.environ:
    values.ValueClass = values.MultiProcessValue(lambda: _place)


def count_as(place: int) -> None:
    """Go on with the counts of a place, which no other process that lives has.

    By its process id, as prometheus-client has it, each worker would leave a file for ever. Where
    the disk is full it counts at the supervisor's place, less exactly, and answers all the same.
    """
    global _place
    try:
        if SHARED in os.environ:
            _take_room(place)
    except OSError as error:
        say(f"This worker's requests are not all counted: {reason(error)}.", to_errors=True)
        return
    _place = place


def _take_room(place: int) -> None:
    """Write the files of a place before they are mapped.

    Mapped without their room on the disk, they would end the process as soon as the disk is full.

    Raises:
        OSError: There is no room.
    """
    for kind in KINDS:
        file = Path(os.environ[SHARED], f"{kind}_{place}.db")
        if file.exists() and file.stat().st_size:
            continue
        try:
            file.write_bytes(bytes(ROOM))
        except OSError:
            file.unlink(missing_ok=True)
            raise


class _Shared(Collector):
    """Counts of all places."""

    def collect(self) -> Iterable[Metric]:
        """Add them up, without a file that is just being made, and is empty yet."""
        files = [str(f) for f in Path(os.environ[SHARED]).glob("*.db") if f.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


class Metrics:
    """What is counted: requests by route and status, their time, and sizes of batches."""

    def __init__(self) -> None:
        if SHARED in os.environ:
            _take_room(_place)
        self._own = CollectorRegistry()
        self.requests = Counter(
            "musicbox_requests", "Requests answered", ["route", "status"], registry=self._own
        )
        self.seconds = Histogram(
            "musicbox_request_seconds",
            "Time from the last byte of a request to its answer",
            ["route"],
            buckets=SECONDS,
            registry=self._own,
        )
        self.batches = Histogram(
            "musicbox_batch_size",
            "Requests that were answered together",
            buckets=SIZES,
            registry=self._own,
        )

    def page(self) -> bytes:
        """All counters, of all workers."""
        if SHARED not in os.environ:
            return generate_latest(self._own)
        registry = CollectorRegistry()
        registry.register(_Shared())
        return generate_latest(registry)
