"""The contract, without any edge: bytes in, values out."""
