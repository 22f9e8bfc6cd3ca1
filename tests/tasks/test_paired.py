"""What is asked of the fit itself: disentanglement where the factors are known, curvature where a decoder tells it."""

import dataclasses

import numpy as np
import pytest

from tasks import TASKS
from tasks.datasets.memory import Memory
from tasks.paired import (
    CURVATURES,
    DISENTANGLEMENT,
    MAX_NUMBERS,
    MAX_POINTS,
    PAIRED,
    RECONSTRUCTION,
    distance_score,
    paired_scores,
)
from tasks.simulate.fate_tree import FATE_TREE
from tasks.simulate.pancancer import PANCANCER
from tasks.simulate.sparse_shift import SPARSE_SHIFT

RADIUS = 2.5


@pytest.fixture(scope="module")
def data():
    parameters = {"n_cancers": 4, "n_tumours": 80, "n_normals": 20, "n_genes": 30}
    return dataclasses.replace(PANCANCER, parameters=parameters, sizes={}).make()


class Sphere:
    """Codes are angles (θ, φ), decoded onto a sphere."""

    def __init__(self, n_latent=2):
        self.n_latent, self.asked = n_latent, []

    def embed(self, data):
        return 1.0 + np.random.default_rng(0).random((data.n_obs, self.n_latent))

    def derivative_gram(self, codes):
        self.asked.append(codes)
        theta, phi = codes[:, 0], codes[:, 1]
        sin, cos, zero = np.sin, np.cos, np.zeros_like(theta)
        rows = [
            (cos(theta) * cos(phi), cos(theta) * sin(phi), -sin(theta)),
            (-sin(theta) * sin(phi), sin(theta) * cos(phi), zero),
            (-sin(theta) * cos(phi), -sin(theta) * sin(phi), -cos(theta)),
            (-cos(theta) * sin(phi), cos(theta) * cos(phi), zero),
            (-sin(theta) * cos(phi), -sin(theta) * sin(phi), zero),
        ]
        derivatives = RADIUS * np.stack([np.stack(row, axis=1) for row in rows], axis=1)
        return derivatives @ derivatives.swapaxes(1, 2)


def test_the_curvature_of_a_sphere_is_that_of_a_sphere(data):
    method = Sphere()
    scores = paired_scores(method, data, data)
    assert set(scores) == set(PAIRED) - {RECONSTRUCTION}
    assert scores["extrinsic_curvature"] == pytest.approx(2 / RADIUS**2)
    (codes,) = method.asked
    assert scores["parameter_effects_curvature"] == pytest.approx(np.median(3 / np.tan(codes[:, 0]) ** 2) / RADIUS**2)
    assert codes.shape == (MAX_POINTS, 2)


def test_curvature_needs_no_factors_and_factors_no_curvature(data):
    real = data.copy()
    del real.obsm["factors"]
    assert set(paired_scores(Sphere(), real, real)) == set(CURVATURES)

    class Embeds:
        embed = Sphere().embed

    assert set(paired_scores(Embeds(), data, data)) == set(DISENTANGLEMENT)
    assert paired_scores(Embeds(), real, real) == {}
    assert paired_scores(object(), data, data) == {}


def test_a_decoder_that_is_not_smooth_has_no_curvature(data):
    class Creased(Sphere):
        def derivative_gram(self, codes):
            return np.full((len(codes), 5, 5), np.nan)

    scores = paired_scores(Creased(), data, data)
    assert all(np.isnan(scores[name]) for name in CURVATURES)
    assert all(np.isfinite(scores[name]) for name in DISENTANGLEMENT)


def test_with_many_latents_there_are_fewer_points(data):
    class Wide(Sphere):
        def derivative_gram(self, codes):
            k = 40 + 40 * 41 // 2
            assert len(codes) == MAX_NUMBERS // k**2 < MAX_POINTS
            return np.tile(np.eye(k), (len(codes), 1, 1))

    # flat, as all second derivatives are normal to all first and of length 1 for each of 40 * 41 / 2 pairs
    assert paired_scores(Wide(40), data, data)["parameter_effects_curvature"] == 0.0


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("reembedding", dataclasses.replace(PANCANCER, parameters={"n_cancers": 3, "n_genes": 30}, sizes={})),
        (
            "latent-recovery",
            dataclasses.replace(SPARSE_SHIFT, parameters={"n_perturbations": 10, "n_cells": 30}, sizes={}),
        ),
        ("fate", dataclasses.replace(FATE_TREE, parameters={"n_clones": 200, "n_genes": 30}, sizes={})),
    ],
)
def test_tasks_ask_for_the_curvature(name, dataset):
    task = TASKS[name](Memory(dataset.make(), name))
    scores = task.evaluate(lambda data: Sphere(), task.units()[0], 0)
    assert set(CURVATURES) < set(scores)
    assert scores["extrinsic_curvature"] == pytest.approx(2 / RADIUS**2)
    assert set(CURVATURES) < set(TASKS[name].secondary)


class Halves:
    """Codes are the cells; decoding gives back half of what they differ from their mean."""

    def embed(self, data):
        return np.asarray(data.X)

    def decode(self, codes):
        return (codes + codes.mean(axis=0)) / 2


class HalvesByEnvironment:
    """The same without ``decode``: half of what cells of one environment differ from their mean."""

    embed = Halves.embed

    def predict(self, data, target_environment):
        environments = data.obs[data.uns["fields"]["environment"]]
        assert set(environments) == {target_environment}
        return Halves().decode(np.asarray(data.X))


def test_what_is_lost_of_the_training_cells(data):
    assert paired_scores(Halves(), data, data)[RECONSTRUCTION] == pytest.approx(1 / 4, rel=1e-5)
    x = data.X.astype(float)
    labels = data.obs[data.uns["fields"]["environment"]].to_numpy(str)
    within = sum(np.square(x[labels == e] - x[labels == e].mean(axis=0)).sum() for e in np.unique(labels))
    expected = within / 4 / np.square(x - x.mean(axis=0)).sum()
    assert paired_scores(HalvesByEnvironment(), data, data)[RECONSTRUCTION] == pytest.approx(expected, rel=1e-4)


def test_the_distance_of_held_out_cells_is_of_the_data_alone(data):
    x = np.asarray(data.X)
    (name,) = distance_score(x[:50], x[50:])
    assert name == "ood_distance"
    near, far = (distance_score(x[:50] + shift, x[50:])[name] for shift in (0.0, 5.0))
    assert 0.5 < near < 2 < far
    assert distance_score(x[:50], x[50:])[name] == near
