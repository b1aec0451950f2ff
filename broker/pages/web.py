"""The routes of the pages, to stand beside the API in one application (`broker.api.app.build_app`).

Rules: everything but the login and the assets needs a login's cookie, which is HttpOnly, SameSite=Strict, Secure over
https, and named after the tenant, since browsers keep one jar for all ports of a host. Whatever changes something is a
POST that carries the login's form token (CSRF). Nothing in an address is trusted to be a place of ours: where a login
leads is a path of these pages or the list of runs.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from broker.api import runs as api_runs
from broker.api.access import Access
from broker.api.answers import Refused
from broker.controller import Controller
from broker.logs.reading import LogReader
from broker.pages.facts import job_facts, log_window, run_facts, runs_facts
from broker.pages.logins import LOGIN_SECONDS, Login, Logins
from broker.pages.rendering import Assets, Rendering
from broker.pages.streams import LogFollower, while_welcome
from broker.presenting import alarm_views, orphan_views, provider_view, refusal_views
from runtime.errors import PeerFault, WorldFault
from schemas.refusals import Reason, Refusal

_EVENT_STREAM = "text/event-stream"
_PATH = re.compile(r"/(?![/\\])[!-~]{0,500}")
_NUMBER = re.compile(r"[0-9]{1,15}")
_FORM_BYTES = 16 * 1024
_STATUS = {Reason.NOT_FOUND: 404, Reason.UNAUTHENTICATED: 403, Reason.RATE_LIMITED: 429}


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is logged in."""

    request: Request
    login: Login

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def number(self, name: str) -> int | None:
        """A number in the address; None when it is missing or none."""
        text = self.request.query_params.get(name, "")
        return int(text) if _NUMBER.fullmatch(text) else None


Handler = Callable[[Visit], Awaitable[Response]]


class Pages:
    """The pages of one controller."""

    def __init__(self, controller: Controller, access: Access) -> None:
        self._controller = controller
        self._cookie = f"fedci-{controller.voice.tenant[:10]}"
        self._logins = Logins(access.is_token, controller.clock)
        self._assets = Assets()
        self._rendering = Rendering(self._assets)
        self._reader = LogReader(database=controller.database, logs=controller.logs, bells=controller.bells)

    def routes(self) -> list[Route]:
        job = "/runs/{run}/jobs/{job}"
        return [
            Route("/login", self._show_login, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._form(self._log_out), methods=["POST"]),
            Route("/assets/{name}", self._asset, methods=["GET"]),
            Route("/", self._page(self._runs), methods=["GET"]),
            Route("/runs/{run}", self._page(self._run), methods=["GET"]),
            Route("/runs/{run}/live", self._page(self._follow_run), methods=["GET"]),
            Route("/runs/{run}/cancel", self._form(self._cancel), methods=["POST"]),
            Route(job, self._page(self._job), methods=["GET"]),
            Route(f"{job}/log", self._page(self._raw_log), methods=["GET"]),
            Route(f"{job}/live", self._page(self._follow_log), methods=["GET"]),
            Route("/artifacts/{artifact:int}", self._page(self._artifact), methods=["GET"]),
            Route("/providers", self._page(self._providers), methods=["GET"]),
            Route("/alarms", self._page(self._alarms), methods=["GET"]),
        ]

    # -- Who may

    def _page(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            login = self._logins.find(request.cookies.get(self._cookie))
            if login is None:
                return self._refuse_stranger(request)
            visit = Visit(request, login)
            try:
                return await handler(visit)
            except Refused as refused:
                return self._refuse(visit, refused.refusal)
            except (WorldFault, PeerFault) as fault:
                return self._refuse(visit, Refusal(Reason.UNAVAILABLE, str(fault)), 503)

        return answer

    def _form(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(visit: Visit) -> Response:
            fields = await _fields(visit.request)
            if not visit.login.owns_form(fields.get("form_token", "")):
                refusal = Refusal(Reason.UNAUTHENTICATED, "this form is not of your login; reload the page")
                return self._refuse(visit, refusal)
            return await handler(visit)

        return self._page(guarded)

    def _refuse_stranger(self, request: Request) -> Response:
        if request.method != "GET" or request.url.path.endswith("/live"):
            return Response("log in first\n", status_code=401, media_type="text/plain")
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/login?next={quote(request.url.path + query)}", status_code=303)

    def _refuse(self, visit: Visit, refusal: Refusal, status: int | None = None) -> Response:
        facts: dict[str, object] = {"refusal": refusal}
        return self._answer(visit, "refused.html", facts, status or _STATUS.get(refusal.reason, 409))

    def _answer(self, visit: Visit, template: str, facts: dict[str, object], status: int = 200) -> Response:
        every = {
            "form_token": visit.login.form_token,
            "path": visit.request.url.path,
            "standing_alarms": sum(known.alarm is not None for known in self._controller.book.all()),
            "account": self._controller.voice.sub,
        }
        return self._rendering.page(template, self._controller.clock.now(), every | facts, status)

    # -- Logging in and out

    async def _show_login(self, request: Request) -> Response:
        following = _path_of_ours(request.query_params.get("next", ""))
        is_in = self._logins.find(request.cookies.get(self._cookie)) is not None
        if is_in:
            return RedirectResponse(following, status_code=303)
        return self._login_page(following, None, 200)

    def _login_page(self, following: str, refusal: Refusal | None, status: int) -> Response:
        facts: dict[str, object] = {"following": following, "refusal": refusal}
        facts |= {"form_token": None, "account": self._controller.voice.sub}
        return self._rendering.page("login.html", self._controller.clock.now(), facts, status)

    async def _log_in(self, request: Request) -> Response:
        fields = await _fields(request)
        following = _path_of_ours(fields.get("next", ""))
        address = request.client.host if request.client else ""
        cookie = self._logins.enter(fields.get("token", "").strip(), address)
        if isinstance(cookie, Refusal):
            return self._login_page(following, cookie, _STATUS[cookie.reason])
        answer = RedirectResponse(following, status_code=303)
        answer.set_cookie(
            self._cookie,
            cookie,
            max_age=LOGIN_SECONDS,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _log_out(self, visit: Visit) -> Response:
        self._logins.leave(visit.request.cookies[self._cookie])
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(self._cookie, httponly=True, samesite="strict")
        return answer

    async def _asset(self, request: Request) -> Response:
        return self._assets.answer(request.path_params["name"]) or Response(status_code=404)

    # -- Runs

    async def _runs(self, visit: Visit) -> Response:
        project = visit.request.query_params.get("project") or None
        before = _instant(visit.request.query_params.get("before", ""))
        async with self._controller.database.read() as session:
            found = await runs_facts(session, project, before)
        return self._answer(visit, "runs.html", {"found": found, "project": project, "is_first": before is None})

    async def _run(self, visit: Visit) -> Response:
        async with self._controller.database.read() as session:
            found = await run_facts(session, visit.path("run"))
        if found is None:
            return self._missing(visit, f"There is no run {visit.path('run')}.")
        return self._answer(visit, "run.html", {"found": found, "run": found.run})

    async def _cancel(self, visit: Visit) -> Response:
        cancelled = await self._controller.runs.cancel(visit.path("run"))
        if isinstance(cancelled, Refusal):
            return self._refuse(visit, cancelled)
        return RedirectResponse(f"/runs/{quote(visit.path('run'))}", status_code=303)

    async def _follow_run(self, visit: Visit) -> Response:
        return self._stream(visit, self._controller.run_follower.follow(visit.path("run")))

    # -- Jobs

    async def _job(self, visit: Visit) -> Response:
        run, name, number = visit.path("run"), visit.path("job"), visit.number("attempt")
        async with self._controller.database.read() as session:
            found = await job_facts(session, run, name, number)
        if found is None:
            return self._missing(visit, f"There is no job {name} in the run {run}, or no such attempt of it.")
        window = None
        if found.attempt is not None:
            place = await self._reader.find(run, name, found.attempt.number)
            if not isinstance(place, Refusal):
                window = await log_window(self._reader, place, visit.number("from"))
        facts: dict[str, object] = {"found": found, "run": found.run, "job": found.job, "window": window}
        return self._answer(visit, "job.html", facts)

    async def _raw_log(self, visit: Visit) -> Response:
        answer = await api_runs.read_log(
            visit.request, visit.path("run"), visit.path("job"), 0, visit.number("attempt")
        )
        # A browser must show these bytes as text and nothing else.
        answer.headers["content-security-policy"] = "default-src 'none'; sandbox"
        answer.headers["x-content-type-options"] = "nosniff"
        return answer

    async def _follow_log(self, visit: Visit) -> Response:
        last = visit.request.headers.get("last-event-id", "")
        follower = LogFollower(
            reader=self._reader,
            bells=self._controller.bells,
            run=visit.path("run"),
            job=visit.path("job"),
            attempt=visit.number("attempt"),
            offset=int(last) if _NUMBER.fullmatch(last) else visit.number("from") or 0,
        )
        return self._stream(visit, follower.follow())

    def _stream(self, visit: Visit, events: AsyncIterator[str]) -> Response:
        cookie = visit.request.cookies[self._cookie]
        welcome = while_welcome(events, lambda: self._logins.find(cookie) is not None)
        return StreamingResponse(welcome, media_type=_EVENT_STREAM)

    async def _artifact(self, visit: Visit) -> Response:
        answer = await api_runs.download(visit.request, int(visit.path("artifact")))
        answer.headers["content-security-policy"] = "default-src 'none'; sandbox"
        answer.headers["x-content-type-options"] = "nosniff"
        return answer

    # -- Providers and alarms

    async def _providers(self, visit: Visit) -> Response:
        providers = [provider_view(known) for known in self._controller.book.all()]
        return self._answer(visit, "providers.html", {"providers": providers})

    async def _alarms(self, visit: Visit) -> Response:
        async with self._controller.database.read() as session:
            facts: dict[str, object] = {
                "alarms": await alarm_views(session),
                "orphans": await orphan_views(session),
                "refusals": await refusal_views(session),
            }
        troubles = self._controller.parts.trust.troubles()
        issuer = self._controller.voice.issuer
        return self._answer(visit, "alarms.html", facts | {"issuer": issuer, "issuer_trouble": troubles.get(issuer)})

    def _missing(self, visit: Visit, what: str) -> Response:
        return self._refuse(visit, Refusal(Reason.NOT_FOUND, what))


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form, `application/x-www-form-urlencoded`; none of a larger or another body."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return {}
    body = await request.body()
    if len(body) > _FORM_BYTES:
        return {}
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
    except ValueError:
        return {}


def _path_of_ours(text: str) -> str:
    return text if _PATH.fullmatch(text) and not text.startswith("/login") else "/"


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
