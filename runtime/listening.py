"""Binding a TCP address before anything else starts, so that a port in use is one clear sentence.

Rules: plaintext is offered on loopback only; any other address needs TLS files (DESIGN §6). The error names the port
and the setting to change. Port 0 takes a free one; `Bound.url` tells the real one.
"""

import errno
import socket
from dataclasses import dataclass

from runtime.addresses import Listen
from runtime.errors import OurFault
from runtime.settings import TlsFiles

_BACKLOG = 512


class CannotListen(OurFault):
    """The address cannot be listened on as the settings say."""


@dataclass(frozen=True)
class Bound:
    """A listening socket that nobody accepts from yet; the one who serves it closes it."""

    socket: socket.socket
    tls: TlsFiles | None

    @property
    def listen(self) -> Listen:
        host, port = self.socket.getsockname()[:2]
        return Listen(host, port)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.listen}"


def bind(listen: Listen, tls: TlsFiles | None = None, *, setting: str = "listen") -> Bound:
    """Bind `listen`; `setting` is the dotted key that a person would change.

    Raises CannotListen when the port is taken or forbidden, the host is not this machine's, or plaintext would be
    offered to other machines.
    """
    if tls is None and not listen.is_loopback():
        raise CannotListen(
            f"plaintext HTTP on {listen} could be read on the way",
            where=setting,
            remedy=f"Give TLS files beside `{setting}`, or listen on 127.0.0.1.",
        )
    try:
        return Bound(_listening_socket(listen), tls)
    except OSError as error:
        raise _explain(error, listen, setting) from error


def _listening_socket(listen: Listen) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Listening at once makes a second start fail here, not later; early callers wait in the backlog.
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _explain(error: OSError, listen: Listen, setting: str) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return CannotListen(
            f"port {listen.port} is in use ({listen})",
            where=setting,
            remedy=f"Stop the program that has it (`ss -ltnp 'sport = :{listen.port}'`), or change `{setting}`.",
        )
    if error.errno == errno.EACCES:
        return CannotListen(
            f"port {listen.port} needs privileges", where=setting, remedy=f"Set `{setting}` to a port above 1023."
        )
    return CannotListen(
        f"cannot listen on {listen} ({error.strerror})",
        where=setting,
        remedy=f"Set `{setting}` to an address of this machine.",
    )
