"""A provider's artifact store (DESIGN §10).

* `admission` – what a ticket opens, and what a tab may read, write and name; pure
* `ranges` – which part of a blob a request asks for; pure
* `metering` – from transfers and stored hours to usage facts; pure
* `disk` – blobs and unfinished uploads as files; blocking, called in threads
* `tabs` – tickets in, tabs out; who is asking; the end of a tab
* `uploads`, `downloads`, `naming` – what goes through an open tab
* `billing` – states usage into the outbox, in the transaction of its effect
* `sweeper` – what happens by itself: ended tabs, metered hours, expired blobs, orphans
* `app` – the HTTP face; `tables`, `store` – the database; `settings`, `setup`, `wiring` – how it is put together
"""
