"""The bus: RabbitMQ and nothing else. Topology, supervised session, provisioner, private node.

Names and keys of exchanges and queues exist in `bus.topology` only. Stands on `schemas` and `runtime`.
"""
