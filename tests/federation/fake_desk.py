"""A desk of somebody's that shows whatever card it likes; nobody can get a session there."""

from dataclasses import dataclass, field
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from identity.keys import SigningKey, b64url
from runtime.clock import SystemClock
from schemas import frame
from schemas.orders import Job
from schemas.statements import Card

NAME = "mallory.example"


@dataclass
class FakeDesk:
    """`root` is the key that it shows, `signer` the one that signs its card."""

    root: SigningKey = field(default_factory=SigningKey.generate)
    signer: SigningKey | None = None
    serial: int = 1

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/card", self._card), Route("/root", self._root)])

    async def _root(self, _request: Request) -> Response:
        return JSONResponse({"root_key": b64url(self.root.public)})

    async def _card(self, request: Request) -> Response:
        now = SystemClock().now()
        card = Card(
            provider=NAME,
            serial=self.serial,
            desk_url=str(request.base_url).rstrip("/"),
            issuers=(),
            agents=(),
            pools=(),
            store=None,
            rate_card="0" * 64,
            speaks=(Job.TYPE,),
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return Response(frame.seal(card, (self.signer or self.root).private))
