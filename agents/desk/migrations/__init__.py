"""Alembic revisions of the desk's database, in `versions`; run by `runtime.migrations`."""
