"""Requests to a store: signed by the tab's holder over method, path, digest and time, or refused."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import store_api
from schemas.refusals import Reason, Refusal
from schemas.store_api import StoreRequest, UnverifiedRequest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HOLDER = KEY.public_key().public_bytes_raw()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = StoreRequest("b" + "a" * 26, "PUT", "/tabs/x/blobs/00?offset=0", "0" * 64, NOW)


def received(method: str = "PUT", path: str = REQUEST.path, **headers: str) -> UnverifiedRequest | Refusal:
    return store_api.read_request(method, path, {**REQUEST.headers(KEY), **headers})


def verified(request: UnverifiedRequest | Refusal, now: datetime = NOW) -> StoreRequest | Refusal:
    return request if isinstance(request, Refusal) else request.verify(HOLDER, now)


def test_a_request_signed_by_the_holder_is_believed() -> None:
    assert verified(received()) == REQUEST


@pytest.mark.parametrize(
    "request_",
    [
        received(method="GET"),
        received(path="/tabs/x/blobs/01?offset=0"),
        received(path="/tabs/x/blobs/00?offset=1"),
        received(**{"fedci-digest": "1" * 64}),
        received(**{"fedci-tab": "b" + "c" * 26}),
        received(**{"fedci-time": "1767225600001"}),
        received(**{"fedci-signature": "AAAA"}),
        received(**{"fedci-signature": "no base64!"}),
        received(**{"fedci-time": "soon"}),
        received(**{"fedci-time": "9" * 30}),
    ],
)
def test_whatever_differs_from_what_was_signed_is_refused(request_: UnverifiedRequest | Refusal) -> None:
    result = verified(request_)
    assert isinstance(result, Refusal)
    assert result.reason is Reason.REQUEST_SIGNATURE


@pytest.mark.parametrize("header", ["fedci-tab", "fedci-time", "fedci-digest", "fedci-signature"])
def test_a_missing_header_is_named(header: str) -> None:
    headers = REQUEST.headers(KEY)
    del headers[header]
    result = store_api.read_request("PUT", REQUEST.path, headers)
    assert isinstance(result, Refusal)
    assert header in result.detail


@pytest.mark.parametrize("minutes", [-3, 3])
def test_a_request_from_another_time_is_refused(minutes: int) -> None:
    result = verified(received(), NOW + timedelta(minutes=minutes))
    assert isinstance(result, Refusal)
    assert result.reason is Reason.REQUEST_EXPIRED
