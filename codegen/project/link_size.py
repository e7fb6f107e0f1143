"""Bytes of RAM that the link needs on the device: the size of `struct link_state` in firmware_templates/link/link.c.

The C compiler checks this figure: link.c does not compile where it is wrong.
"""

from __future__ import annotations

LINK_MAX_PAYLOAD = 240  # bytes; with header and CRC a frame of 253, the longest that COBS lengthens by one byte only

_BUFFER_BYTES = LINK_MAX_PAYLOAD + 9 + 4 + 3  # header, CRC-32; COBS code byte and the 0x00 at both ends
_FIXED_BYTES = 20  # session, request CRC, adaptation id (2 words), sequence, reply length


def link_state_bytes(sample_bytes: int, ways: int, regression: bool = False) -> int:
    """sizeof(struct link_state): logits, target (in regression), fixed members, sample, both buffers, rounded up to 8.

    The same on every target: no member is wider than 4 bytes, and none is a pointer.
    """
    exact = 4 * ways * (2 if regression else 1) + _FIXED_BYTES + sample_bytes + 2 * _BUFFER_BYTES
    return (exact + 7) // 8 * 8
