"""One life of the connections to a bus: opened with fresh credentials, watched, closed once and for all.

A link is a pair of plain AMQP connections of one user, one to publish and one to consume, because RabbitMQ stops
reading a connection that publishes while memory or disk is short, and acknowledgements would wait with it. A link never
heals: when either connection is lost, both are closed, and `bus.session` opens another with fresh credentials.

Rules: TLS when the desk says so, with the CA that it names; plaintext to another machine is refused. Nothing is
declared here, not even passively. Every await of the library has a deadline, and a `CancelledError` with which the
library reports a lost connection becomes `LinkLost`: only our own cancel stays a cancel.

A dead peer is noticed after three missed heartbeats, about 33 s (AMQP 0-9-1 §4.2.7).
"""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, cast

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import AbstractConnection as RawConnection
from aiormq.channel import Channel as RawChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity, InvalidFrameError

from bus import forgiving
from bus.waiting import Watched
from runtime.addresses import is_loopback
from runtime.errors import PeerFault, WorldFault
from schemas.sessions import BusAddress, SessionGranted

HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 15.0
CALL_SECONDS = 10.0
CLOSE_SECONDS = 3.0
HIDDEN_REFUSAL = "refused after the login: too many connections of this user, or no such vhost"
"""The library drops the reason that RabbitMQ gives at this point; these are the two it has."""

T = TypeVar("T")
forgiving.install()


class BusFault(WorldFault):
    """The bus did not do what was asked; the message says what it said."""


class LinkLost(BusFault):
    """The connection or channel is gone, or did not answer in time."""


class NameRefused(BusFault):
    """RabbitMQ refused this exchange or queue to this user, or has none of the name; its channel is closed."""

    def __init__(self, what: str, *, is_missing: bool) -> None:
        super().__init__(what)
        self.is_missing = is_missing


class PlaintextRefused(PeerFault):
    """The desk names a bus on another machine without TLS."""


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """Await a call of the AMQP library and translate its ways of failing.

    Raises NameRefused (403 and 404 for a name), LinkLost (everything else). Cancelling cancels the call; the library
    then closes the channel if it had asked something.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise LinkLost(f"no answer within {seconds:g} s: {what}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LinkLost(f"the connection was lost: {what}") from error
    except (*CONNECTION_EXCEPTIONS, asyncio.InvalidStateError, EOFError) as error:
        raise fault_of(error, what) from error
    except Exception as error:
        # aiormq ends the calls of a connection that was closed without a reason with a bare `Exception`.
        if type(error) is not Exception:
            raise
        raise LinkLost(f"the connection was closed: {what}") from error


def fault_of(error: BaseException | None, what: str) -> BusFault:
    """Our error for one of the library's."""
    reason = describe(error)
    if isinstance(error, ChannelAccessRefused | ChannelNotFoundEntity):
        return NameRefused(f"{what}: {reason}", is_missing=isinstance(error, ChannelNotFoundEntity))
    return LinkLost(f"{what}: {reason}")


def describe(error: BaseException | None) -> str:
    """What the bus or the library said, on one line and bounded: a stranger's bus writes it."""
    if error is None or (isinstance(error, asyncio.CancelledError) and not error.args):
        return "closed"
    if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):
        return HIDDEN_REFUSAL
    text = " ".join(str(part) for part in error.args) if isinstance(error, ChannelClosed | OSError) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


class Link:
    """Two connections of one session user. Made by `open_link`; closed by `close`."""

    def __init__(self, granted: SessionGranted, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self.granted = granted
        self._publishing = publishing
        self._consuming = consuming
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._on_end: set[Callable[[], None]] = set()
        for connection in (publishing, consuming):
            # Calls back also when it was lost before we came here, while the other one was being opened.
            _raw(connection).closing.add_done_callback(self._on_closing)

    @property
    def has_ended(self) -> bool:
        """Whether it is lost, or is given up for another: nothing new is begun on it."""
        return self._ended.done()

    @property
    def end_reason(self) -> str:
        return self._ended.result() if self._ended.done() else ""

    async def ended(self) -> str:
        """Wait for the end and return its reason."""
        return await asyncio.shield(self._ended)

    def end(self, reason: str) -> None:
        """Give it up: whoever works on it finishes what is under way and leaves. Only the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(reason)
            for callback in tuple(self._on_end):
                callback()

    @contextlib.contextmanager
    def on_end(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call back once when the link ends, while the block lasts; at once if it has ended."""
        self._on_end.add(callback)
        try:
            if self.has_ended:
                callback()
            yield
        finally:
            self._on_end.discard(callback)

    async def publishing_channel(self) -> RawChannel:
        """A channel with publisher confirms, whose unroutable messages come back as values."""
        raw = _raw(self._publishing)
        opening = raw.channel(_free_number(raw), publisher_confirms=True, on_return_raises=False)
        return cast(RawChannel, await within(CALL_SECONDS, opening, "opening a channel to publish"))

    async def consuming_channel(self, prefetch: int) -> RawChannel:
        """A channel to consume on, its prefetch set. On the library's lower layer deliveries come in order."""
        raw = _raw(self._consuming)
        opening = raw.channel(_free_number(raw), publisher_confirms=False)
        channel = cast(RawChannel, await within(CALL_SECONDS, opening, "opening a channel to consume"))
        await within(CALL_SECONDS, channel.basic_qos(prefetch_count=prefetch), "setting the prefetch")
        return channel

    async def unblocked(self, seconds: float) -> None:
        """Wait while RabbitMQ refuses all publishing for want of memory or disk; raises LinkLost when time is up."""
        ready = _raw(self._publishing).ready()
        await within(seconds, ready, "the bus takes no messages, its memory or disk is short")

    async def close(self) -> None:
        """Close both connections; bounded in time, never raises but a cancel of ours."""
        self.end("closed by us")
        for connection in (self._consuming, self._publishing):
            with contextlib.suppress(BusFault):
                await within(CLOSE_SECONDS, connection.close(), "closing")

    def _on_closing(self, closing: "asyncio.Future[object]") -> None:
        self.end("closed" if closing.cancelled() else describe(closing.exception()))


async def working_link(links: Watched[Link | None]) -> Link:
    """Wait for a link that has not ended."""
    while (link := links.value) is None or link.has_ended:
        await links.until(lambda link: link is not None and not link.has_ended)
    return link


async def open_link(granted: SessionGranted, name: str) -> Link:
    """Open both connections as the session's user; `name` is what the bus's owner sees in its lists.

    Raises LinkLost when the bus cannot be reached or refuses the login, PlaintextRefused.
    """
    check_address(granted.bus)
    context = _tls_context(granted.bus)
    publishing = await _connect(granted, f"{name} publishing", context)
    try:
        consuming = await _connect(granted, f"{name} consuming", context)
    except BaseException:
        with contextlib.suppress(BusFault):
            await within(CLOSE_SECONDS, publishing.close(), "closing")
        raise
    return Link(granted, publishing, consuming)


def check_address(bus: BusAddress) -> None:
    """Raise PlaintextRefused for a bus on another machine without TLS."""
    if not bus.is_tls and not is_loopback(bus.host):
        raise PlaintextRefused(
            f"plaintext to {bus.host} could be read on the way",
            remedy="The provider must offer its bus with TLS (is_tls in the desk's settings).",
        )


async def _connect(granted: SessionGranted, name: str, context: ssl.SSLContext | None) -> AbstractConnection:
    bus = granted.bus
    # The scheme follows from `ssl` alone: with a plain URL the library would ignore the context without a word.
    opening = aio_pika.connect(
        host=bus.host,
        port=bus.port,
        login=granted.user,
        password=granted.password,
        virtualhost=bus.vhost,
        ssl=context is not None,
        ssl_context=context,
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": name},
    )
    return await within(CONNECT_SECONDS, opening, f"connecting to the bus at {bus.host}:{bus.port}")


def _raw(connection: AbstractConnection) -> RawConnection:
    if connection.transport is None:
        raise LinkLost("the connection is closed")
    return connection.transport.connection


def _free_number(connection: RawConnection) -> int:
    """The lowest free channel number; the library's own choice climbs, and RabbitMQ stops at 2047."""
    return next(number for number in itertools.count(1) if number not in connection.channels)


def _tls_context(bus: BusAddress) -> ssl.SSLContext | None:
    if not bus.is_tls:
        return None
    try:
        return ssl.create_default_context(cadata=bus.ca)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: not ASCII
        raise LinkLost(f"the desk's CA for its bus cannot be used ({error})") from error
