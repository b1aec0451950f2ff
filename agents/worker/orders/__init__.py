"""What a worker is told, and whether it listens: taken, verified, admitted, claimed or refused (DESIGN §7.2).

* `slots` – one life each · `claims` – from a delivery to a claim · `admission` – pure · `refuser` – no, and why
* `control` – grant, stand-down, cancel, resend, settled · `origins` – whose exchange it came through
* `handle` – what a waiting claim is told
"""
