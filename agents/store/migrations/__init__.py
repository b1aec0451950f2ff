"""Alembic revisions of the store's database, in `versions`; run by `runtime.migrations`."""
