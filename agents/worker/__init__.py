"""A hardware owner's daemon: takes one job for each free slot, runs it once, says what came of it and what it used.

* `orders` – what it is told, and whether it listens: taken, verified, admitted, claimed or refused
* `jobs` – the life of a granted job
* `speech` – what it says, kept until it is settled
* `journal` – what it must not forget: claims, reports, outbox in one SQLite file, logs in files
* `lending`, `labels`, `equipment`, `stores`, `tenancy` – what this machine offers, and to whom
* `services`, `settings`, `setup`, `status`, `wiring` – how it is put together

The pure decisions are `orders.admission`, `jobs.lease`, `jobs.ending`, `jobs.metering` and `labels`. The worker has no
database library and no web framework: boards without wheels must manage it (DESIGN §3).
"""
