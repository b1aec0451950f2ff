"""Which addresses are accepted; above all, which are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.addresses import Listen, check_amqp_url, check_http_url, is_loopback, without_userinfo

HOSTS = st.one_of(st.ip_addresses(v=4).map(str), st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?", fullmatch=True))


@given(host=st.one_of(HOSTS, st.ip_addresses(v=6).map(str)), port=st.integers(0, 65535))
def test_an_address_is_read_back_as_it_was_written(host: str, port: int) -> None:
    listen = Listen(host, port)
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "127.0.0.1", "127.0.0.1:", "h:65536", "::1:80", "[::g]:80", "h:80\n", "a b:1", 80],
)
def test_other_spellings_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected an"):
        Listen.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::", "127.0.0.1.evil.org", "127.1", "0x7f.0.0.1", "localhost.org", ""])
def test_what_only_looks_like_this_machine_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "url", ["https://alice.example", "https://a.example:8443/x/", "http://127.0.0.1:1", "http://[::1]:80/"]
)
def test_good_http_urls_stay_as_they_are(url: str) -> None:
    assert check_http_url(url) == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://alice.example/", "could be read on the way; use https://"),
        ("http://127.0.0.1.evil.org/", "could be read"),
        ("http://127.0.0.1%2eevil.org/", "could be read"),
        ("http://user:hunter2@127.0.0.1/", "user or password"),
        ("https://@a.example/", "user or password"),
        ("https://a.example/?x=1", "without query"),
        ("https://a.example/#x", "without query"),
        ("http://127.0.0.1\\@evil.org/", "plain printable"),
        ("https://a.exa\tmple/", "plain printable"),
        ("https://ä.example/", "plain printable"),
        ("https://a.example:99999/", "bad host or port"),
        ("https://a.example:0/", "expected a URL"),
        ("https:///x", "expected a URL"),
        ("ftp://a.example/", "expected a URL"),
        ("a.example", "expected a URL"),
        ("", "expected a URL"),
        ("https://" + "a" * 2000, "expected a URL"),
    ],
)
def test_bad_http_urls_are_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_http_url(url)
    assert "hunter2" not in str(caught.value)


def test_amqp_is_plaintext_only_on_this_machine() -> None:
    assert check_amqp_url("amqp://guest:guest@127.0.0.1:5672/v%2F1")
    assert check_amqp_url("amqps://u:p@rabbit.example/alice")
    with pytest.raises(ValueError, match="use amqps://") as caught:
        check_amqp_url("amqp://u:hunter2@rabbit.example/")
    assert "hunter2" not in str(caught.value)


@given(user=st.text("abc:%é!", max_size=8), rest=st.text("xyz/", max_size=8))
def test_no_password_survives_the_blotting(user: str, rest: str) -> None:
    assert without_userinfo(f"at amqp://{user}@h/{rest} now") == f"at amqp://***@h/{rest} now"
