"""What a watcher is told."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette

from runtime.http_probes import Check, probe_routes


def client(checks: dict[str, Check], registry: CollectorRegistry | None = None) -> httpx.AsyncClient:
    app = Starlette(routes=probe_routes(checks, registry or CollectorRegistry()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def fine() -> None:
    return None


async def away() -> str:
    return "not connected"


async def hanging() -> None:
    await asyncio.Event().wait()


async def test_a_process_that_answers_is_healthy_whatever_it_waits_for() -> None:
    async with client({"bus": away}) as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_ready_needs_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.http_probes.CHECK_SECONDS", 0.01)
    async with client({"database": fine}) as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "waiting_for": {}})
    async with client({"database": fine, "bus": away, "disk": hanging}) as http:
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "waiting_for": {"bus": "not connected", "disk": "no answer within 0.01 s"},
    }


async def test_metrics_are_those_of_the_registry_given() -> None:
    registry = CollectorRegistry()
    Counter("refusals", "Refused envelopes", ["reason"], registry=registry).labels("expired").inc()
    async with client({}, registry) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'refusals_total{reason="expired"} 1.0' in answer.text
