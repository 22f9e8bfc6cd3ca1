"""What the script for a GPU does on any machine: it must work as it stands where there is one."""

import pytest

from tests.benchmarks import gpu


def test_it_times_steps_by_epochs():
    data = gpu.data_of("expression", 300, 20)
    with gpu.clocked() as ended:
        gpu.fits_of("vae", [data], [0], "one after another", {"steps": 96, "validation": 0.0})
    (epochs,) = ended.values()
    assert [n for _, n in epochs] == [9 * (i + 1) for i in range(len(epochs))], (
        "300 cells are 9 minibatches of 33 or 34"
    )
    assert gpu.milliseconds({"a": [(0.0, 9), (5.0, 18), (5.9, 27), (7.7, 36)]}, 1) == [pytest.approx(150.0)]


def test_stacked_fits_are_timed_beside_single_ones(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "N_CELLS", 120)
    monkeypatch.setattr(gpu, "N_GENES", 20)
    monkeypatch.setattr(gpu, "TOGETHER", 2)
    monkeypatch.setattr(gpu, "STACKED", [("vae", 120, 20, 40, 5)])
    gpu.stacked()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("fits 2 vae, 120 × 20, 40 epochs, each of other cells  together_s ")
