"""The store's numbers for Prometheus."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agents.store.disk import Disk
from agents.store.sweeper import Sweeper
from agents.store.transfers import Transfers


@dataclass(frozen=True)
class _StoreMetrics(Collector):
    transfers: Transfers
    sweeper: Sweeper
    disk: Disk

    def collect(self) -> Iterator[Metric]:
        kept = self.sweeper.kept
        yield GaugeMetricFamily("fedci_store_blobs", "Blobs at the last sweep.", value=kept.blobs)
        yield GaugeMetricFamily("fedci_store_bytes", "Bytes of blobs at the last sweep.", value=kept.size_bytes)
        yield GaugeMetricFamily("fedci_store_free_bytes", "Room for new blobs.", value=self.disk.free_bytes())
        yield GaugeMetricFamily("fedci_store_transfers", "Transfers under way.", value=len(self.transfers))


def registry(transfers: Transfers, sweeper: Sweeper, disk: Disk) -> CollectorRegistry:
    """A registry of a store's own."""
    made = CollectorRegistry()
    made.register(_StoreMetrics(transfers, sweeper, disk))
    return made
