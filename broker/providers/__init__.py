"""The providers of this controller: introduced and pinned, known, and spoken with (DESIGN §4, §6, §10).

* `pinning` – introduce, add, refresh cards · `book` – what is known now · `sessions` – one at each bus
* `stores` – tabs at their stores · `costs` – what usage comes to by their rate cards
"""
