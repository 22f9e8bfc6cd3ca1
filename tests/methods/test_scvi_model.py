"""scvi-tools' model classes as methods, where it is installed."""

import sys

import numpy as np
import pytest

from methods.errors import CannotFit, ConfigError
from methods.wrapping import method_at
from methods.wrapping.base import NoMethod
from tests.methods.test_scvi import counted, environments  # noqa: F401 - a fixture

LINEAR, SCANVI = "scvi.model:LinearSCVI", "scvi.model:SCANVI"
needs_scvi = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed():
    pytest.importorskip("scvi", reason="scvi-tools is not installed; pip install '.[scvi]'")


def fitted(address, data, seed=0, **changes):
    cls = method_at(address)
    return cls(cls.configure(**{"n_latent": 3, **changes})).fit(data, seed)


@pytest.fixture(scope="module")
def linear(counted, installed):  # noqa: F811
    """No test may change it."""
    return fitted(LINEAR, counted, max_epochs=30, batch_size=32)


def test_without_the_package_a_fit_says_how_to_install_it(counted, monkeypatch):  # noqa: F811
    for module in [m for m in sys.modules if m.partition(".")[0] == "scvi"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scvi", None)
    with pytest.raises(CannotFit, match=r"scvi-tools is not installed; pip install '\.\[scvi\]'"):
        fitted(LINEAR, counted, max_epochs=3)
    with pytest.raises(ConfigError, match=r"no config key 'n_hidden'.*where scvi-tools is installed"):
        fitted(LINEAR, counted, n_hidden=3)
    assert method_at(LINEAR).abilities() == {"embed", "predict"}


@needs_scvi
def test_prediction_is_on_the_scale_of_x_and_moves_cells_to_the_target(counted):  # noqa: F811
    model = fitted("scvi.model:SCVI", counted, max_epochs=120, batch_size=32)
    kinds = counted.obs["cell_type"].to_numpy(str)
    for kind in ("a", "b"):
        of_kind = counted[(environments(counted) == "control") & (kinds == kind)].copy()
        target = counted.X[(environments(counted) == "A") & (kinds == kind)].mean(axis=0)
        here = of_kind.X.mean(axis=0)
        apart = np.linalg.norm(here - target)
        there, same = model.predict(of_kind, "A"), model.predict(of_kind, "control")
        # measured .18 and .43, of the same .07 and .12
        assert np.linalg.norm(there.mean(axis=0) - target) < 0.7 * apart
        assert np.linalg.norm(same.mean(axis=0) - here) < 0.4 * apart
        np.testing.assert_allclose(np.expm1(there).sum(axis=1), np.expm1(of_kind.X).sum(axis=1), rtol=1e-3)
    with pytest.raises(CannotFit, match="was not trained on environment 'B'; trained environments: A, control"):
        model.predict(counted, "B")


def test_codes_are_the_class_s_own_and_it_says_what_it_chose(linear, counted):  # noqa: F811
    codes = linear.embed(counted)
    np.testing.assert_array_equal(codes, linear.model.get_latent_representation())
    np.testing.assert_array_equal(codes, linear.embed(counted))
    assert codes.shape == (300, 3)
    assert "setup_anndata was told layer=counts, batch_key=environment" in linear.log
    assert len(linear.history["elbo_train"]) == 30


def test_cells_of_an_environment_and_a_type_never_seen_are_embedded(linear, counted):  # noqa: F811
    cells = counted[:40].copy()
    cells.obs["condition"], cells.obs["cell_type"] = "elsewhere", "new"
    np.testing.assert_allclose(linear.embed(cells), linear.embed(counted[:40].copy()), atol=1e-6)


@needs_scvi
def test_one_seed_is_one_result_and_nothing_else_is_changed(counted):  # noqa: F811
    cells, state = counted.copy(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = fitted(LINEAR, cells, max_epochs=2)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert (list(cells.obs), set(cells.uns)) == (list(counted.obs), set(counted.uns))
    np.testing.assert_array_equal(fitted(LINEAR, counted, max_epochs=2).embed(counted), first.embed(counted))
    np.testing.assert_array_equal(first.predict(counted, "A"), first.predict(counted, "A"))
    assert not np.array_equal(fitted(LINEAR, counted, seed=1, max_epochs=2).embed(counted), first.embed(counted))


@needs_scvi
def test_a_class_about_labels_is_told_of_them(counted):  # noqa: F811
    method = fitted(SCANVI, counted, max_epochs=2)
    told = "layer=counts, batch_key=environment, labels_key=content, unlabeled_category=unlabelled"
    assert f"setup_anndata was told {told}" in method.log
    cells = counted[:30].copy()
    cells.obs["cell_type"] = "new"
    assert np.isfinite(method.embed(cells)).all()
    assert np.isfinite(method.predict(cells, "A")).all()


@needs_scvi
def test_topics_embed_alone(counted):  # noqa: F811
    cls = method_at("scvi.model:AmortizedLDA")
    assert cls.abilities() == {"embed"}
    method = cls(cls.configure(n_topics=4, max_epochs=2)).fit(counted, 0)
    np.testing.assert_allclose(method.embed(counted).sum(axis=1), 1, atol=1e-4)


@needs_scvi
def test_settings_of_train_and_of_the_constructor():
    cls = method_at(LINEAR)
    config = cls.configure("smoke", n_hidden=16, early_stopping=True)
    assert (config.max_epochs, config.n_hidden, config.early_stopping, config.n_latent) == (5, 16, True, 10)
    assert cls.configure().max_epochs is None
    with pytest.raises(ConfigError, match="has no config key 'accelerator'"):
        cls.configure(accelerator="cpu")


@needs_scvi
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("scvi.model:TOTALVI", "setup_anndata needs protein_expression_obsm_key, which a method is not handed"),
        ("scvi.external:ContrastiveVI", "train needs background_indices, target_indices"),
        ("scvi.external:CellAssign", "has no get_latent_representation"),
        ("scvi.model:DestVI", "the constructor needs st_adata"),
        ("scvi.model:Nothing", "has no 'Nothing'; its classes are AUTOZI"),
        ("scvi.modl:SCVI", "no module 'scvi.modl' in the installed package 'scvi'"),
    ],
)
def test_what_needs_more_is_refused_by_name(address, message):
    with pytest.raises(NoMethod, match=message):
        method_at(address)


@needs_scvi
def test_data_without_counts_are_refused(structured):
    with pytest.raises(CannotFit, match="counts"):
        fitted(LINEAR, structured)
    with pytest.raises(CannotFit, match="needs counts, and these data have none"):
        method_at("scvi.model:AmortizedLDA")().fit(structured, 0)
