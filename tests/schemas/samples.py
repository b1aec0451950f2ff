"""One well-formed message of every type, with fixed values, so that their bytes can be compared for ever."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas import ids, orders, reports, statements, tickets
from schemas.ends import EndReason
from schemas.refusals import Reason
from schemas.wire import Message

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
ISSUER = "https://id.fatima.example"
TENANT = ids.tenant_id(ISSUER, "dinah")
ATTEMPT = "a" + "b" * 26
CLAIM = "c" + "d" * 26
RUN = "r" + "e" * 26
MESSAGE = "m" + "f" * 26
DIGEST = "0123456789abcdef" * 4
KEY = bytes(range(32))

_order: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "dinah",
    "aud": "fedci:provider:alice.example",
    "ath": DIGEST,
    "issued_at": NOW,
    "expires_at": LATER,
}
_report: dict[str, Any] = {
    "aud": f"fedci:controller:{TENANT}",
    "provider": "alice.example",
    "agent": "w7",
    "made_at": NOW,
}
_introduced: dict[str, Any] = {**_report, "iss": ISSUER, "sub": "alice", "ath": DIGEST}
_claim: dict[str, Any] = {"attempt": ATTEMPT, "claim": CLAIM}
_ticket: dict[str, Any] = {"id": MESSAGE, "aud": "fedci:provider:alice.example", "issued_at": NOW, "expires_at": LATER}
_used = reports.Used(
    wall_seconds=Decimal("1.5"), cpu_seconds=Decimal("0.25"), memory_peak_bytes=4096, is_estimate=False
)
_toolchain = tickets.Toolchain(name="python", description="CPython 3.11")
_pool_facts: dict[str, Any] = {
    "labels": ("arch=x86_64", "os=linux"),
    "toolchains": (_toolchain,),
    "stores": ("bettina.example",),
    "slots": 2,
    "cores": 2,
    "memory_bytes": 2**31,
    "disk_bytes": 2**33,
    "is_network_allowed": False,
}

SAMPLES: tuple[Message, ...] = (
    orders.Job(
        **_order,
        attempt=ATTEMPT,
        number=1,
        project="board",
        run=RUN,
        name="build",
        pool="fast",
        labels=("os=linux",),
        toolchains=("python",),
        env={"LANG": "C.UTF-8"},
        secrets=("TOKEN",),
        steps=(orders.Step(name="make", run="make\n"),),
        source=orders.Source(digest=DIGEST, size_bytes=3, revision="abc", inline=b"tar"),
        inputs=(orders.InputFile(path="dist/a.whl", digest=DIGEST, size_bytes=7),),
        artifacts=(orders.OutputArtifact(name="wheel", paths=("dist/*.whl",)),),
        store="bettina.example",
        rate_card=DIGEST,
    ),
    orders.Grant(**_order, **_claim, sealed=b"box"),
    orders.StandDown(**_order, **_claim, reason=Reason.ALREADY_GRANTED),
    orders.Cancel(**_order, **_claim, id=MESSAGE, cause="user"),
    orders.Resend(**_order, **_claim, id=MESSAGE, log_from=0, log_to=100, sequences=(1, 2)),
    orders.Settled(**_order, **_claim, id=MESSAGE),
    reports.Claim(**_introduced, **_claim, grant_key=KEY),
    reports.Refused(
        **_introduced, subject=DIGEST, attempt=ATTEMPT, reason=Reason.DRAINING, scope="here", detail="stopping"
    ),
    reports.Log(**_report, **_claim, sequence=0, data=b"hello\n"),
    reports.Heartbeat(**_report, **_claim, sequence=0, step=0, log_bytes=6, used=_used),
    reports.Finished(
        **_report,
        **_claim,
        sequence=1,
        reason=EndReason.SUCCEEDED,
        detail="",
        started_at=NOW,
        ended_at=LATER,
        steps=(reports.StepResult(name="make", exit_code=0, seconds=Decimal("1.5")),),
        log_bytes=6,
        log_sha256=DIGEST,
        artifacts=(reports.ArtifactFile(artifact="wheel", path="dist/a.whl", digest=DIGEST, size_bytes=7),),
        used=_used,
    ),
    reports.Released(**_report, **_claim, sequence=0, reason=Reason.GRANT_TOO_LATE),
    tickets.SessionTicket(**_ticket, iss=ISSUER, sub="dinah", ath=DIGEST),
    tickets.AgentTicket(**_ticket, agent="w7", offer=tickets.WorkerOffer(pool="fast", **_pool_facts)),
    tickets.StoreTicket(
        **{**_ticket, "aud": "fedci:store:bettina.example"},
        iss=ISSUER,
        sub="dinah",
        ath=DIGEST,
        holder_key=KEY,
        attempt=ATTEMPT,
        reads=(DIGEST,),
        write_prefix="board/run/build/",
        write_bytes=1024,
        tab_ends_at=LATER,
    ),
    statements.Usage(
        provider="alice.example",
        id=statements.usage_id("alice.example", ATTEMPT, "wall-seconds", 0),
        source="fedci:provider:alice.example",
        subject=ATTEMPT,
        agent="w7",
        iss=ISSUER,
        sub="dinah",
        meter="wall-seconds",
        interval=0,
        started_at=NOW,
        ended_at=LATER,
        quantity=Decimal("1.5"),
        rate_card=DIGEST,
        project="board",
        attempt=ATTEMPT,
        claim=CLAIM,
        reason=EndReason.SUCCEEDED,
    ),
    statements.Receipt(
        provider="alice.example",
        id=MESSAGE,
        iss=ISSUER,
        sub="dinah",
        ath=DIGEST,
        made_at=NOW,
        events=(DIGEST,),
        verdict="accepted",
    ),
    statements.RateCard(
        provider="alice.example",
        serial=1,
        currency="EUR",
        rates=(
            statements.Rate(
                meter="wall-seconds", unit="s", price=Decimal("0.36"), per=Decimal(3600), increment=Decimal(1)
            ),
        ),
        valid_from=NOW,
        valid_until=LATER,
    ),
    statements.Card(
        provider="alice.example",
        serial=2,
        desk_url="https://desk.alice.example",
        issuers=(ISSUER,),
        agents=(
            statements.Agent(
                name="w7",
                role="worker",
                key=KEY,
                accounts=(statements.AgentAccount(iss=ISSUER, sub="alice"),),
            ),
        ),
        pools=(statements.Pool(name="fast", workers=("w7",), **_pool_facts),),
        store=statements.StoreOffer(url="https://store.bettina.example"),
        rate_card=DIGEST,
        speaks=("fedci.job/1",),
        issued_at=NOW,
        expires_at=LATER,
    ),
    statements.Invoice(
        provider="alice.example",
        number="2026-01-1",
        agent="ledger",
        iss=ISSUER,
        sub="dinah",
        period_from=NOW,
        period_to=LATER,
        issued_at=LATER,
        currency="EUR",
        lines=(
            statements.InvoiceLine(
                meter="wall-seconds",
                unit="s",
                rate_card=DIGEST,
                quantity=Decimal(2),
                amount=Decimal("0.00"),
                events=(DIGEST,),
            ),
        ),
        total=Decimal("0.00"),
    ),
)
