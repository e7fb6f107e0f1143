"""Two independent implementations of one thing, compared."""
