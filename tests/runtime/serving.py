"""A served application for tests, and the TLS files of a made-up host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp

from runtime.addresses import Listen
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, StopLevel
from runtime.settings import TlsFiles

FREE_PORT = Listen("127.0.0.1", 0)


@asynccontextmanager
async def served(app: ASGIApp, *, tls: TlsFiles | None = None) -> AsyncIterator[str]:
    """Yield the URL of `app` while it is served."""
    stop, url = Stop(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_http(app, FREE_PORT, stop, tls=tls, ready=url.set_result))
        try:
            yield await url
        finally:
            stop.rise_to(StopLevel.HAND_BACK)


def make_tls_files(directory: Path) -> TlsFiles:
    """Write a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fedci test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(certificate=directory / "tls.pem", key=directory / "tls.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
