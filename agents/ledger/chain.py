"""A chain of hashes over the rows of a book: changing, removing or swapping any row changes all links after it.

`link(n) = SHA-256(link(n-1) LF digest(n))`, beginning with 64 zeros.
"""

from collections.abc import Iterable

from schemas.ids import sha256_hex

BEGINNING = "0" * 64


def next_link(last: str, digest: str) -> str:
    return sha256_hex(f"{last}\n{digest}".encode("ascii"))


def first_broken(rows: Iterable[tuple[str, str]]) -> int | None:
    """The position of the first `(digest, link)` whose link is not the one that follows, or None."""
    last = BEGINNING
    for position, (digest, link) in enumerate(rows):
        last = next_link(last, digest)
        if link != last:
            return position
    return None
