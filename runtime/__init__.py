"""What every role stands on: settings, secrets, clock, logs, start and stop, database,
outbox and HTTP. Imports nothing of ours but `schemas`; modules with heavy dependencies
(`database`, `outbox_table`, `http_*`) are imported only by the roles that have them.
"""
