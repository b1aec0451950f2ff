"""What of this machine and of its roles' directories is right, and how to mend the rest.

* `findings` – what a check says, and what the whole says
* `machine`, `bus`, `sandbox`, `clocks` – this machine
* `roles` – a role's data directory, as its settings describe it
* `neighbours` – the parties that a role talks to: issuers, desk, RabbitMQ
* `examination` – which checks there are; runs them side by side, each with a deadline
* `screen` – for people and for machines

A check looks at facts and changes nothing that matters: at most it binds a free port for a moment, takes a token that
it throws away, and runs one job that does nothing. What facts mean is decided by pure functions.
"""
