"""What a model is asked in zero-shot evaluation: continuations of contexts, as token ids."""

import hashlib
import struct
from collections.abc import Sequence

Request = tuple[list[int], list[int]]
"""Tokens of a context, and tokens of a continuation of it; neither is empty."""

LogLikelihood = tuple[float, bool]
"""Sum of a continuation's log-probabilities (nats), and whether each token is the likeliest."""


def requests_hash(requests: Sequence[Request]) -> str:
    """SHA-256 over requests, each as its two lengths and its tokens, all little-endian int64."""
    digest = hashlib.sha256()
    for context, continuation in requests:
        numbers = [len(context), len(continuation), *context, *continuation]
        digest.update(struct.pack(f"<{len(numbers)}q", *numbers))
    return digest.hexdigest()
