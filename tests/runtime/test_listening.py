"""What happens when an address cannot be had."""

import socket
from pathlib import Path

import pytest

from runtime.addresses import Listen
from runtime.listening import CannotListen, bind
from runtime.settings import TlsFiles


def test_port_zero_reports_the_real_port() -> None:
    bound = bind(Listen("127.0.0.1", 0))
    with bound.socket, socket.create_connection(bound.socket.getsockname()):
        assert bound.listen.port > 0
        assert bound.url == f"http://127.0.0.1:{bound.listen.port}"


def test_a_port_in_use_names_the_port_and_the_setting() -> None:
    first = bind(Listen("127.0.0.1", 0))
    port = first.listen.port
    with first.socket, pytest.raises(CannotListen, match=f"web.listen: port {port} is in use") as caught:
        bind(Listen("127.0.0.1", port), setting="web.listen")
    assert "change `web.listen`" in str(caught.value)


def test_a_port_can_be_had_again_at_once() -> None:
    first = bind(Listen("127.0.0.1", 0))
    listen = first.listen
    with socket.create_connection(first.socket.getsockname()):
        first.socket.accept()[0].close()
    first.socket.close()
    bind(listen).socket.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])  # noqa: S104  # refused is what is shown
def test_plaintext_to_other_machines_is_refused(host: str) -> None:
    with pytest.raises(CannotListen, match="could be read on the way"):
        bind(Listen(host, 0))


def test_another_machines_address_is_refused_with_the_setting() -> None:
    files = TlsFiles(certificate=Path("c.pem"), key=Path("k.pem"))
    with pytest.raises(CannotListen, match="to an address of this machine"):
        bind(Listen("192.0.2.1", 0), files)
