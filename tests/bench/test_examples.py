"""The examples are run as they stand, from a directory of their own."""

import subprocess
import sys

import pandas as pd
import pytest

from tests.bench.conftest import ROOT, process_environment

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_example(tmp_path, example):
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=process_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "vae@n_latent=5" in done.stdout
    rows = pd.read_parquet(tmp_path / "runs" / "example" / "results.parquet")
    assert set(rows["status"]) == {"ok"}
