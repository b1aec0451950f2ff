"""Routes on the controller as a whole: its status, and what providers say that it used."""

from fastapi import APIRouter, Request, Response

from broker.api.answers import found
from broker.api.projects import controller_of
from broker.presenting import alarm_views, orphan_views, refusal_views, usage_of_provider
from broker.store import outbox as outbox_store
from broker.store import runs as run_store
from broker.store import usage as usage_store
from broker.views import StatusView, UsageOfProvider

router = APIRouter(tags=["accounts"])


@router.get("/status")
async def status(request: Request) -> StatusView:
    """Who we are, what is waiting, and what a person should look at."""
    controller = controller_of(request)
    async with controller.database.read() as session:
        return StatusView(
            tenant=controller.voice.tenant,
            issuer=controller.voice.issuer,
            account=controller.voice.sub,
            issuer_trouble=controller.parts.trust.troubles().get(controller.voice.issuer),
            jobs=await run_store.count_jobs_by_state(session),
            outbox_waiting=await outbox_store.count_waiting(session),
            alarms=await alarm_views(session),
            orphans=await orphan_views(session),
            refusals=await refusal_views(session),
        )


@router.get("/usage/{provider}")
async def usage(request: Request, provider: str) -> UsageOfProvider:
    """Every usage event of a provider, what we answered, and what it comes to: hold its invoice against this."""
    controller = controller_of(request)
    found(controller.book.get(provider), f"provider {provider}")
    async with controller.database.read() as session:
        return await usage_of_provider(session, provider)


@router.get("/usage/{provider}/envelopes")
async def usage_envelopes(request: Request, provider: str) -> Response:
    """The same events byte for byte, one envelope after the other: what `fedci invoice verify --events` takes."""
    controller = controller_of(request)
    found(controller.book.get(provider), f"provider {provider}")
    async with controller.database.read() as session:
        rows = await usage_store.facts(session, provider=provider)
    return Response(b"".join(row.raw for row in rows), media_type="application/octet-stream")
