"""Alembic's environment for every house; `runtime.migrations` hands it an open transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
    compare_type=True,
    transactional_ddl=True,  # true of SQLite too, when the driver does not commit on its own
)
with context.begin_transaction():
    context.run_migrations()
