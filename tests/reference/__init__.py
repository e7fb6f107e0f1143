"""Implementations that exist only to be compared with."""
