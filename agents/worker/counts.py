"""The worker's numbers for `/metrics`, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Counts:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.claims = Counter("fedci_worker_claims", "Claims published and confirmed", registry=self.registry)
        self.released = Counter("fedci_worker_released", "Claims that never ran", ["reason"], registry=self.registry)
        self.refused = Counter("fedci_worker_refused", "Orders turned away", ["reason"], registry=self.registry)
        self.ended = Counter("fedci_worker_ended", "Jobs that are over", ["reason"], registry=self.registry)
        self.alarms = Counter("fedci_worker_equivocations", "Orders that contradict others", registry=self.registry)
        self.running = Gauge("fedci_worker_running", "Slots with a job", registry=self.registry)
        self.log_bytes = Counter("fedci_worker_log_bytes", "Bytes of jobs' logs", registry=self.registry)
