"""The bytes of every message, kept: a change here is a change of the protocol and needs a new version of the type.

`python -m tests.schemas.test_golden_bytes` prints the table for a type that was added on purpose.
"""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas import frame
from schemas.ids import sha256_hex, tenant_id
from schemas.wire import Message
from tests.schemas.samples import SAMPLES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GOLDEN = Path(__file__).with_name("golden_bytes.json")


def envelope_digest(message: Message) -> str:
    return sha256_hex(frame.seal(message, KEY, "header.claims.signature" if message.CARRIES_TOKEN else None))


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: message.TYPE)
def test_the_bytes_of_a_message_never_change(message: Message) -> None:
    assert json.loads(GOLDEN.read_text())[message.TYPE] == envelope_digest(message)


def test_the_encoding_under_the_signature_is_the_one_of_dsse() -> None:
    # The example of the DSSE protocol document, which pins the encoding from outside.
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert frame.pae("http://example.com/HelloWorld", b"hello world") == expected


def test_a_tenant_id_never_changes() -> None:
    assert tenant_id("https://id.fatima.example", "dinah") == json.loads(GOLDEN.read_text())["tenant"]


if __name__ == "__main__":
    table = {message.TYPE: envelope_digest(message) for message in SAMPLES}
    table["tenant"] = tenant_id("https://id.fatima.example", "dinah")
    GOLDEN.write_text(json.dumps(table, indent=2) + "\n")
