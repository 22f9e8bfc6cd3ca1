"""Where this program keeps files that it can make again."""

from __future__ import annotations

import os
from pathlib import Path

APPLICATION = "disentanglement-ood-bench"


def user_cache() -> Path:
    """Return this program's directory in the user's cache."""
    import platformdirs

    return Path(platformdirs.user_cache_dir(APPLICATION))


def cache_directory(name: str) -> Path:
    """Return the directory ``name`` in ``BENCH_CACHE_DIR``, else in the user's cache; it may not exist yet."""
    chosen = os.environ.get("BENCH_CACHE_DIR")
    return (Path(chosen).expanduser() if chosen else user_cache()) / name
