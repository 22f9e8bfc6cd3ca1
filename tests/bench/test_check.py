"""``bench check`` finds each planted fault, says what to do, and finds none in the method without it."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from bench.new import new
from bench.plan.plugins import load_plugin
from bench.studies.check import CheckFailed, Subject, check
from bench.studies.check.checks import (
    TIMED,
    another_seed,
    cells_alone,
    config_sources,
    decoding,
    extremes,
    presets,
    speed,
)
from methods.base import Method
from tests.bench.test_docs import example

#: Of each fault: code added to the class that ``bench new method`` writes, the check that finds it, and what is said.
FAULTS = {
    "state_changed_by_embed": (
        """
        centre = 0.0

        def embed(self, data):
            codes = super().embed(data)
            self.centre = 0.9 * self.centre + 0.1 * codes.mean(axis=0)
            return codes - self.centre
        """,
        "embed again",
        "nor update what fit has learned",
    ),
    "different_for_the_same_seed": (
        """
        def fit(self, data, seed):
            import secrets

            return super().fit(data, secrets.randbits(31))
        """,
        "same seed",
        "draw every random number from the seed",
    ),
    "leak_through_a_cache": (
        """
        seen = {}

        def fit(self, data, seed):
            from methods.base import column
            from methods.groups import group_means

            self.seen.update(group_means(data.X, column(data, "environment"), column(data, "content")))
            return super().fit(data, seed)

        def predict(self, data, target_environment):
            from methods.base import column

            out = super().predict(data, target_environment)
            for i, content in enumerate(column(data, "content")):
                out[i] = self.seen.get((target_environment, content), out[i])
            return out
        """,
        "no leak",
        "remember nothing in the class, the module or a file",
    ),
    "nan_codes": (
        """
        def embed(self, data):
            import numpy as np

            codes = super().embed(data)
            return np.where(codes > 0, codes, np.nan)
        """,
        "codes",
        "embed returns NaN or infinite codes",
    ),
    "codes_in_the_wrong_order": (
        """
        def embed(self, data):
            return super().embed(data)[data.X.sum(axis=1).argsort()]
        """,
        "order of cells",
        "return row i for cell i",
    ),
    "dropout_left_on": (
        """
        def settle(self, data):
            super().settle(data)
            self.network.train()
        """,
        "cells alone",
        "turn off dropout and batch statistics (network.eval() at the end of fit)",
    ),
    "ignored_seed": (
        """
        def fit(self, data, seed):
            return super().fit(data, 0)
        """,
        "another seed",
        "seeds 0 and 1 give the same embed and predict",
    ),
    "unsaved_parameter": (
        """
        offset = 0.0

        def settle(self, data):
            super().settle(data)
            self.offset = data.X.std(axis=0) * 0.1

        def predict(self, data, target_environment):
            return super().predict(data, target_environment) + self.offset

        def state(self):
            return super().state()

        def restore(self, state):
            super().restore(state)
            self.offset = 0.0
        """,
        "save and load",
        "put all that embed and predict read into state()",
    ),
    "wrong_scale_of_predictions": (
        """
        def predict(self, data, target_environment):
            import numpy as np

            return np.expm1(super().predict(data, target_environment))
        """,
        "predictions",
        "return expression on the scale of data.X (log1p of counts per 10,000)",
    ),
    "a_global_rng": (
        """
        def fit(self, data, seed):
            import numpy as np

            np.random.seed(seed)
            data = data.copy()
            data.X += np.random.normal(0, 0.1, data.shape).astype("float32")
            return super().fit(data, seed)
        """,
        "global random state",
        "the global random state of numpy.random is not what it was before",
    ),
}


@pytest.fixture
def planted(tmp_path):
    """The file that ``bench new method`` writes, with code added to its class, as what is checked."""

    def plant(name, code=""):
        file = new("method", name, tmp_path)
        with file.open("a") as stream:
            stream.write(textwrap.indent(textwrap.dedent(code), "    "))
        address = f"{file}:{''.join(part.capitalize() for part in name.split('_'))}"
        return Subject(load_plugin(address), plugins=(address,))

    return plant


def own(cls):
    """A class of a test as what is checked; nothing is registered."""
    subject = Subject("pca")
    subject.cls, subject.name = cls, cls.name
    subject.config = cls.configure("smoke")
    return subject


def failures(subject):
    return {one.check: one.remark for one in check(subject) if one.status == "failed"}


def test_the_method_without_a_fault_passes(planted):
    outcomes = list(check(planted("without_a_fault")))
    assert [one for one in outcomes if one.status != "passed"] == []
    assert {one.check for one in outcomes} >= {caught for _, caught, _ in FAULTS.values()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, planted):
    code, caught, said = FAULTS[fault]
    found = failures(planted(fault, code))
    assert caught in found, found
    assert said in found[caught]
    assert "\n" not in found[caught]


def test_the_method_in_the_docs_passes(tmp_path):
    name, text = example("adding_a_method.md")
    (tmp_path / name).write_text(text)
    address = f"{tmp_path / name}:GeneMean"
    outcomes = {one.check: one for one in check(Subject(load_plugin(address), plugins=(address,)))}
    assert {one.status for one in outcomes.values()} == {"passed", "not applicable"}
    assert outcomes["save and load"].status == "passed"
    assert outcomes["predictions"].remark == "it has no predict"


def test_a_fit_that_raises_is_one_failure_that_names_the_line(planted):
    subject = planted("no_fit", "def fit(self, data, seed):\n    return {}['lost']\n")
    outcomes = list(check(subject))
    assert [one.check for one in outcomes if one.status == "failed"] == ["fit"]
    assert outcomes[-1].check == "fit"
    n_lines = len(Path(subject.plugins[0].partition(":")[0]).read_text().splitlines())
    assert outcomes[-1].remark.startswith(f"it raised KeyError: 'lost' in line {n_lines} of no_fit.py; mend it")


def test_a_refusal_of_ordinary_data_is_a_failure(planted):
    code = """
    def fit(self, data, seed):
        from methods.errors import CannotFit

        raise CannotFit("needs 1000 cells")
    """
    outcomes = list(check(planted("refuses", code)))
    assert (outcomes[-1].check, outcomes[-1].status) == ("fit", "failed")
    assert outcomes[-1].remark == (
        "ordinary data (280 cells of 60 genes, log-normalised and with counts) are refused: needs 1000 cells; "
        "mend what makes it refuse them"
    )


def test_a_method_whose_package_is_not_installed_is_skipped(inside, planted):
    subject = planted("elsewhere", "def fit(self, data, seed):\n    import no_such_package\n")
    outcomes = list(check(subject))
    assert [(one.check, one.remark) for one in outcomes if one.status == "skipped"] == [
        ("fit", "No module named 'no_such_package'")
    ]
    done = inside("check", *subject.plugins)
    assert done.returncode == 0
    assert "elsewhere: skipped" in done.stdout


def test_codes_that_are_laid_out_together_are_no_fault_of_a_method_that_says_so(planted):
    code = "def embed(self, data):\n    codes = super().embed(data)\n    return codes - codes.mean(axis=0)\n"
    assert "cells alone" in failures(planted("laid_out", code))
    assert "cells alone" not in failures(planted("says_so", f"embeds_together = True\n\n{code}"))


class Plain(Method):
    """A code without chance."""

    name = "plain"

    def fit(self, data, seed):
        self.axes = np.linalg.svd(data.X, full_matrices=False)[2][:3]
        return self

    def embed(self, data):
        return data.X @ self.axes.T


def test_a_method_without_chance_need_not_use_its_seed():
    from bench.studies.check import NotApplicable

    with pytest.raises(NotApplicable, match="right for a method without chance"):
        another_seed(own(Plain))


def test_a_preset_that_nobody_knows():
    class Hasty(Plain):
        presets = {"quick": {}}  # noqa: RUF012

    with pytest.raises(CheckFailed, match="presets has quick: only smoke, default, paper are known"):
        presets(own(Hasty))


def test_a_default_that_does_not_say_where_it_comes_from():
    from dataclasses import dataclass

    class Bare(Plain):
        @dataclass(frozen=True)
        class Config:
            n_latent: int = 3

    with pytest.raises(CheckFailed, match=r"do not say where they come from \(n_latent\)"):
        config_sources(own(Bare))


def test_codes_of_jobs_that_are_centred_on_each_other():
    class Centred(Plain):
        def embed(self, data):
            return (data.X - data.X.mean(axis=0)) @ self.axes.T

    cells_alone(own(Plain))
    with pytest.raises(CheckFailed, match="centre on the training cells"):
        cells_alone(own(Centred))


def test_decoded_genes_in_another_order():
    class Decoder(Plain):
        def decode(self, codes):
            return codes @ self.axes

    class Reversed(Decoder):
        def decode(self, codes):
            return super().decode(codes)[:, ::-1]

    decoding(own(Decoder))
    with pytest.raises(CheckFailed, match="genes in their order"):
        decoding(own(Reversed))


def test_nonsense_of_extreme_data():
    class Scaled(Plain):
        def embed(self, data):
            with np.errstate(all="ignore"):
                return super().embed(data) / data.X.std(axis=0).sum()

    assert extremes(own(Scaled), "five cells") == "works"
    with pytest.raises(CheckFailed, match=r"one cell: codes .* not finite: mend it, or refuse such data in fit"):
        extremes(own(Scaled), "one cell")


def test_speed_is_measured_against_the_plain_vae(monkeypatch):
    assert speed(own(Plain)).endswith("s")
    clock = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    from bench.studies.check import checks

    checks._seconds_of.cache_clear()
    with pytest.raises(CheckFailed, match=r"1 s, 1 times the plain VAE's 1 s at the same epochs: look for a loop"):
        speed(own(Plain), absurd=0.5, bearable=0.5)
    checks._seconds_of.cache_clear()
    assert TIMED > 3


def test_the_command_fails_with_one_line_for_each_failure(inside, plugin):
    file = plugin(
        """
from methods.linear import PCA

class Doubled(PCA):
    \"\"\"PCA whose predictions are twice what they should be.\"\"\"
    name = "doubled"
    def predict(self, data, target_environment):
        return 2 * super().predict(data, target_environment)
"""
    )
    done = inside("check", f"{file}:Doubled", "random-projection")
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("predictions:"))
    assert "times the mean of the cells that they are of" in line
    assert "doubled: 1 failed" in done.stdout
    assert "random-projection: " in done.stdout
    assert "Traceback" not in done.stderr


def test_a_name_that_is_not_known_is_a_usage_error(inside):
    done = inside("check", "pcaa")
    assert done.returncode == 2
    assert "did you mean 'pca'" in done.stderr
