"""One module at a time: no compiler, no device."""
