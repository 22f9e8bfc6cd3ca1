"""scikit-learn's transformers as methods."""

import numpy as np
import pytest
from sklearn import decomposition

from methods import METHODS
from methods.base import Method
from methods.errors import CannotFit
from methods.wrapping import is_address, method_at

PCA, NMF = (f"sklearn.decomposition:{name}" for name in ("PCA", "NMF"))


def fitted(address, data, seed=0, **changes):
    cls = method_at(address)
    return cls(cls.configure(**changes)).fit(data, seed)


@pytest.fixture
def positive(structured):
    cells = structured.copy()
    cells.X = np.abs(cells.X)
    return cells


@pytest.mark.parametrize("text", ["a:B", "a.b_c:D1", "é:É"])
def test_addresses(text):
    assert is_address(text)


@pytest.mark.parametrize("text", ["a", "a.b", "a.py:B", "/x/a.py:B", "a:", ":B", "a:B.c", "a b:C", "a:B@c=1", "1a:B"])
def test_what_is_no_address(text):
    assert not is_address(text)


def test_pca_by_its_address_is_the_suite_s(structured):
    ours = METHODS["pca"](METHODS["pca"].Config(n_latent=3)).fit(structured, 0)
    theirs = fitted(PCA, structured, n_components=3)
    np.testing.assert_allclose(theirs.embed(structured), ours.embed(structured), atol=1e-4)
    for data, target in ((structured[:9].copy(), "stimulated"), (structured[5:8].copy(), "control")):
        np.testing.assert_allclose(theirs.predict(data, target), ours.predict(data, target), atol=1e-4)
    assert (theirs.name, theirs.abilities()) == (PCA, ours.abilities())


def test_settings_are_the_constructor_s_and_the_seed_its_random_state(positive):
    method = fitted(NMF, positive, seed=3, n_components=4, init="random", max_iter=50)
    expected = decomposition.NMF(4, init="random", max_iter=50, random_state=3).fit(positive.X.copy())
    assert method.estimator.get_params()["random_state"] == 3
    np.testing.assert_array_equal(method.embed(positive), expected.transform(positive.X.copy()))
    assert not hasattr(method.config, "random_state")
    assert method.unconverged.startswith("Maximum number of iterations 50 reached")
    assert fitted(NMF, positive, n_components=2, tol=1.0).unconverged == ""


def test_data_are_left_alone(structured):
    before = structured.X.copy()
    fitted("sklearn.preprocessing:StandardScaler", structured, copy=False).embed(structured)
    np.testing.assert_array_equal(structured.X, before)


def test_negative_values_are_refused_where_it_takes_none(positive):
    cells = positive.copy()
    cells.X[0, 0] = -1.5
    with pytest.raises(CannotFit, match=f"^{NMF} needs X of 0 or above; in these data it goes down to -1.5$"):
        fitted(NMF, cells)


def test_one_without_an_inverse_embeds_alone(structured):
    cls = method_at("sklearn.kernel_approximation:Nystroem")
    assert cls.abilities() == {"embed"}
    assert cls.tags == {"embedding", "wrapped"}
    assert fitted("sklearn.kernel_approximation:Nystroem", structured).embed(structured).shape == (300, 10)


def test_an_inverse_that_has_to_be_asked_for(structured):
    address = "sklearn.decomposition:KernelPCA"
    without = fitted(address, structured)
    with pytest.raises(CannotFit, match=r"cannot decode with these settings: .*fit_inverse_transform"):
        without.predict(structured, "control")
    asked = fitted(address, structured, fit_inverse_transform=True, kernel="rbf", gamma=0.001)
    assert asked.predict(structured[:5].copy(), "control").shape == (5, 30)


def test_sparse_codes_are_made_dense(structured):
    codes = fitted("sklearn.ensemble:RandomTreesEmbedding", structured, n_estimators=2, max_depth=2).embed(structured)
    assert isinstance(codes, np.ndarray)
    assert set(np.unique(codes)) == {0.0, 1.0}


def test_defaults_that_no_configuration_holds_are_the_estimator_s():
    config = method_at("sklearn.impute:SimpleImputer").Config()
    assert config.strategy == "mean"
    assert not hasattr(config, "missing_values")  # NaN
    assert not hasattr(method_at("sklearn.preprocessing:MinMaxScaler").Config(), "feature_range")  # a pair


def test_results_depend_on_the_address_and_the_version(monkeypatch):
    import sklearn

    first = method_at(NMF).depends()
    assert first.startswith(f"{NMF} {sklearn.__version__} ")
    monkeypatch.setattr(sklearn, "__version__", "0.0")
    assert {method_at(PCA).depends(), method_at(NMF).depends()}.isdisjoint({first})
    assert Method.depends() == ""
