"""Bit-exact simulator of adaptation, written from docs/numerics.md."""

from __future__ import annotations

from pmeta.host.simulator.simulator import SampleResult, Simulator

__all__ = ["SampleResult", "Simulator"]
