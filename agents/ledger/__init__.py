"""A provider's ledger: takes usage facts in, once each, and writes invoices that anybody can check (DESIGN §9).

* `intake` – what one usage event does to the book: new, a repeat, or an alarm; pure
* `chain` – rows chained by hash, so that a changed or missing one shows; pure
* `book` – the service that enters usage facts and receipts; the only writer
* `invoices` – from the book to signed invoices
* `tables`, `store` – the database; `settings`, `wiring` – how it is put together
"""
