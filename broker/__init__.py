"""The job broker: a project owner's controller (DESIGN §2, §7, §11).

It decides which provider is offered a job, answers claims, keeps logs and results, and says at any time why a job is
not running. The message broker is always called *the bus*.

Where to look:

* `decisions` – pure: the graph, placement, claims, reports, leases, retries, logs, receipts
* `tables`, `store` – the database; every query stands in `store`
* `projects`, `runs` – what people ask for · `sources` – what is to be built
* `providers` – pinned, known, spoken with · `dispatch` – the way out · `ingest` – the way in · `logs`
* `api` – HTTP · `pages` – for browsers · `controller`, `wiring` – all of it put together
"""
