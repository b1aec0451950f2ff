"""Requests to an artifact store, signed against an open tab, and its answers (DESIGN §10).

A tab was opened by a ticket and knows its holder's key. Every later request names the tab and carries an Ed25519
signature over the method, the path with its query, the digest of what is moved, and the time, in DSSE's encoding under
a type of its own, so that it can never pass for an envelope. No token has to outlive the job. The request that opens a
tab is signed by the holder too (tab `-`, the digest of the ticket), so that nobody else can spend its ticket.

| request | what it does |
|---|---|
| `POST /tabs` | a store ticket in, `TabOpened` out; the same ticket again gives the same tab |
| `GET /tabs/{tab}/uploads/{digest}?size=N` | `UploadState`: where to go on |
| `PUT /tabs/{tab}/uploads/{digest}?offset=N&size=M` | the rest of a blob, kept if it is what the digest says |
| `GET /tabs/{tab}/blobs/{digest}` | a blob, or a range of it |
| `PUT /tabs/{tab}/names/{name}` | `NamedBlob` in: gives a stored blob a name, for good |
| `GET /tabs/{tab}/names/{name}` | `NamedBlob` |
| `DELETE /tabs/{tab}` | closes the tab: `TabClosed` |
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas import limits, wire
from schemas.frame import pae
from schemas.ids import Sha256, TabId
from schemas.refusals import Reason, Refusal
from schemas.wire import Count, Instant, Part

REQUEST_TYPE = "fedci.store-request/1"
TAB_HEADER = "fedci-tab"
TIME_HEADER = "fedci-time"
DIGEST_HEADER = "fedci-digest"
SIGNATURE_HEADER = "fedci-signature"
NO_DIGEST = "-"
NO_TAB = "-"
TABS_PATH = "/tabs"


class TabOpened(Part):
    """A tab, until when it lasts, how much may be written through it, and the prefix of every name that it gives."""

    tab: TabId
    ends_at: Instant
    bytes_left: Count
    write_prefix: str | None = None


class UploadState(Part):
    """How much of a blob is there; a complete one need not be sent."""

    offset: Count
    is_complete: bool


class TabClosed(Part):
    """What went through a tab, as it is billed."""

    tab: TabId
    bytes_in: Count
    bytes_out: Count


class NamedBlob(Part):
    digest: Sha256
    size_bytes: Count


def tab_path(tab: str) -> str:
    return f"{TABS_PATH}/{tab}"


def blob_path(tab: str, digest: str) -> str:
    return f"{TABS_PATH}/{tab}/blobs/{digest}"


def upload_path(tab: str, digest: str) -> str:
    return f"{TABS_PATH}/{tab}/uploads/{digest}"


def name_path(tab: str, name: str) -> str:
    return f"{TABS_PATH}/{tab}/names/{quote(name)}"


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a signature covers. `digest` is the SHA-256 of the whole blob that the request is about, or `-`."""

    tab: str
    method: str
    path: str
    digest: str
    at: datetime

    def signed_bytes(self) -> bytes:
        parts = (self.tab, self.method, self.path, self.digest, str(wire.to_milliseconds(self.at)))
        return pae(REQUEST_TYPE, "\n".join(parts).encode("utf-8"))

    def headers(self, key: Ed25519PrivateKey) -> dict[str, str]:
        """Sign, and give the headers to send."""
        signature = base64.urlsafe_b64encode(key.sign(self.signed_bytes())).decode("ascii")
        return {
            TAB_HEADER: self.tab,
            TIME_HEADER: str(wire.to_milliseconds(self.at)),
            DIGEST_HEADER: self.digest,
            SIGNATURE_HEADER: signature,
        }


@dataclass(frozen=True, slots=True)
class UnverifiedRequest:
    request: StoreRequest
    signature: bytes

    def verify(self, holder_key: bytes, now: datetime) -> StoreRequest | Refusal:
        """The request, if the tab's holder signed it within the allowed clock skew around now."""
        skew_seconds = abs((now - self.request.at).total_seconds())
        if skew_seconds > limits.CLOCK_SKEW_SECONDS + limits.TICKET_SECONDS:
            return Refusal(Reason.REQUEST_EXPIRED, f"signed {skew_seconds:.0f} s away from this store's clock")
        try:
            Ed25519PublicKey.from_public_bytes(holder_key).verify(self.signature, self.request.signed_bytes())
        except (InvalidSignature, ValueError):
            return Refusal(Reason.REQUEST_SIGNATURE, "the request is not signed by the tab's holder")
        return self.request


def read_request(method: str, path: str, headers: Mapping[str, str]) -> UnverifiedRequest | Refusal:
    """Read the four headers of a request; `path` is the raw path with its query, as sent."""
    try:
        at = wire.from_milliseconds(int(headers[TIME_HEADER]))
        signature = base64.b64decode(headers[SIGNATURE_HEADER], altchars=b"-_", validate=True)
        request = StoreRequest(headers[TAB_HEADER], method, path, headers[DIGEST_HEADER], at)
    except KeyError as missing:
        return Refusal(Reason.REQUEST_SIGNATURE, f"the request lacks its {missing.args[0]} header")
    except (ValueError, OverflowError, binascii.Error):
        return Refusal(Reason.REQUEST_SIGNATURE, "a signature header cannot be read")
    return UnverifiedRequest(request, signature)
