"""The provider's front door: card, sessions at the bus, and answers for what could not be delivered (DESIGN §4, §6).

* `policy` – who is let in, held for approval or turned away; pure
* `cards` – the provider's card, made of its agents and the offers of its live workers; pure
* `sessions` – tickets in, short-lived RabbitMQ users out; the only writer of rights at the bus
* `sweeper` – what must end by itself: sessions at their end, users of the revoked, tenants long idle
* `dead_letters` – a signed refusal for every order that found no worker
* `app` – the HTTP face; `tables`, `store` – the database; `settings`, `wiring` – how it is put together
"""
