"""What the controller shows to monitoring, computed when it is asked: sessions, refused messages, providers."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.controller import Controller


class ControllerMeasures(Collector):
    """A Prometheus collector over the controller's memory; it asks no database."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("fedci_controller_session_up", "1 while our session is up", labels=["provider"])
        alarms = GaugeMetricFamily("fedci_controller_provider_alarm", "1 while a card is disputed", labels=["provider"])
        for known in self._controller.book.all():
            up.add_metric([known.name], float(known.session_trouble is None))
            alarms.add_metric([known.name], float(known.alarm is not None))
        refused = CounterMetricFamily(
            "fedci_controller_refused", "Messages that were refused", labels=["provider", "reason"]
        )
        for provider, reasons in self._controller.sessions.counts().items():
            for reason, count in reasons.items():
                refused.add_metric([provider, reason], count)
        yield from (up, alarms, refused)
