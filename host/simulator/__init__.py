"""Bit-exact simulator of adaptation, written from docs/numerics.md."""
