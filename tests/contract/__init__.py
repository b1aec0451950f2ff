"""Contracts with the world: a real RabbitMQ, a real sandbox."""
