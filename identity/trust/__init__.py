"""Who is believed, and about what: the list of refusals, and what it is asked with (DESIGN §4, §5).

`Trust` keeps the issuers' keys and revocations fresh and verifies what carries a token. The `verify_*` functions are
the decisions themselves, and pure; those without a token (report, agent ticket, statement) are called directly.
Profiles come from configuration: `[[issuers]]` tables are `IssuerProfile`s.
"""

from identity.trust.anchor import Anchor
from identity.trust.checks import Principal
from identity.trust.profiles import IssuerProfile
from identity.trust.replay import Seen, settle_duplicate, spend_ticket
from identity.trust.verifier import Trust
from identity.trust.verify import (
    SignedBy,
    Verified,
    verify_agent_ticket,
    verify_introduction,
    verify_order,
    verify_receipt,
    verify_report,
    verify_statement,
    verify_ticket,
)

__all__ = [
    "Anchor",
    "IssuerProfile",
    "Principal",
    "Seen",
    "SignedBy",
    "Trust",
    "Verified",
    "settle_duplicate",
    "spend_ticket",
    "verify_agent_ticket",
    "verify_introduction",
    "verify_order",
    "verify_receipt",
    "verify_report",
    "verify_statement",
    "verify_ticket",
]
