import numpy as np
import pytest

from metrics.curvature import curvature


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def gram_of(first, second):
    """Gram matrices of derivatives written down by hand: lists of d and d(d + 1)/2 arrays (n_points, n_out)."""
    rows = np.stack([*first, *second], axis=1)
    return rows @ rows.swapaxes(1, 2)


def columns(*parts):
    return np.stack(np.broadcast_arrays(*parts), axis=1).astype(float)


def sphere(radius, theta, phi):
    s, c, sp, cp = np.sin(theta), np.cos(theta), np.sin(phi), np.cos(phi)
    first = [columns(c * cp, c * sp, -s), columns(-s * sp, s * cp, 0)]
    second = [columns(-s * cp, -s * sp, -c), columns(-c * sp, c * cp, 0), columns(-s * cp, -s * sp, 0)]
    return radius**2 * gram_of(first, second)


def cylinder(radius, phi):
    s, c = np.sin(phi), np.cos(phi)
    first = [columns(-radius * s, radius * c, 0), columns(0 * s, 0, 1)]
    return gram_of(first, [columns(-radius * c, -radius * s, 0), columns(0 * s, 0, 0), columns(0 * s, 0, 0)])


def polar(r, phi):
    s, c = np.sin(phi), np.cos(phi)
    return gram_of(
        [columns(c, s), columns(-r * s, r * c)], [columns(0 * s, 0), columns(-s, c), columns(-r * c, -r * s)]
    )


def both(gram, n_latent):
    return tuple(curvature(gram, n_latent).values())


def test_sphere(rng):
    for radius in (0.2, 1.0, 4.0):
        theta = rng.uniform(0.3, 2.8, 101)
        extrinsic, tangent = both(sphere(radius, theta, rng.uniform(0, 6, 101)), 2)
        assert extrinsic == pytest.approx(2 / radius**2, rel=1e-11)
        assert tangent == pytest.approx(np.median(3 / np.tan(theta) ** 2) / radius**2, rel=1e-11)


def test_cylinder(rng):
    for radius in (0.2, 1.0, 4.0):
        extrinsic, tangent = both(cylinder(radius, rng.uniform(0, 6, 50)), 2)
        assert extrinsic == pytest.approx(1 / radius**2, rel=1e-11)
        assert tangent == pytest.approx(0, abs=1e-20)


def test_plane_in_polar_coordinates(rng):
    r = rng.uniform(0.5, 4, 101)
    extrinsic, tangent = both(polar(r, rng.uniform(0, 6, 101)), 2)
    assert extrinsic == pytest.approx(0, abs=1e-13)
    assert tangent == pytest.approx(np.median(3 / r**2), rel=1e-11)


def test_circle():
    phi = np.linspace(0, 6, 20)
    gram = 9 * gram_of([columns(-np.sin(phi), np.cos(phi))], [columns(-np.cos(phi), -np.sin(phi))])
    assert both(gram, 1) == (pytest.approx(1 / 9, rel=1e-12), pytest.approx(0, abs=1e-20))


def test_a_linear_decoder_is_flat(rng):
    first = rng.normal(size=(3, 1, 8)).repeat(10, axis=1)
    assert both(gram_of(first, np.zeros((6, 10, 8))), 3) == (0.0, 0.0)


def test_agrees_with_explicit_contraction_and_projection(rng):
    """Random derivatives in d = 3: H as a full tensor, projected with JJ⁺, contracted with the inverse metric."""
    n_points, d, n_out = 40, 3, 9
    first = rng.normal(size=(n_points, n_out, d))
    hessian = rng.normal(size=(n_points, n_out, d, d))
    hessian += hessian.swapaxes(2, 3)
    i, j = np.triu_indices(d)
    gram = gram_of(first.transpose(2, 0, 1), hessian[:, :, i, j].transpose(2, 0, 1))
    expected = []
    for jacobian, h in zip(first, hessian, strict=True):
        on_manifold = jacobian @ np.linalg.pinv(jacobian)
        inverse = np.linalg.inv(jacobian.T @ jacobian)
        parts = (np.tensordot(np.eye(n_out) - on_manifold, h, 1), np.tensordot(on_manifold, h, 1))
        expected.append([np.einsum("gmn,grs,mr,ns", part, part, inverse, inverse) for part in parts])
    np.testing.assert_allclose(both(gram, d), np.median(expected, axis=0), rtol=1e-9)


def test_units_and_layout_of_the_latent_space(rng):
    n_points, d = 30, 2
    first, second = rng.normal(size=(2, n_points, 7)), rng.normal(size=(3, n_points, 7))
    plain = both(gram_of(first, second), d)
    np.testing.assert_allclose(both(gram_of(3 * first, 3 * second), d), np.divide(plain, 9), rtol=1e-9)
    # z = A z′, so that J′ = JA and H′ = AᵀHA
    a = np.array([[1.0, 0.5], [-0.3, 2.0]])
    hessian = np.array([[second[0], second[1]], [second[1], second[2]]])
    turned = np.einsum("mi,mnpg,nj->ijpg", a, hessian, a)[np.triu_indices(2)]
    np.testing.assert_allclose(both(gram_of(np.tensordot(a.T, first, 1), turned), d), plain, rtol=1e-9)


def test_one_wild_point_does_not_rule(rng):
    theta = np.append(np.full(20, 1.0), 0.05)  # next to the pole P² is 430 times as large
    expected = 3 / np.tan(1.0) ** 2
    assert both(sphere(1.0, theta, np.zeros(21)), 2)[1] == pytest.approx(expected)


def test_a_collapsed_latent_counts_as_none(rng):
    """A circle, and a second latent that moves the decoder a thousandth as far, but bends hard for its length."""
    phi = np.linspace(0, 6, 20)
    zero = np.zeros((20, 1))
    circle = [columns(-np.sin(phi), np.cos(phi), 0), columns(-np.cos(phi), -np.sin(phi), 0)]
    tiny = 1e-3 * np.hstack([zero, zero, zero + 1])
    gram = gram_of([circle[0], tiny], [circle[1], 0 * tiny, 1e-3 * circle[1]])
    extrinsic, tangent = both(gram, 2)
    assert extrinsic == pytest.approx(1, rel=1e-9)
    assert tangent == pytest.approx(0, abs=1e-9)


def test_points_where_the_decoder_stands_still_are_left_out():
    gram = sphere(2.0, np.full(5, 1.0), np.zeros(5))
    gram[:3] = 0
    assert both(gram, 2)[0] == pytest.approx(0.5)
    assert np.isnan(both(np.zeros((4, 5, 5)), 2)).all()


def test_rounding_makes_no_negative_curvature():
    # J and H are one vector, but for the last digit of |H|²
    assert both([[[1, 1], [1, 1 - 1e-7]]], 1)[0] == 0


def test_errors_quote_what_was_got():
    with pytest.raises(ValueError, match=r"gram has shape \(4, 5, 5\); \(n_points, 9, 9\) is needed for n_latent=3"):
        curvature(np.zeros((4, 5, 5)), 3)
    with pytest.raises(ValueError, match="n_latent=0"):
        curvature(np.zeros((4, 5, 5)), 0)
    with pytest.raises(ValueError, match="1 of 25 values that are NaN"):
        curvature(np.where(np.eye(5) * np.arange(5) == 4, np.nan, 0)[None], 2)
