"""The contract between strangers: what goes over the wire, and what it means.

Bytes in, values out. Nothing here reads a file, a socket, a clock or the environment, and nothing here imports
another house of fedci. A value of one of these types says that it is *well-formed*, never that it is *true*: who said
it, to whom, and whether it still holds is decided in `identity.trust`.

Where to look:

* `frame` – the envelope: one signed wrapper around every message (DESIGN §5)
* `orders`, `reports`, `tickets`, `statements` – the four kinds of message
* `registry` – every message type, with its size limit and where its token travels
* `ids`, `wire`, `limits` – the grammar of names, the field types, the numbers with their units
* `refusals` – every reason why something is turned away
* `life`, `ends` – the tables of states, and of who answers for each way a job can end
* `pipeline` – the YAML that a project owner writes
* `pricing` – from usage to an invoice line, the same arithmetic for provider and customer
"""
