"""Which addresses we listen on and call: `Listen`, and the checks of HTTP and AMQP URLs.

Rules: plaintext (http, amqp) only to loopback, so that nothing readable leaves the machine (DESIGN §6); no user or
password in an HTTP URL, because URLs end up in logs and pages; no query or fragment, because paths are appended.
A host is loopback by its spelling (`localhost` or a loopback IP address); names are never looked up. Error messages
never repeat a URL's user and password. Pure; binding is in `runtime.listening`.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_LISTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
# urlsplit drops or reinterprets the rest (tabs, newlines, backslashes); other software disagrees about them.
_PLAIN_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")
_USERINFO = re.compile(r"://[^/@\s]*@")
_MAX_URL_CHARS = 2000


@dataclass(frozen=True)
class Listen:
    """A TCP address to listen on, written `HOST:PORT` or `[IPv6]:PORT`; port 0 means any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> "Listen":
        """Read `HOST:PORT`; raises ValueError with what was expected."""
        if isinstance(text, cls):
            return text
        match = _LISTEN.fullmatch(text) if isinstance(text, str) else None
        if match is None or int(match["port"]) > 65535:
            raise ValueError('expected an address like "127.0.0.1:8080" or "[::1]:8080", port 0 to 65535')
        if match["v6"] and not _is_ip(match["v6"]):
            raise ValueError('expected an IPv6 address in the brackets, like "[::1]:8080"')
        return cls(match["v6"] or match["host"], int(match["port"]))

    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())


def is_loopback(host: str) -> bool:
    """Whether `host` (without brackets) is this machine, by its spelling alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_http_url(url: str) -> str:
    """Return `url` if it may be called; raises ValueError with the reason and what to write instead."""
    parts = _split(url, ("http", "https"))
    if "@" in parts.netloc:
        raise ValueError("a user or password does not belong in an HTTP URL; put secrets into their own file")
    if "?" in url or "#" in url:
        raise ValueError("expected a URL without query (?) and fragment (#)")
    _refuse_plaintext(parts, "https")
    return url


def check_amqp_url(url: str) -> str:
    """Return `url` if it may be connected to; raises ValueError with the reason and what to write instead."""
    _refuse_plaintext(_split(url, ("amqp", "amqps")), "amqps")
    return url


def without_userinfo(text: str) -> str:
    """Return `text` with the user and password of every URL in it blotted out, for logs and messages."""
    return _USERINFO.sub("://***@", text)


def _split(url: str, schemes: tuple[str, str]) -> SplitResult:
    expected = f"expected a URL like {schemes[1]}://HOST[:PORT]/"
    if len(url) > _MAX_URL_CHARS or not _PLAIN_URL.fullmatch(url.lower()):
        raise ValueError(f"{expected} in plain printable characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{expected}; this one has a bad host or port") from error
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(expected)
    return parts


def _refuse_plaintext(parts: SplitResult, encrypted: str) -> None:
    if parts.scheme != encrypted and not is_loopback(parts.hostname or ""):
        raise ValueError(
            f"plaintext {parts.scheme}:// to {parts.hostname} could be read on the way; "
            f"use {encrypted}:// (plaintext is only for this machine itself)"
        )


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
