"""Jobs for the worker's tests: well-formed, small, and changed by keyword."""

from datetime import timedelta
from typing import Any

from agents.worker.orders.admission import Lent
from schemas import ids, limits
from schemas.orders import Job, Resources, Source, Step
from tests.agents.worker.tars import tar_of
from tests.clocks import START

ISSUER = "https://id.fatima.example"
SUBJECT = "dinah"
TENANT = ids.tenant_id(ISSUER, SUBJECT)
PROVIDER = "alice.example"
WORKER = "w7"
RATE_CARD = "c0ffee00" * 8
TAR = tar_of({})

LENT = Lent(
    pool="fast",
    labels=frozenset({"os=linux", "arch=x86_64"}),
    toolchains=frozenset({"python"}),
    stores=frozenset({"bettina.example"}),
    slot=Resources(cores=2, memory_bytes=2 * limits.GIB, disk_bytes=4 * limits.GIB, processes=512),
    is_network_allowed=False,
    rate_cards=frozenset({RATE_CARD}),
)


def inline_source(tar: bytes = TAR) -> Source:
    return Source(digest=ids.sha256_hex(tar), size_bytes=len(tar), revision="abc", inline=tar)


def job_fields(**changes: Any) -> dict[str, Any]:
    """What a test's job says, without who says it."""
    fields: dict[str, Any] = {
        "attempt": ids.new_attempt_id(),
        "number": 1,
        "project": "board",
        "run": ids.new_run_id(),
        "name": "build",
        "pool": "fast",
        "labels": ("os=linux",),
        "steps": (Step(name="make", run="echo made\n"),),
        "source": inline_source(),
        "rate_card": RATE_CARD,
    }
    return fields | changes


def make_job(**changes: Any) -> Job:
    """A job of Dinah's, as it would be after verification."""
    said: dict[str, Any] = {
        "iss": ISSUER,
        "sub": SUBJECT,
        "aud": ids.provider_audience(PROVIDER),
        "ath": "0" * 64,
        "issued_at": START,
        "expires_at": START + timedelta(hours=1),
    }
    return Job(**(said | job_fields(**changes)))
