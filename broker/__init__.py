"""The job broker: a project owner's controller (DESIGN §2, §7, §11).

It decides which provider is offered a job, answers claims, keeps logs and results, and says at any time why a job is
not running. The message broker is always called *the bus*.

Where to look:

* `decisions` – pure: the graph, placement, claims, reports, leases, retries, logs, receipts
* `tables`, `store` – the database; every query stands in `store`
* `runs`, `dispatch`, `ingest`, `providers`, `lease_watch`, `sources`, `logs` – the services
* `api` – HTTP; `wiring` – builds all of it from the settings
"""
