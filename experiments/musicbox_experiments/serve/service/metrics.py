"""Counters of the service, in the text format of Prometheus."""

import os
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Folder where the workers of a service count together; prometheus-client reads it on import."""
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What is counted: requests by route and status, their time, and sizes of batches."""

    def __init__(self) -> None:
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
        MultiProcessCollector(registry)
        return generate_latest(registry)
