"""Hash slots of a Redis Cluster: which one a key is in."""

from __future__ import annotations

import binascii

__all__ = ["COUNT", "slot_of"]

#: How many slots a cluster's nodes share.
COUNT = 16_384


def slot_of(key: str | bytes) -> int:
    """The slot of `key`: of what stands in its first `{}`, unless that is nothing or not there.

    >>> slot_of("123456789"), slot_of("{user1000}.following") == slot_of("{user1000}.followers")
    (12739, True)
    """
    # As `resp.pack`: a task id may hold half a surrogate pair.
    raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    if (start := raw.find(b"{")) >= 0 and (end := raw.find(b"}", start + 1)) > start + 1:
        raw = raw[start + 1 : end]
    # The CRC of XMODEM, which Redis uses as well.
    return binascii.crc_hqx(raw, 0) % COUNT
