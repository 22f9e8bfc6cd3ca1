"""A program that reads and writes h5ad: what it is handed, what comes back, and how it may end."""

import sys
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from methods.errors import CannotFit, ConfigError
from methods.program import Decodes, Embeds, Predicts, Program, ProgramError

#: A program that needs h5py and numpy alone: codes are the mean of all genes, times the configured factor.
MAIN = """
import json, os, sys
import h5py, numpy as np

action, words = sys.argv[1], sys.argv[2:]
asked = {key[2:]: value for key, value in zip(words[::2], words[1::2])}

def strings(group, name):
    return np.array([text.decode() for text in group[name][:]])

def write(file, x=None, codes=None, names=()):
    with h5py.File(file, "w") as out:
        out.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("obs", "var"):
            frame = out.create_group(name)
            index = names if name == "obs" else [f"g{i}" for i in range(0 if x is None else x.shape[1])]
            frame.create_dataset("_index", data=list(map(str, index)), dtype=h5py.string_dtype())
            frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            frame.attrs.create("column-order", [], dtype=h5py.string_dtype())
        if x is not None:
            out["X"] = x
        if codes is not None:
            out["obsm/codes"] = codes

with h5py.File(asked["data"]) as data:
    names = strings(data["obs"], "_index")
    if action == "fit":
        config = json.load(open(asked["config"]))
        about = [config["factor"], asked["seed"], data["uns/control"][()].decode()]
        json.dump(about, open(asked["model"] + "/a.json", "w"))
        os.mkdir(asked["model"] + "/deep")
        open(asked["model"] + "/deep/empty", "w").close()
        print("fitted", file=sys.stderr)
    else:
        factor, seed, control = json.load(open(asked["model"] + "/a.json"))
        assert open(asked["model"] + "/deep/empty").read() == ""
    if action == "embed":
        write(asked["out"], codes=factor * data["X"][:].mean(axis=1, keepdims=True), names=names)
    if action == "predict":
        assert asked["environment"] in strings(data["obs"], "environment") and control == "control"
        write(asked["out"], data["X"][:] + 1, names=names)
    if action == "decode":
        write(asked["out"], np.repeat(data["obsm/codes"][:], 30, axis=1) / factor, names=names)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that makes a program's class of a script's text."""

    def make(text, *abilities, interpreter=sys.executable):
        (tmp_path / "main.py").write_text(text)

        class Mine(*abilities or (Embeds, Predicts, Decodes)):
            """A program of a test."""

            name = "mine"
            command = (interpreter, "main.py")

            @dataclass(frozen=True)
            class Config:
                factor: float = 2.0

        monkeypatch.setattr(Mine, "_beside", classmethod(lambda cls, part: tmp_path / part))
        return Mine

    return make


def test_a_fit_is_all_that_later_calls_know_of(program, structured, capfd):
    cls = program(MAIN)
    assert cls.abilities() == {"embed", "predict", "decode"}
    fitted = cls(cls.configure(factor=3)).fit(structured, 7)
    assert "fitted" in capfd.readouterr().err
    files = {name: bytes(content) for name, content in fitted.model.items()}
    assert files == {"a.json": b'[3.0, "7", "control"]', "deep/empty": b""}
    restored = cls(fitted.config)
    restored.restore(fitted.state())
    codes = restored.embed(structured)
    np.testing.assert_allclose(codes, 3 * structured.X.mean(axis=1, keepdims=True), rtol=1e-5)
    assert codes.dtype == np.float32
    np.testing.assert_allclose(restored.predict(structured, "stimulated"), structured.X + 1, rtol=1e-6)
    np.testing.assert_allclose(restored.decode(codes), np.repeat(codes, 30, axis=1) / 3, rtol=1e-6)


def test_a_model_s_file_may_not_lead_out_of_its_directory(program):
    for name in ("../a", "/a", "deep/../../a"):
        stored = program(MAIN)()
        stored.n_genes, stored.model = 3, {name: np.zeros(1, np.uint8)}
        with pytest.raises(ProgramError, match="not in its directory"):
            program(MAIN)().restore(stored.state())


def test_what_it_is_handed_is_plain(program, structured, tmp_path):
    kept = tmp_path / "kept.h5ad"
    cells = structured.copy()
    cells.layers["counts"] = np.round(np.expm1(np.abs(cells.X)))
    cells.obs.index = cells.obs.index.astype("string")  # as pandas 3 makes it
    program(f"import shutil, sys; shutil.copy(sys.argv[3], {str(kept)!r})")().fit(cells, 0)
    kinds = {}
    with h5py.File(kept) as file:
        file.visititems(lambda name, item: kinds.update({name: item.attrs.get("encoding-type", "")}))
        assert set(kinds.values()) <= {"array", "string-array", "string", "dict", "dataframe"}
        assert {"X", "layers/counts", "obs/environment", "obs/content", "uns/control", "uns/X_units"} <= set(kinds)
        assert (kinds["obs/environment"], kinds["obs/content"], kinds["X"]) == ("string-array", "string-array", "array")
        assert list(file["obs"].attrs["column-order"]) == ["environment", "content"]
        np.testing.assert_array_equal(file["X"][:], structured.X)
        assert file["uns/X_units"][()].decode() == "log1p of counts per 10,000"
        assert [text.decode() for text in file["obs/environment"][:4]] == ["control", "stimulated"] * 2


SAYS = "import sys\nprint('first', file=sys.stderr)\nprint('second\\n', file=sys.stderr)\nsys.exit({code})"


def test_how_a_program_ends(program, structured):
    with pytest.raises(CannotFit, match=r"^second$"):
        program(SAYS.format(code=3))().fit(structured, 0)
    with pytest.raises(ProgramError, match=r"main.py fit ended with code 4; last on stderr: first\nsecond$"):
        program(SAYS.format(code=4))().fit(structured, 0)
    with pytest.raises(ProgramError, match=r"fit ended by signal 9; last on stderr: nothing$"):
        program("import os; os.kill(os.getpid(), 9)")().fit(structured, 0)
    with pytest.raises(CannotFit, match=r"mine cannot be started: No such file or directory \(nothing-of-this-name\)"):
        program("", interpreter="nothing-of-this-name")().fit(structured, 0)


WRITES = """
import sys
if sys.argv[1] != "fit":
    import anndata, numpy as np
    cells = anndata.read_h5ad(sys.argv[3])
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pass", "embed ended well but wrote no file --out"),
        ("open(sys.argv[-1], 'w').write('text')", "embed wrote an --out that is no h5ad file"),
        ("cells.write_h5ad(sys.argv[-1])", r"embed wrote no obsm\['codes'\]; in obsm there is nothing"),
        (
            "cells.obsm['codes'] = np.full((300, 2), np.nan); cells.write_h5ad(sys.argv[-1])",
            r"wrote obsm\['codes'\] with 600 of 600 values not finite numbers",
        ),
        (
            "cells = cells[:9].copy(); cells.obsm['codes'] = np.ones((9, 2)); cells.write_h5ad(sys.argv[-1])",
            "embed wrote 9 cells; 300 are needed",
        ),
        (
            "cells = cells[::-1].copy(); cells.obsm['codes'] = np.ones((300, 2)); cells.write_h5ad(sys.argv[-1])",
            "embed wrote the cells in another order",
        ),
        (
            "cells.obsm['codes'] = np.ones((300, 0)); cells.write_h5ad(sys.argv[-1])",
            r"wrote obsm\['codes'\] of shape \(300, 0\); \(n_cells, n_codes\) is needed",
        ),
    ],
)
def test_what_it_wrote_is_checked(program, structured, line, message):
    fitted = program(WRITES + "    " + line)().fit(structured, 0)
    with pytest.raises(ProgramError, match=message):
        fitted.embed(structured)


def test_a_prediction_of_other_genes_is_refused(program, structured):
    fitted = program(WRITES + "    cells[:, :4].copy().write_h5ad(sys.argv[-1])")().fit(structured, 0)
    with pytest.raises(ProgramError, match=r"predict wrote X of shape \(300, 4\); \(n_cells, 30\) is needed"):
        fitted.predict(structured, "control")


def test_it_starts_in_an_empty_directory_without_what_is_python_s_alone(program, structured, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    program("import os; assert not os.listdir() and 'PYTHONPATH' not in os.environ")().fit(structured, 0)


def test_results_depend_on_the_files_of_the_command(program):
    first = program(MAIN).depends()
    assert program(MAIN).depends() == first
    assert program(MAIN + "\n").depends() != first


@pytest.mark.parametrize("command", [None, "Rscript main.R", ()])
def test_a_command_is_words(command):
    class Mine(Program):
        name = "mine"

    Mine.command = command
    with pytest.raises(ConfigError, match="words are needed, as in"):
        Mine.configure()
