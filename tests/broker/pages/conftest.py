"""The pages beside the API, as a browser meets them; `browser` has logged in."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from html.parser import HTMLParser

import httpx
import pytest

from broker.api.access import Access
from broker.api.app import behind_guards, build_app
from broker.pages.web import Pages
from schemas.orders import Grant
from tests.broker.world import Claimed, FakeProvider, World

TOKEN = "the token"


@dataclass
class Browser:
    """An HTTP client with a cookie jar that reads forms out of pages, and follows nothing by itself."""

    http: httpx.AsyncClient

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    async def log_in(self, token: str = TOKEN, following: str = "/") -> httpx.Response:
        return await self.http.post("/login", data={"token": token, "next": following})

    async def form_token(self) -> str:
        return next(value for name, value in _hidden_fields(await self.get("/")) if name == "form_token")


def _hidden_fields(page: str) -> Iterable[tuple[str, str]]:
    fields: list[tuple[str, str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            if tag == "input" and values.get("type") == "hidden":
                fields.append((values["name"] or "", values["value"] or ""))

    Reader().feed(page)
    return fields


@pytest.fixture
async def stranger(world: World) -> AsyncIterator[Browser]:
    """A browser that has not logged in."""
    access = Access(TOKEN)
    app = behind_guards(build_app(world.controller, access, Pages(world.controller, access).routes()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://c") as http:
        yield Browser(http)


@pytest.fixture
async def browser(stranger: Browser) -> Browser:
    assert (await stranger.log_in()).status_code == 303
    return stranger


async def granted(world: World, provider: FakeProvider) -> Claimed:
    """A worker claims the job that was just published, and may run it."""
    job = await world.job_order()
    claim = await provider.workers["w1"].claim(world.tenant, job.attempt)
    await world.hear(provider.name, claim.raw)
    assert isinstance(await world.said_one(Grant), Grant)
    return claim
