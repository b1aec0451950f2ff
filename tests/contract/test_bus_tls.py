"""AMQP over TLS: with the CA that the desk names, and with no other."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bus.access import AdminAccess
from runtime.outbox import Sent
from tests.bus_world import DINAH, NAMES, Bus, bus_for_tests, running, say, soon
from tests.proxy import Proxy, proxy_to


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


@pytest_asyncio.fixture
async def tls_proxy(bus: Bus, tmp_path: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """RabbitMQ behind a TLS listener, and the certificate to trust it by."""
    certificate, key = self_signed("127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with proxy_to(bus.access.amqp_host, bus.access.amqp_port, tls=context) as proxy:
        yield proxy, certificate.decode()


async def test_a_session_over_tls_with_the_desks_ca(bus: Bus, tls_proxy: tuple[Proxy, str]) -> None:
    proxy, ca = tls_proxy
    desk = bus.controller()
    desk.address = bus.address(proxy.port).model_copy(update={"is_tls": True, "ca": ca})
    async with running(desk) as session:
        await soon(session.up())
        assert await say(session, NAMES.jobs_exchange(DINAH), "fast") == Sent()


async def test_a_certificate_of_another_ca_is_refused(bus: Bus, tls_proxy: tuple[Proxy, str]) -> None:
    proxy, _ = tls_proxy
    desk = bus.controller()
    for ca in (None, self_signed("127.0.0.1")[0].decode()):
        desk.address = bus.address(proxy.port).model_copy(update={"is_tls": True, "ca": ca})
        async with running(desk) as session:
            status = session.status
            while "certificate verify failed" not in status.reason:
                status = await soon(session.status_changed(status))


async def test_a_plain_bus_where_tls_was_said_is_refused(bus: Bus) -> None:
    desk = bus.controller()
    desk.address = desk.address.model_copy(update={"is_tls": True})
    async with running(desk) as session:
        status = session.status
        while "connecting to the bus" not in status.reason:
            status = await soon(session.status_changed(status))
        assert not status.is_up


def self_signed(address: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's bus")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
