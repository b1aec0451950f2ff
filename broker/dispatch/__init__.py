"""The way out: from a job that is ready to a signed order at a provider's bus (DESIGN §7.1).

* `dispatcher` – graph, placement, attempt and outbox row in one transaction · `order_building` – what an order says
* `uploads` – large snapshots go to the store first · `outgoing` – the outbox on its way to each bus
* `undelivered` – what follows when a bus does not take a job
"""
