"""Whatever the readers are handed, they answer with a value or with an error that says what is wrong."""

import copy
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from bench.jobs.job import result_of
from bench.keep.store import Store
from bench.plan import choose_methods, choose_own_tasks, choose_tasks, make_plan
from bench.plan.plugins import PluginError, load_plugin
from bench.records import PlanError, Status
from methods.errors import ConfigError
from metrics import UnknownName
from tasks import load_task
from tasks.datasets import DataError
from tasks.datasets.base import Fields
from tasks.datasets.checks import check_expression, check_fields

quick = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store with the result of one job, and the result."""
    specs, plugins = choose_methods("pca", "smoke", [])
    job = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs[0]
    store = Store(tmp_path_factory.mktemp("out"))
    result = result_of(
        job, Status.OK, "", scores={"displacement": 0.5, "knn_recall": 0.25}, curves={"loss": [2.0, 1.0]}
    )
    return store, result


@settings(quick, max_examples=60)
@given(content=json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=300))
def test_what_is_no_result_is_none(stored, content):
    store, result = stored
    job_id = result.job.id
    for file in (store.file(job_id), store.out / "index.json"):
        file.write_bytes(content)
    assert store.read(job_id) is None
    assert store.finished(job_id) is None
    assert store.index() == {}
    assert len(store.gather().rows) == 0


@settings(quick, max_examples=60)
@given(data=st.data())
def test_a_result_that_was_changed_makes_no_row(stored, data):
    """Changed as text, in any place, or as JSON, in any value."""
    store, result = stored
    file = store.file(result.job.id)
    store.write(result)
    whole = file.read_bytes()
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(whole) - 1))
        stop = data.draw(st.integers(start, min(len(whole), start + 20)))
        content = whole[:start] + data.draw(st.binary(max_size=5)) + whole[stop:]
    else:
        changed = json.loads(whole)
        where = changed
        key = data.draw(st.sampled_from(sorted(where)))
        while isinstance(where[key], dict) and where[key]:
            where = where[key]
            key = data.draw(st.sampled_from(sorted(where)))
        if data.draw(st.booleans()):
            del where[key]
        else:
            where[key] = data.draw(json_values)
        content = json.dumps(changed).encode()
    file.write_bytes(content)
    rows = store.gather().rows
    assert (store.read(result.job.id) is not None) == (content == whole)
    assert len(rows) == (3 if content == whole else 0)


names = st.sampled_from(["pca", "vae", "gamma-vae", "all", "vae*", "linear", "[", "@", "=", ","])
words = st.text(max_size=12) | names
specs = st.lists(
    st.one_of(
        words,
        st.builds("{}@{}={}".format, names, st.sampled_from(["n_latent", "beta", "hidden"]) | words, words),
        st.builds("{}@{}".format, names, words),
    ),
    max_size=4,
).map(",".join)
values = st.sampled_from(["1", "0", "-1", "1e999", "nan", "inf", "true", "null", "[1, 2]", "1,2", "{}", '"x"', "[" * 9])
changes = st.builds(
    "{}.{}={}".format,
    st.sampled_from(["pca", "vae", "trvae", "no-change"]) | words,
    st.sampled_from(["n_latent", "beta", "hidden", "learning_rate", "likelihood", "steps"]) | words,
    values | words,
)


def refused(call, *arguments):
    """Return what ``call`` returns, or None where it refuses with a message; any other error fails the test."""
    try:
        return call(*arguments)
    except (PlanError, PluginError, UnknownName, ConfigError, DataError) as error:
        said = str(error)
    assert said.strip()
    return None


@quick
@given(spec=specs, changed=st.lists(changes | words, max_size=2), preset=st.sampled_from(["smoke", "paper", "x"]))
def test_methods_and_settings(spec, changed, preset):
    chosen = refused(choose_methods, spec, preset, changed)
    for one in chosen[0] if chosen else ():
        json.dumps(dict(one.changes), allow_nan=False)


@quick
@given(change=changes)
@example(change="vae.learning_rate=1e999")
@example(change="vae.hidden=" + "[" * 100_000)
def test_settings_of_known_methods(change):
    chosen = refused(choose_methods, "pca,vae,trvae,no-change", "smoke", [change])
    assert chosen is None or len(chosen[0]) == 4
    for one in chosen[0] if chosen else ():
        json.dumps(dict(one.changes), allow_nan=False)


@quick
@given(spec=specs)
def test_tasks(spec):
    assert refused(choose_tasks, spec) != []


PYTHON = [
    "x = 1",
    "def",
    "\x00",
    "raise SystemExit(3)",
    "1 / 0",
    "import nothing_of_this_name",
    "from methods.base import Method\nclass A(Method):\n    name = 'pca'\n    def fit(self, data, seed): ...",
    "from methods.base import Method\nclass A(Method):\n    name = 3\n    def fit(self, data, seed): ...",
    "from methods.base import Method\nclass A(Method):\n    name = 'a,b'\n    def fit(self, data, seed): ...",
    "from methods.base import Method\nclass A(Method): ...",
    "A = 3",
    "import methods\nmethods.register_method(3)",
]


@pytest.mark.parametrize("code", PYTHON)
@pytest.mark.parametrize("address", ["", ":A", ":", ":a.b", ":A:A"])
def test_plugin_files(tmp_path, code, address):
    file = tmp_path / "plug.py"
    file.write_text(code)
    refused(load_plugin, f"{file}{address}")


@quick
@given(address=st.text(alphabet=st.characters(exclude_characters="\0"), max_size=300) | st.just("x" * 5000 + ".py:A"))
def test_plugin_addresses(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((PlanError, PluginError)):
        load_plugin(address)


# --- a user's .h5ad

GOOD = {"cancer": lambda i: i % 3, "study": lambda i: i // 3 % 2, "type": lambda i: i % 3, "arm": lambda i: i // 3 % 2}
#: What may be in a column instead of good labels.
LABELS = {
    "one": lambda labels: ["v0"] * len(labels),
    "unique": lambda labels: [f"u{i}" for i in range(len(labels))],
    "nan": lambda labels: [np.nan] * len(labels),
    "blank": lambda labels: ["", *labels[1:]],
    "integers": lambda labels: [int(label[1:]) for label in labels],
    "booleans": lambda labels: [label == "v0" for label in labels],
    "floats": lambda labels: [0.5 * int(label[1:]) for label in labels],
    "unused": lambda labels: pd.Categorical(labels, categories=["v0", "v1", "v2", "unused"]),
    "gap": lambda labels: pd.Categorical([None, *labels[1:]]),
    "odd": lambda labels: [label.replace("v1", "<b>/../\n") for label in labels],
    "rare": lambda labels: ["rare", *labels[1:]],
}
VALUES = {"nan": np.nan, "inf": np.inf, "negative": -1.0, "half": 0.5}
WRONG = ["one cell", "few cells", "no cells", "no genes", "one gene", "all zero", "all nan", "same names", "same genes"]
WRONG += ["no X", "half counts", "negative counts", "good counts", *VALUES]


@st.composite
def files(draw):
    """An AnnData that is as it should be, but for up to three things of those that a file can hold."""
    wrong = draw(st.sets(st.sampled_from(WRONG), max_size=2))
    n = next((size for what, size in (("no cells", 0), ("one cell", 1), ("few cells", 6)) if what in wrong), 150)
    m = next((size for what, size in (("no genes", 0), ("one gene", 1)) if what in wrong), 12)
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, (n, m)).astype(draw(st.sampled_from(["float32", "float64", "int64", "uint8", "bool"])))
    for what in sorted(wrong & set(VALUES)):
        x = x.astype("float32")
        x.flat[:1] = VALUES[what]
    if "all nan" in wrong:
        x = np.full((n, m), np.nan)
    x[:, :1] = 0
    x = x * (0 if "all zero" in wrong else 1)
    obs = {name: [f"v{label(i)}" for i in range(n)] for name, label in GOOD.items()}
    for name, kind in draw(
        st.dictionaries(st.sampled_from(sorted(GOOD)), st.sampled_from(["absent", *LABELS]), max_size=1)
    ).items():
        labels = obs.pop(name)
        if kind != "absent":
            obs[name] = LABELS[kind](labels) if n else []
    cells = ["same" if "same names" in wrong else f"c{i}" for i in range(n)]
    genes = ["same" if "same genes" in wrong else f"g{i}" for i in range(m)]
    made = None if "no X" in wrong else csr_matrix(x) if draw(st.booleans()) else x
    data = ad.AnnData(made, obs=pd.DataFrame(obs, index=cells), var=pd.DataFrame(index=genes))
    for what, shift in (("half counts", 0.5), ("negative counts", -3.0), ("good counts", 0.0)):
        if what in wrong:
            data.layers["counts"] = rng.poisson(2.0, (n, m)).astype("float32") + shift
    return data


ROLES = {
    "reembedding": {"unit": "cancer", "environment": "study"},
    "unseen-cell-type": {"condition": "arm", "cell_type": "type", "control": "v0"},
    "class-content": {"condition": "arm", "cell_type": "type", "control": "v0"},
    "shared-private": {"group": "arm", "cell_type": "type"},
}


@settings(quick, max_examples=60)
@given(data=files(), task=st.sampled_from(sorted(ROLES)), n_genes=st.sampled_from([0, 3, 2000]))
@pytest.mark.filterwarnings("ignore")
def test_a_users_file(tmp_path, monkeypatch, data, task, n_genes):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "mine.h5ad"
    copy.copy(data).write_h5ad(file)
    training = refused(training_data, task, file, n_genes)
    if training is not None:
        assert training.n_obs > 0
        assert training.n_vars > 0
        assert training.X.dtype == np.float32
        check_expression(training, "training")
        check_fields(training, Fields.of(training), "training")


def training_data(task, file, n_genes):
    """What a method would be handed first."""
    (name,), own = choose_own_tasks(task, str(file), ROLES[task], n_genes)
    unit = make_plan([], [name], "smoke", 1, (), {}, own).jobs[0].unit
    return load_task(name, "smoke", own).prepared(unit, 0).training_data(unit, 0)


@quick
@given(content=st.binary(max_size=400), start=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n"]))
def test_bytes_that_are_no_h5ad(tmp_path, content, start):
    file = tmp_path / "mine.h5ad"
    file.write_bytes(start + content)
    (name,), own = choose_own_tasks("reembedding", str(file), ROLES["reembedding"])
    with pytest.raises(DataError, match=r"mine\.h5ad"):
        load_task(name, "smoke", own).units()
