"""The two simulators of known factors: what is rendered, and what counts say of their factors."""

import numpy as np
import pytest

from tasks.simulate import factor_expression, factor_images
from tasks.simulate.factor_images import SHAPES, inside, render


def one(shape=0, scale=4.0, rotation=0.0, x=8.0, y=8.0):
    return render(np.array([[shape, scale, rotation, x, y]], dtype=float))[0]


AREAS = (np.pi * 0.5, 1.8 * 0.9, 0.5 * 1.8 * 1.4)


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("rotation", [0.0, 0.6, -0.7])
def test_grey_adds_up_to_the_area(shape, rotation):
    # each subpixel is in or out, so the area errs by some of those at the edge
    centres = [(8.0, 8.0), (8.1, 7.3), (7.4, 8.2), (8.3, 8.1)]
    for scale in (3.0, 4.0):
        grey = [one(shape, scale, rotation, x, y).sum() for x, y in centres]
        assert np.mean(grey) == pytest.approx(AREAS[shape] * scale**2, rel=0.03)


def test_pixels_inside_are_one_outside_zero_and_grey_at_the_edge():
    image = one(SHAPES.index("rectangle"), scale=4.0, x=8.0, y=8.25)
    # columns 4.4 to 11.6, rows 6.45 to 10.05 of the pixel grid
    assert (image[7:10, 5:11] == 1).all()
    assert image[:6].max() == image[11:].max() == image[:, :4].max() == image[:, 12:].max() == 0
    assert 0 < image[6, 8] < 1
    assert 0 < image[8, 4] < 1


def test_images_move_by_whole_pixels_with_x_and_y():
    for shape in range(3):
        image = one(shape, rotation=0.3)
        np.testing.assert_array_equal(one(shape, rotation=0.3, x=10.0), np.roll(image, 2, axis=1))
        np.testing.assert_array_equal(one(shape, rotation=0.3, y=7.0), np.roll(image, -1, axis=0))


def test_rotation_turns_the_x_axis_towards_the_y_axis():
    quarter = one(0, rotation=np.pi / 2)
    np.testing.assert_allclose(quarter, one(0).T, atol=0.07)
    # the ellipse's long half axis points down to the right
    turned = one(0, rotation=np.pi / 4)
    assert turned[9, 9] == 1
    assert turned[9, 5] == 0


def test_corners_of_the_shapes():
    shape = np.array([0, 1, 2])
    for u, v, expected in (
        (0.99, 0.0, [1, 0, 1]),
        (0.0, 0.49, [1, 0, 0]),
        (-0.89, 0.44, [0, 1, 0]),
        (-0.79, 0.68, [0, 0, 1]),
        (0.0, -0.35, [1, 1, 1]),
    ):
        np.testing.assert_array_equal(inside(shape, np.full(3, u), np.full(3, v)), np.array(expected, dtype=bool))


def test_image_factors_are_independent_uniform_and_reach_every_pixel_but_not_the_border():
    data = factor_images.simulate(np.random.default_rng(0), n_cells=4000, noise=0.0)
    factors = data.obsm["factors"]
    assert np.abs(np.corrcoef(factors.T) - np.eye(5)).max() < 0.06
    np.testing.assert_allclose(np.bincount(factors[:, 0].astype(int)) / 4000, 1 / 3, atol=0.03)
    np.testing.assert_allclose(factors[:, 1:].min(axis=0), [3, -np.pi / 4, 5, 5], atol=0.01)
    np.testing.assert_allclose(factors[:, 1:].max(axis=0), [5, np.pi / 4, 11, 11], atol=0.01)
    np.testing.assert_allclose(data.X, render(factors.astype(float)).reshape(4000, -1), atol=1 / 16 + 1e-6)
    # hardly any shape is cut off
    area = np.array(AREAS)[factors[:, 0].astype(int)] * factors[:, 1] ** 2
    assert (data.X.sum(axis=1) < 0.97 * area).mean() < 0.02
    assert (data.X.reshape(-1, 16, 16)[:, 2:-2, 2:-2].std(axis=0) > 0).all()


def test_noise_is_added_as_stated():
    noisy, clean = (factor_images.simulate(np.random.default_rng(0), 200, noise=noise).X for noise in (0.1, 0.0))
    assert (noisy - clean).std() == pytest.approx(0.1, rel=0.02)


def test_expression_factors_have_unit_variance_and_are_independent():
    factors = factor_expression.draw_factors(np.random.default_rng(0), 40_000)
    np.testing.assert_allclose(factors.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(factors.std(axis=0), 1, atol=0.02)
    assert np.abs(np.corrcoef(factors.T) - np.eye(6)).max() < 0.02
    assert [len(np.unique(f)) for f in factors.T[:3]] == [2, 3, 40_000]


def test_without_interaction_log_expression_is_linear_in_the_factors():
    def residual(interaction):
        data = factor_expression.simulate(
            np.random.default_rng(0), n_cells=6000, n_genes=100, effect=1.0, interaction=interaction
        )
        x = data.X[:, data.layers["counts"].mean(axis=0) > 20]
        factors = data.obsm["factors"].astype(float)
        columns = [np.ones(len(x)), *factors.T]
        products = [factors[:, i] * factors[:, j] for i in range(6) for j in range(i)]

        def left(design):
            design = np.column_stack(design)
            return np.square(x - design @ np.linalg.lstsq(design, x, rcond=None)[0]).sum()

        return left([*columns, *products]) / left(columns)

    # products of factors add less than what the library's closure brings, unless there is an interaction
    assert residual(0.0) > residual(3.0) + 0.005


def test_counts_follow_the_library_and_are_overdispersed():
    data = factor_expression.simulate(np.random.default_rng(0), n_cells=3000, effect=0.0)
    counts = data.layers["counts"]
    assert np.median(counts.sum(axis=1)) == pytest.approx(4000, rel=0.03)
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    high = mean > 5
    # 1/dispersion has median .54, the library (log-std .3) adds .09
    assert 0.4 < np.median((variance - mean)[high] / mean[high] ** 2) < 1.0
