"""Codes in two dimensions."""

import numpy as np
import pytest

from bench.jobs.pictures import MAX_CELLS, picture
from methods.errors import CannotFit
from tasks import load_task


@pytest.fixture(scope="module")
def task():
    return load_task("reembedding/pancancer-sim", "smoke")


class Embeds:
    """Codes are the first genes."""

    def __init__(self, n_latent):
        self.n_latent = n_latent

    def embed(self, data):
        return np.asarray(data.X)[:, : self.n_latent]


class OnlyTrained(Embeds):
    """It has no code for tumours of the unit."""

    def __init__(self, task):
        super().__init__(2)
        self.known = set(task.training_data(task.units()[0], 0).obs_names)

    def embed(self, data):
        if not self.known.issuperset(data.obs_names):
            raise CannotFit("never saw them")
        return super().embed(data)


def test_a_picture_has_the_cells_their_labels_and_who_was_trained_on(task):
    unit = task.units()[0]
    shown = picture(task, Embeds(2), unit, 0)
    n_cells = min(MAX_CELLS, task.data.n_obs)
    assert {len(values) for values in shown.values()} == {n_cells}
    genes = np.asarray(task.data.X)[:, :2]
    for x, y in zip(shown["x"], shown["y"], strict=True):
        assert np.abs(genes - [x, y]).max(axis=1).min() < 1e-4
    fields = task.fields
    truth = {
        (round(float(x), 4), round(float(y), 4)): (environment, content)
        for (x, y), environment, content in zip(
            genes, task.data.obs[fields.environment], task.data.obs[fields.content], strict=True
        )
    }
    for x, y, environment, content, trained in zip(*shown.values(), strict=True):
        assert truth[round(x, 4), round(y, 4)] == (environment, content)
        assert trained == (content != unit or environment == fields.control)


def test_many_latents_are_shown_by_components_and_one_by_a_line(task):
    unit = task.units()[0]
    many, line = (picture(task, Embeds(n), unit, 0) for n in (5, 1))
    assert np.var(many["x"]) > np.var(many["y"]) > 0
    assert abs(np.corrcoef(many["x"], many["y"])[0, 1]) < 1e-3
    assert set(line["y"]) == {0.0}


def test_who_has_no_code_for_the_held_out_shows_the_others(task):
    shown = picture(task, OnlyTrained(task), task.units()[0], 0)
    assert all(shown["trained"])
    assert 0 < len(shown["x"]) < task.data.n_obs
