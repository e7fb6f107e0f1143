"""One file per operator: forward and backward in the order docs/numerics.md fixes."""
