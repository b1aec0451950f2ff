"""Who speaks: identity servers, the tokens that they issue, and what is believed of them (DESIGN §4, §5).

* `keys` – Ed25519 signing keys, in files and as JWKs
* `account` – trades an API token for short-lived ID tokens, bound to the holder's key
* `speech` – builds and seals the messages that go out under an account
* `trust` – verifies what comes in: the list of refusals, in its fixed order
* `server` – an identity server; only whoever runs one imports it

All but `server` need neither a database nor a web framework: every role stands on them, the smallest worker included.
"""
