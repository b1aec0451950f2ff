"""End to end: a real RabbitMQ, every role a process of its own, real sandboxes; nothing is played but the people."""
