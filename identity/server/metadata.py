"""What this issuer says of itself (OpenID Connect Discovery 1.0 §3, RFC 8414 §2): one document at both places.

`authorization_endpoint` is left out: nobody logs in here with a browser, and RFC 8414 asks for it only where a grant
type uses it. RS256, which OpenID Connect wants of every provider, is not offered: nothing of fedci would accept it.
"""

from typing import Any

OPENID_PATH = "/.well-known/openid-configuration"
OAUTH_PATH = "/.well-known/oauth-authorization-server"
TOKEN_PATH = "/token"  # noqa: S105  # a path
REVOKE_PATH = "/revoke"
INTROSPECT_PATH = "/introspect"
JWKS_PATH = "/jwks"
RETIRED_PATH = "/keys/retired"
REVOCATIONS_PATH = "/revocations"

_BASIC = ["client_secret_basic"]


def describe(iss: str) -> dict[str, Any]:
    return {
        "issuer": iss,
        "token_endpoint": iss + TOKEN_PATH,
        "token_endpoint_auth_methods_supported": _BASIC,
        "revocation_endpoint": iss + REVOKE_PATH,
        "revocation_endpoint_auth_methods_supported": _BASIC,
        "introspection_endpoint": iss + INTROSPECT_PATH,
        "introspection_endpoint_auth_methods_supported": _BASIC,
        "jwks_uri": iss + JWKS_PATH,
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["Ed25519"],
        "dpop_signing_alg_values_supported": ["Ed25519"],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti", "cnf"],
        "fedci_revocations_uri": iss + REVOCATIONS_PATH,
        "fedci_retired_keys_uri": iss + RETIRED_PATH,
    }
