"""A short form of the fault campaign in tests/faults, which ``make faults`` runs whole."""

import random
import shutil

import pytest

from tests.faults.campaign import KINDS, WAYS, Bench, assert_same, corrupt, kill_at_random


@pytest.mark.slow
def test_kills_and_corrupt_files_change_no_row(tmp_path):
    bench = Bench(tmp_path, 1, environment={"BENCH_CACHE_DIR": str(tmp_path / "cache")})
    undisturbed = bench.finish()
    assert undisturbed["job_id"].nunique() == 22
    shutil.rmtree(bench.out)
    kills = kill_at_random(bench, n_workers=6, n_heads=2, seed=1)
    assert kills.workers >= 6
    assert kills.heads >= 2
    rng = random.Random(0)
    for kind in KINDS:
        corrupt(bench, [kind], rng.choice(list(WAYS)), rng)
    assert_same(bench.finish(), undisturbed)
