"""Directories of the tests: fresh ones, and the one with the original files."""

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> ModuleType:
    """Return the module of the tiny data set; data and cache directory are fresh."""
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "builds.log"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("tasks.datasets.catalogue.RETRIES", 0)  # else each failed download waits some seconds
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return import_module("tiny_loader")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory of the original files, or skip."""
    shared = Path(__file__).parents[4] / "shared" / "data"
    chosen = Path(os.environ.get("BENCH_DATA_DIR", shared))
    if not (chosen / "raw").is_dir():
        pytest.skip(f"{chosen} has no original files: set BENCH_DATA_DIR to a directory that has them")
    return chosen
