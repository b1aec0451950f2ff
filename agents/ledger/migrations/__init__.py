"""Alembic revisions of the ledger's database, in `versions`; run by `runtime.migrations`."""
