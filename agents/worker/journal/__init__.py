"""What a worker must not forget: claims, reports and orders in SQLite, logs in files, until they are settled.

* `claims` – the journal · `file` – its one connection and thread · `outbox` – what is to be sent
* `spool` – the logs, one file a claim
"""
