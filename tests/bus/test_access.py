"""The environment names an existing RabbitMQ completely and safely, or not at all."""

import pytest

from bus.access import AMQP_VARIABLE, API_VARIABLE, AccessError, AdminAccess

AMQP = "amqp://ad%40min:s%2Fecret@127.0.0.1:5673/ignored"
API = "http://127.0.0.1:15673/"


def test_an_environment_that_says_nothing_names_no_server() -> None:
    assert AdminAccess.from_environment({"PATH": "/bin"}) is None


def test_both_addresses_make_an_access() -> None:
    access = AdminAccess.from_environment({AMQP_VARIABLE: AMQP, API_VARIABLE: API})

    assert access == AdminAccess("http://127.0.0.1:15673", "ad@min", "s/ecret", "127.0.0.1", 5673)


def test_tls_addresses_may_lead_anywhere_and_have_their_own_default_port() -> None:
    env = {AMQP_VARIABLE: "amqps://u:p@bus.example", API_VARIABLE: "https://u:p@bus.example/rabbit/"}
    access = AdminAccess.from_environment(env)

    assert access is not None
    assert (access.amqp_port, access.amqp_tls, access.api_url) == (5671, True, "https://bus.example/rabbit")


@pytest.mark.parametrize(
    ("amqp", "api", "complaint"),
    [
        (AMQP, "", f"{API_VARIABLE} is not"),
        ("", API, f"{AMQP_VARIABLE} is not"),
        ("amqp://127.0.0.1:5672", API, "no administrator"),
        ("http://u:p@127.0.0.1", API, "not an AMQP address"),
        (AMQP, "127.0.0.1:15672", "not an HTTP address"),
        ("amqp://u:p@127.0.0.1:port", API, "not an address"),
        ("amqp://u:p@bus.example", API, "plaintext would leave this machine"),
        (AMQP, "http://bus.example:15672", "plaintext would leave this machine"),
    ],
)
def test_half_an_address_or_an_unprotected_one_is_refused(amqp: str, api: str, complaint: str) -> None:
    with pytest.raises(AccessError, match=complaint):
        AdminAccess.from_environment({AMQP_VARIABLE: amqp, API_VARIABLE: api})


def test_an_address_quotes_what_would_change_its_meaning() -> None:
    access = AdminAccess("http://[::1]:15672", "admin", "a/b", "::1", 5672)

    assert access.amqp_url("of alice/bob", "w:7") == "amqp://w%3A7:a%2Fb@[::1]:5672/of%20alice%2Fbob"


def test_a_printed_access_does_not_show_its_password() -> None:
    assert "hidden" not in repr(AdminAccess("http://localhost", "admin", "hidden", "localhost", 5672))
