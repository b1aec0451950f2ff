"""What a ticket opens, and what a tab may do: pure decisions over what is known (DESIGN §10).

Rules:
- a tab lasts to the ticket's `tab_ends_at`, and no longer than this store lets tabs last;
- an upload fits into what the ticket leaves, then the tenant's quota, then the disk; the first that does not is the
  answer. Room is kept from its first byte on, so that uploads at once cannot pass a limit together;
- a name is the ticket's prefix and a path below it. Names never touch the file system.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from schemas.ids import is_label
from schemas.refusals import Reason, Refusal
from schemas.tickets import StoreTicket
from schemas.wire import WorkspacePath

_PATH = TypeAdapter[str](WorkspacePath)
NOT_FOUND = Refusal(Reason.NOT_FOUND, "nothing of this tenant that this tab may read has that digest or name")
"""One answer for what is not there, what is another tenant's, and what the ticket does not list."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left where an upload would go, in bytes."""

    in_ticket: int
    in_quota: int
    on_disk: int
    per_blob: int


def tab_end(ticket: StoreTicket, now: datetime, longest: timedelta) -> datetime | Refusal:
    """When a tab opened now ends."""
    if ticket.tab_ends_at <= now:
        return Refusal(Reason.EXPIRED, "the tab that this ticket opens is over already")
    return min(ticket.tab_ends_at, now + longest)


def project_of(write_prefix: str | None) -> str | None:
    """The project that a prefix begins with, for the usage statements."""
    first = (write_prefix or "").partition("/")[0]
    return first if is_label(first) else None


def check_room(size: int, room: Room) -> Refusal | None:
    """Whether a new upload of `size` bytes has room."""
    if size > room.per_blob:
        return Refusal(Reason.TOO_LARGE, f"a blob here has at most {room.per_blob} bytes, this one {size}")
    if size > room.in_ticket:
        return Refusal(Reason.OUTSIDE_TICKET, f"the ticket allows {max(0, room.in_ticket)} more bytes, not {size}")
    if size > room.in_quota:
        return Refusal(
            Reason.QUOTA_EXCEEDED,
            f"{max(0, room.in_quota)} bytes of the tenant's quota are left, not {size}; "
            "wait until older artifacts expire, or ask the store's owner for more",
        )
    if size > room.on_disk:
        return store_full()
    return None


def store_full() -> Refusal:
    return Refusal(
        Reason.STORE_FULL,
        "the store's disk is full; its owner must free some space. What has arrived is kept until the tab ends: "
        "the upload can go on from there",
    )


def check_offset(offset: int, size: int, reserved_size: int, stored: int) -> Refusal | None:
    """Whether an upload may go on at `offset`, when `stored` bytes of it are there."""
    if size != reserved_size:
        return Refusal(Reason.INVALID_REQUEST, f"this upload was begun as one of {reserved_size} bytes, not {size}")
    if offset > size:
        return Refusal(Reason.INVALID_REQUEST, "the offset lies behind the end")
    if offset != stored:
        return Refusal(Reason.CONFLICT, f"{stored} bytes are stored; go on from there, not from {offset}")
    return None


def check_name(name: str, write_prefix: str | None) -> Refusal | None:
    """Whether a tab with this prefix may give this name."""
    if write_prefix is None or not name.startswith(write_prefix):
        return Refusal(Reason.OUTSIDE_TICKET, f"names given through this tab begin with {write_prefix or 'nothing'}")
    try:
        _PATH.validate_python(name.removeprefix(write_prefix))
    except ValidationError as error:
        return Refusal(Reason.INVALID_REQUEST, error.errors(include_url=False)[0]["msg"])
    return None
