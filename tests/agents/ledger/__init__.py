"""Tests of agents/ledger that need neither RabbitMQ nor a sandbox."""
