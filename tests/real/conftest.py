"""Real weights, real text, and what the paper's released code made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("DASS_REAL") or Path(__file__).parents[2] / "../shared/data/real")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real weights and text; tests that need it are skipped where it is missing."""
    if not (REAL / "golden").is_dir():
        pytest.skip(f"no real weights and text in {REAL}; name their folder in DASS_REAL")
    return REAL
