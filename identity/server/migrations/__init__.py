"""Alembic revisions of the identity server's database, run by `runtime.migrations`."""
