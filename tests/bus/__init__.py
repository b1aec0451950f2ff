"""What the bus decides without a broker."""
