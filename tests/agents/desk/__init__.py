"""Tests of agents/desk that need neither RabbitMQ nor a sandbox."""
