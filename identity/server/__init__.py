"""An identity server: an OAuth 2.0 and OpenID Connect issuer for the accounts of one operator (DESIGN §4).

It trades an account's API token for short-lived ID tokens, each for one audience and bound to the holder's Ed25519 key.
It knows nothing of providers, controllers or jobs, and while a job runs nobody asks it anything: its word is signed.

* `settings`, `wiring` – the commented file, and the process
* `tables`, `store` – the database, and every query
* `api_tokens`, `proofs`, `claims`, `jwts` – the secret, the proof of the key, the token, its form: pure
* `logins`, `failures` – who may speak, and how fast somebody may guess
* `authorization`, `grants`, `token_endpoints` – the flows, on Authlib's core
* `key_files`, `signing_keys` – the issuer's own keys and their rotation
* `revocations`, `metadata` – what verifiers read
* `administration`, `housekeeping` – what the operator does at the command line, and what the server does by itself
* `application` – the HTTP face
"""
