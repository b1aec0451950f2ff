"""What a worker says, and how it gets there: reports, logs and usage.

* `voice` – builds and signs · `post` – sends, and waits for the confirm
* `logs`, `log_stream` – a job's log from the spool to the bus, with back-pressure
"""
