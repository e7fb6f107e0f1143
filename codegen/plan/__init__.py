"""Plan: which buffer lives when, and at which byte of the arena."""
