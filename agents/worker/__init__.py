"""A hardware owner's daemon: takes one job for each free slot, runs it once, says what came of it and what it used.

Rooms, each importing only those above it:

* pure decisions: `admission` (may this job run here), `lease` (until when may it run), `ending` (why did it end),
  `metering` (what was used), `labels` (what this machine is)
* durable state: `journal` (claims, reports, outbox: one SQLite file), `spool` (the logs, one file a claim)
* services: `voice` (seals what the worker says), `log_stream`, `provisions` (sources, inputs, artifacts), `claims` and
  `life` (the story of one job), `control` (orders that come in meanwhile), `slots`, `recovery` (after a restart)
* adapters and wiring: `settings`, `setup`, `wiring`, `status`

The worker has no database library and no web framework: boards without wheels must manage it (DESIGN §3).
"""
