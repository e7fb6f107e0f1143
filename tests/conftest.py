"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run, and no verdict about time: the machine may be busy.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")
