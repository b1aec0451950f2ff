"""The way in: what providers report, believed, decided and applied (DESIGN §7.2–§7.4).

* `intake` – a batch of replies, one transaction · `reading` – who really said it · `applying` – what it changes
* `granting` – the answer to a claim · `follow_ups` – cancel, settled, resend · `outcomes` – ends, and what comes next
* `settlement` – logs complete, claims settled · `receipts` – usage answered · `lease_watch` – silence, and other clocks
"""
