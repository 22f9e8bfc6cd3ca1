import numpy as np
import pytest

from bench.jobs.fits import Fits, load, save
from bench.plan.plugins import load_plugin
from methods import METHODS
from tasks import load_task

COUNTING = """
from methods.base import Method
import numpy as np

class Counting(Method):
    '''Counts its fits.'''
    name = "counting"
    fits = 0

    def fit(self, data, seed):
        type(self).fits += 1
        self.mean = np.asarray(data.X).mean(0)
        self.history = {"loss": [2.0, 1.0]}
        self.unconverged = "stopped early"
        self.note("a remark")
        return self

    def embed(self, data):
        return np.asarray(data.X) - self.mean

    def state(self):
        return {"mean": self.mean, "names": ["a", "b"], "number": 3}

    def restore(self, state):
        assert state["names"] == ["a", "b"] and state["number"] == 3
        self.mean = state["mean"]
"""


@pytest.fixture
def counting(plugin):
    load_plugin(f"{plugin(COUNTING, 'counting.py')}:Counting")
    from methods import METHODS

    return METHODS["counting"]


@pytest.fixture(scope="module")
def data():
    task = load_task("reembedding/pancancer-sim", "smoke")
    return task.training_data(task.units()[0], 0)


def test_a_fit_is_made_once_and_comes_back_as_it_was(counting, data, tmp_path):
    counting.fits = 0
    first = Fits(tmp_path)
    made = first.of("counting", {}, 0)(data)
    second = Fits(tmp_path)
    stored = second.of("counting", {}, 0)(data)
    assert counting.fits == 1
    np.testing.assert_array_equal(made.embed(data), stored.embed(data))
    assert second.history == {"loss": [2.0, 1.0]}
    assert second.warnings == {"stopped early"}
    assert second.log == first.log == ["a remark"]
    assert second.seconds == first.seconds  # what the fit took when it was made


def test_another_seed_or_other_data_is_another_fit(counting, data, tmp_path):
    counting.fits = 0
    Fits(tmp_path).of("counting", {}, 0)(data)
    Fits(tmp_path).of("counting", {}, 1)(data)
    Fits(tmp_path).of("counting", {}, 0)(data[:-1].copy())
    changed = data.copy()
    changed.X[0, 0] += 1
    Fits(tmp_path).of("counting", {}, 0)(changed)
    assert counting.fits == 4


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_spoilt_file_is_fitted_anew(counting, data, tmp_path, content):
    Fits(tmp_path).of("counting", {}, 0)(data)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(content)
    counting.fits = 0
    Fits(tmp_path).of("counting", {}, 0)(data)
    assert counting.fits == 1
    Fits(tmp_path).of("counting", {}, 0)(data)
    assert counting.fits == 1


def flipped(file, data):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def of_another_seed(file, data):
    """A whole file of another fit under this one's name."""
    Fits(file.parent).of("counting", {}, 1)(data)
    (other,) = set(file.parent.glob("*.safetensors")) - {file}
    other.replace(file)


def of_another_program(file, data):
    from safetensors.numpy import save_file

    save_file({"mean": np.zeros(3)}, file, metadata={"about": "{}"})


@pytest.mark.parametrize("spoil", [flipped, of_another_seed, of_another_program])
def test_a_whole_file_of_other_content_is_fitted_anew(counting, data, tmp_path, spoil):
    made = Fits(tmp_path).of("counting", {}, 0)(data)
    (file,) = tmp_path.glob("*.safetensors")
    spoil(file, data)
    counting.fits = 0
    again = Fits(tmp_path).of("counting", {}, 0)(data)
    assert counting.fits == 1
    np.testing.assert_array_equal(made.embed(data), again.embed(data))


def test_without_a_directory_nothing_is_kept(counting, data, tmp_path):
    counting.fits = 0
    for _ in range(2):
        Fits(None).of("counting", {}, 0)(data)
    assert counting.fits == 2


@pytest.mark.parametrize("name", ["pca", "fastica", "random-projection", "vae", "no-change"])
def test_registered_methods_come_back_bit_for_bit(name, data, tmp_path):
    from dataclasses import asdict

    from methods import METHODS

    config = asdict(METHODS[name].configure("smoke"))
    made, stored = (Fits(tmp_path).of(name, config, 0)(data) for _ in range(2))
    assert made is not stored
    for ability in ("embed", "predict"):
        if hasattr(made, ability):
            arguments = (data, "tumor") if ability == "predict" else (data,)
            np.testing.assert_array_equal(getattr(made, ability)(*arguments), getattr(stored, ability)(*arguments))
    assert made.history == stored.history


def test_what_fit_does_not_read_shares_the_fit(data, tmp_path):
    first, second, third = (Fits(tmp_path) for _ in range(3))
    for fits, config in ((first, {}), (second, {"shift": "regression"}), (third, {"n_latent": 3})):
        fitted = fits.of("pca", METHODS["pca"].configure(**config).__dict__, 0)(data)
        assert fitted.config.shift == config.get("shift", "mean")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_history_of_numpys_numbers_is_stored(tmp_path):
    method = METHODS["pca"]()
    method.history = {"loss": [np.float32(2.0), float("nan")]}
    save(method, 1.0, tmp_path / "fit.safetensors")
    again = METHODS["pca"]()
    assert load(again, tmp_path / "fit.safetensors") == 1.0
    assert again.history["loss"][0] == 2.0
    assert np.isnan(again.history["loss"][1])
