"""Shifts of the prior: iVAE, sVAE and sVAE+."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta, norm

from methods import METHODS, CannotFit
from methods.nn.networks import Constant
from methods.sparse_shift_vae import SVAEPlus
from methods.vaes import VAE
from methods.variational import Forward
from metrics import METRICS
from metrics.identifiability import match_latents

SHIFTED = ["ivae", "svae", "svae-plus"]
MASKED = ["svae", "svae-plus"]
TINY = {"n_latent": 4, "hidden": (16,), "steps": 24}
TRAINED = {
    "n_latent": 4,
    "hidden": (32,),
    "steps": 1200,
    "learning_rate": 1e-2,
    "dropout": 0.0,
    "warmup": 0.15,
}


def fitted(name, data, seed=0, **changes):
    return METHODS[name](METHODS[name].configure(**{**TINY, **changes})).fit(data, seed)


def environments(data):
    return data.obs["condition"].to_numpy(str)


@pytest.fixture(scope="module")
def sparse(labelled):
    """540 cells that are linear in 4 latents, of which each of 8 perturbations shifts one by 4; the truth with them."""
    rng = np.random.default_rng(0)
    targets = np.vstack([np.zeros(4), np.eye(4), np.eye(4)])
    sign = np.array([1.0] * 5 + [-1.0] * 4)[:, None]
    names = np.array(["control", *(f"p{i}" for i in range(8))])
    number = np.repeat(np.arange(9), 60)
    z = 4 * (targets * sign)[number] + rng.standard_normal((540, 4))
    x = 5 + z @ rng.standard_normal((4, 20)) + 0.3 * rng.standard_normal((540, 20))
    return labelled(x, names[number]), z, targets[1:]


@pytest.fixture(scope="module")
def quick(sparse):
    """Hardly trained fits, for what holds of any; no test may change them."""
    return {name: fitted(name, sparse[0]) for name in SHIFTED}


def with_masks(method, logits, means=None):
    """A copy of ``method`` with these logits (and shifts) of the masks."""
    out = copy.copy(method)
    out.network = copy.deepcopy(method.network)
    with torch.no_grad():
        out.network["shifts"]["logit"].copy_(torch.as_tensor(logits))
        if means is not None:
            out.network["shifts"]["mean"].copy_(torch.as_tensor(means))
    return out


# --- the prior


@pytest.mark.parametrize("name", SHIFTED)
def test_control_and_unknown_cells_have_the_prior_of_the_vae(name, quick, labelled):
    method = quick[name]
    cells = labelled(np.full((4, 20), 5.0), ["control", "p3", "never seen", "p3"])
    prior = method.prior_mean(method.network, method.covariates(cells))
    assert prior.shape == (4, 4)
    assert (prior[[0, 2]] == 0).all()
    torch.testing.assert_close(prior[1], prior[3])
    expected = method.network["shifts"]["mean"][method.environments.index("p3")]
    torch.testing.assert_close(prior[1], expected)  # all masks are still on
    assert (expected != 0).any()


@pytest.mark.parametrize("name", SHIFTED)
def test_environments_are_all_but_the_control_in_order(name, quick):
    assert quick[name].environments == [f"p{i}" for i in range(8)]
    assert quick[name].control == "control"


@pytest.mark.parametrize("name", SHIFTED)
def test_the_environment_enters_the_prior_alone(name, quick, sparse):
    method, data = quick[name], sparse[0][:120].copy()
    relabelled = data.copy()
    relabelled.obs["condition"] = np.roll(environments(data), 60)
    np.testing.assert_array_equal(method.embed(data), method.embed(relabelled))
    assert not np.array_equal(method.log_likelihood(data, 3), method.log_likelihood(relabelled, 3))


def test_the_kl_is_to_the_shifted_prior_and_warms_up(quick, sparse):
    method = METHODS["ivae"](METHODS["ivae"].configure(**{**TINY, "steps": 160}, warmup=0.2))
    method.environments, method.control, method.n_cells = quick["ivae"].environments, "control", 540
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(3, 4, generator=rng), torch.randn(3, 4, generator=rng)
    network = copy.deepcopy(quick["ivae"].network)
    with torch.no_grad():
        network["shifts"]["mean"].copy_(torch.randn(8, 4, generator=rng))
    prior = network["shifts"]["mean"].detach()[[2, 7, 0]] * torch.tensor([[1.0], [1.0], [0.0]])
    kl = 0.5 * ((mean - prior).square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    found = [
        method.penalties(
            Forward(network, {"environment": torch.tensor([2, 7, -1])}, progress, mean, log_variance, mean, mean, mean)
        )
        for progress in (0.05, 0.1, 0.2, 1.0)
    ]
    torch.testing.assert_close(
        torch.stack([terms["kl"].detach() for terms in found]), torch.tensor([0.25, 0.5, 1.0, 1.0]) * kl
    )
    assert method.schedule().warmup == 0.2
    assert METHODS["ivae"]().warmup() == 1 / 6


@pytest.mark.parametrize(("n_environments", "steps"), [(0, 1500), (2, 1500), (20, 1500), (80, 6000)])
def test_many_environments_are_trained_for_longer(n_environments, steps):
    method = METHODS["svae-plus"]()
    method.environments = [f"p{number}" for number in range(n_environments)]
    assert method.schedule().steps == steps
    short = METHODS["svae-plus"](METHODS["svae-plus"].configure("smoke"))
    short.environments = method.environments
    assert short.schedule().steps == short.config.steps


@pytest.mark.parametrize("name", SHIFTED)
def test_without_perturbations_it_is_the_vae_bit_for_bit(name, structured):
    control = structured[environments(structured) == "control"].copy()
    # of minibatches that are small enough already
    shifted = fitted(name, control, 3, warmup=0.0, dropout=0.2, minibatch=8)
    shared = {field.name: getattr(shifted.config, field.name) for field in dataclasses.fields(VAE.Config)}
    plain = VAE(VAE.configure(**shared)).fit(control, 3)
    assert plain.history == shifted.history
    np.testing.assert_array_equal(plain.embed(control), shifted.embed(control))
    if name in MASKED:
        assert shifted.intervention_targets().shape == (0, 4)


# --- masks


@pytest.mark.parametrize("name", MASKED)
def test_masks_are_hard_in_evaluation_and_drawn_for_each_cell_in_training(name, quick):
    q = np.array([[0.9, 0.51, 0.49, 0.1]] * 8)
    means = np.arange(1.0, 33.0).reshape(8, 4)
    method = with_masks(quick[name], logit(q), means)
    cells = {"environment": torch.full((4000,), 5)}
    prior = method.prior_mean(method.network.eval(), cells).detach().numpy()
    np.testing.assert_allclose(prior, np.tile(means[5] * [1, 1, 0, 0], (4000, 1)), rtol=1e-6)
    torch.manual_seed(0)
    drawn = method.prior_mean(method.network.train(), cells).detach().numpy() / means[5]
    assert np.isin(drawn.round(6), [0, 1]).all()
    np.testing.assert_allclose(drawn.mean(axis=0), q[5], atol=0.03)
    # of each latent and of each cell by itself
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize("name", MASKED)
def test_targets_are_the_probabilities_in_the_order_of_the_environments(name, quick):
    q = np.random.default_rng(0).uniform(0.05, 0.95, (8, 4)).astype(np.float32)
    method = with_masks(quick[name], logit(q))
    np.testing.assert_allclose(method.intervention_targets(), q, rtol=1e-4)


def test_masks_start_on():
    method = METHODS["svae"](METHODS["svae"].configure(**TINY))
    method.environments, method.likelihood = ["a", "b"], "gaussian"
    shifts = method.build(6)["shifts"]
    np.testing.assert_allclose(shifts["logit"].detach().sigmoid(), expit(5.0), rtol=1e-6)
    assert (shifts["mean"] != 0).all()


def test_what_masks_cost():
    """Both costs rise with the KL, and λ of sVAE+ is a number for each of a perturbation's cells."""
    q = np.random.default_rng(0).uniform(0.05, 0.95, (3, 4))
    network = {"shifts": {"logit": torch.from_numpy(logit(q))}, "cells": Constant(torch.tensor([75.0, 250.0, 2.0]))}
    svae = METHODS["svae"](METHODS["svae"].configure(sparsity=7.0, warmup=0.1))
    plus = METHODS["svae-plus"](METHODS["svae-plus"].configure(sparsity=0.4, warmup=0.1))
    plus.n_cells = 500
    prior = sum(beta(1, strength).logpdf(row).sum() for strength, row in zip((30, 100, 1), q, strict=True))
    for progress, weight in ((0.01, 0.1), (0.05, 0.5), (0.1, 1.0), (1.0, 1.0)):
        assert float(svae.cost_of_masks(network, progress)) == pytest.approx(weight * 7 * q.mean())
        assert float(plus.cost_of_masks(network, progress)) == pytest.approx(-weight * prior / 500)


def test_sparsity_of_zero_costs_nothing(sparse, quick):
    free = fitted("svae-plus", sparse[0], sparsity=0.0)
    np.testing.assert_array_equal(free.history["sparsity"], 0)
    assert max(quick["svae-plus"].history["sparsity"]) > 0
    # whatever the masks
    logits = torch.linspace(-8.0, 3.0, 32).view(8, 4).requires_grad_()
    free.cost_of_masks({"shifts": {"logit": logits}, "cells": free.network["cells"]}, 1.0).backward()
    assert (logits.grad == 0).all()


def test_lambda_is_of_the_cells_of_each_perturbation(sparse):
    data = sparse[0]
    fewer = np.concatenate(
        [np.flatnonzero(environments(data) != "p1"), np.flatnonzero(environments(data) == "p1")[:20]]
    )
    method = fitted("svae-plus", data[fewer].copy(), steps=8)
    assert method.cells_of == [60, 20, *[60] * 6]
    published = METHODS["svae-plus"](METHODS["svae-plus"].configure("paper"))
    assert published.strength(np.array([250.0, 80.0, 1.0])).tolist() == [100.0, 32.0, 1.0]


# --- how fast it learns


@pytest.mark.parametrize("name", SHIFTED)
def test_shifts_and_masks_have_a_rate_of_their_own(name, quick):
    method = quick[name]
    networks, shifts = method.parameter_groups(method.network)
    assert shifts["lr"] == method.config.shift_learning_rate == 5 * method.config.learning_rate
    assert {id(p) for p in shifts["params"]} == {id(p) for p in method.network["shifts"].parameters()}
    whole = {id(p) for p in method.network.parameters()}
    assert {id(p) for group in (networks, shifts) for p in group["params"]} == whole
    assert len(networks["params"]) + len(shifts["params"]) == len(whole)


def test_a_mask_that_nothing_holds_is_off_within_the_shortest_fit(labelled):
    """240 cells without any effect: the masks' logits, from 5, must cross 0."""
    noise = np.random.default_rng(0).standard_normal((240, 12))
    data = labelled(5 + noise, np.array(["control", "p0", "p1"])[np.arange(240) % 3])
    method = fitted("svae-plus", data, steps=SVAEPlus.Config().steps, warmup=0.05)
    # at the network's rate, in so many steps, .99
    assert method.intervention_targets().max() < 0.5


def test_shifts_start_near_zero(sparse):
    starts = {}
    for preset in ("default", "paper"):
        method = METHODS["svae-plus"](METHODS["svae-plus"].configure(preset, hidden=(8,)))
        method.prepare(sparse[0])
        starts[preset] = float(method.network["shifts"]["mean"].detach().std())
    assert 0.005 < starts["default"] < 0.02
    assert 0.5 < starts["paper"] < 2


# --- what is fitted


def test_dense_shifts_end_at_the_mean_codes(sparse):
    data = sparse[0]
    method = fitted("ivae", data, **TRAINED)
    codes = method.embed(data)
    means = np.array([codes[environments(data) == name].mean(axis=0) for name in method.environments])
    shifts = method.network["shifts"]["mean"].detach().numpy()
    # measured .12, of means up to 3
    assert np.abs(shifts - means).max() < 0.4
    assert np.corrcoef(shifts.ravel(), means.ravel())[0, 1] > 0.99
    assert np.abs(means).max() > 1.5


@pytest.fixture(scope="module")
def trained(sparse):
    """An sVAE and an sVAE+ that are trained; no test may change them."""
    sparsity = {"svae": 10.0, "svae-plus": 0.4}
    return {name: fitted(name, sparse[0], **TRAINED, sparsity=sparsity[name]) for name in MASKED}


@pytest.mark.parametrize("name", MASKED)
def test_targets_are_found_better_than_by_chance(name, trained, sparse):
    (data, z, targets), method = sparse, trained[name]
    match = match_latents(z, method.embed(data))
    matched = np.where(match[None] >= 0, method.intervention_targets()[:, match], 0.0)
    # measured 1 and 1; by chance .25
    assert METRICS["target_auprc"](targets, matched) > 0.75


def test_sparsity_leaves_fewer_targets(trained, sparse):
    without = fitted("svae-plus", sparse[0], **{**TRAINED, "steps": 320}, sparsity=0.0)
    assert without.intervention_targets().mean() > 0.9
    assert trained["svae-plus"].intervention_targets().mean() < 0.6


# --- new environments


def codes_of(n, seed, centre):
    return (np.random.default_rng(seed).standard_normal((n, 4)) * 0.7 + centre).astype(np.float32)


CENTRES = ([2.5, -1.1, 0.3, 0.0], [0.05, -0.02, 4.0, -3.0], [0.9, 0.8, -0.7, 1.2])


def expected_kl(codes, mean, q):
    """Σ_j E over cells and masks of ½(c − m μ)²: all of the KL that depends on masks and shifts."""
    kept = 0.5 * np.square(codes - mean).mean(axis=0)
    dropped = 0.5 * np.square(codes).mean(axis=0)
    return (q * kept + (1 - q) * dropped).sum()


def test_the_new_mean_is_the_minimum_of_the_loss():
    codes = codes_of(12, 0, CENTRES[0])
    found = METHODS["ivae"]().fit_shift(codes)
    best = minimize(lambda mean: expected_kl(codes, mean, 1.0), np.zeros(4))
    assert list(found) == ["mean"]
    np.testing.assert_allclose(found["mean"], best.x, atol=1e-4)


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("sparsity", [0.5, 3.0, 10.0])
def test_new_targets_of_the_svae_are_the_minimum_of_the_loss(centre, sparsity):
    codes = codes_of(12, 1, centre)
    method = METHODS["svae"](METHODS["svae"].configure(n_latent=4, sparsity=sparsity))
    found, mean = method.targets_of(codes), method.fit_shift(codes)["mean"]

    def loss(values):
        return expected_kl(codes, values[:4], values[4:]) + sparsity * values[4:].mean()

    bounds = [(None, None)] * 4 + [(0, 1)] * 4
    runs = [minimize(loss, np.append(mean, np.full(4, q)), bounds=bounds) for q in (0.05, 0.5, 0.95)]
    best = min(runs, key=lambda run: run.fun)
    np.testing.assert_array_equal(found, best.x[4:] > 0.5)
    assert loss(np.append(mean, found)) == pytest.approx(best.fun, abs=1e-4)
    kept = best.x[4:] > 0.5
    np.testing.assert_allclose(mean[kept], best.x[:4][kept], atol=1e-3)


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.2, 2.5])
def test_new_targets_of_the_svae_plus_are_the_minimum_of_the_loss(centre, sparsity):
    codes = codes_of(40, 2, centre)
    method = METHODS["svae-plus"](METHODS["svae-plus"].configure(n_latent=4, sparsity=sparsity))
    q, mean = method.targets_of(codes), method.fit_shift(codes)["mean"]
    strength = max(1.0, 40 * sparsity)

    def loss(values):
        return len(codes) * expected_kl(codes, values[:4], values[4:]) - beta(1, strength).logpdf(values[4:]).sum()

    # the bounds that keep logarithms finite
    bounds = [(None, None)] * 4 + [(1e-3, 1 - 1e-3)] * 4
    runs = [minimize(loss, np.append(mean, np.full(4, q)), bounds=bounds) for q in (0.05, 0.5, 0.95)]
    best = min(runs, key=lambda run: run.fun)
    assert loss(np.append(mean, q)) == pytest.approx(best.fun, rel=1e-4, abs=1e-2)
    # where a latent is hardly shifted its loss is flat in q
    shifted = np.abs(mean) > 0.3
    np.testing.assert_allclose(q[shifted], best.x[4:][shifted], atol=0.01)


@pytest.mark.parametrize("name", SHIFTED)
def test_adapting_knows_the_new_environment_and_leaves_the_rest(name, quick, sparse, labelled):
    method, data = quick[name], sparse[0]
    rng = np.random.default_rng(3)
    x = data.X[environments(data) == "p2"].mean(axis=0) + rng.standard_normal((25, 20))
    few = labelled(x, ["new"] * 20 + ["control"] * 5)
    before, networks = copy.deepcopy(method.state()), copy.deepcopy(method.network.state_dict())
    adapted = method.adapt(few)
    assert adapted.environments == [*method.environments, "new"]
    after = method.state()
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])
    for key, value in adapted.network.state_dict().items():
        rows = slice(0, 8) if key.startswith("shifts") else slice(None)
        torch.testing.assert_close(value[rows] if value.ndim else value, networks[key], rtol=0, atol=0)
    # the prior of new cells, which was that of control cells
    minibatch = method.covariates(few)
    assert (method.prior_mean(method.network, minibatch) == 0).all()
    prior = adapted.prior_mean(adapted.network, adapted.covariates(few)).detach().numpy()
    # without a mask, whatever its targets are
    mean = method.embed(few)[:20].mean(axis=0)
    np.testing.assert_allclose(prior, np.vstack([np.tile(mean, (20, 1)), np.zeros((5, 4))]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapted.embed(few), method.embed(few))
    if name in MASKED:
        np.testing.assert_allclose(adapted.intervention_targets()[8], method.targets_of(method.embed(few)[:20]))
        np.testing.assert_array_equal(adapted.intervention_targets()[:8], method.intervention_targets())


def test_adapting_to_a_known_environment_replaces_its_shift(quick, sparse):
    data = sparse[0]
    adapted = quick["ivae"].adapt(data[environments(data) == "p3"][:10].copy())
    assert adapted.environments == [*(f"p{i}" for i in range(8) if i != 3), "p3"]
    before, after = (m.network["shifts"]["mean"].detach().numpy() for m in (quick["ivae"], adapted))
    np.testing.assert_array_equal(after[:7], np.delete(before, 3, axis=0))
    codes = quick["ivae"].embed(data[environments(data) == "p3"][:10].copy())
    np.testing.assert_allclose(after[7], codes.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_targets_of_adapted_perturbations_survive_their_state(name, quick, sparse, labelled):
    few = labelled(sparse[0].X[:6], ["new", "p3", "another"] * 2)
    adapted, again = quick[name].adapt(few), METHODS[name](quick[name].config)
    again.restore(adapted.state())
    assert again.environments[-3:] == ["another", "new", "p3"]
    np.testing.assert_array_equal(again.intervention_targets(), adapted.intervention_targets())


def test_ten_cells_are_no_reason_to_predict_no_change(sparse):
    """A cost that was chosen for hundreds of cells would keep no latent of a perturbation that has ten."""
    data = sparse[0]
    seen, new = environments(data) != "p6", np.flatnonzero(environments(data) == "p6")
    method = fitted("svae-plus", data[seen].copy(), **TRAINED)
    control = data[environments(data) == "control"].copy()
    truth = data.X[new[10:]].mean(axis=0)
    predicted = method.adapt(data[new[:10]].copy()).predict(control, "p6").mean(axis=0)
    assert np.linalg.norm(predicted - truth) < 0.5 * np.linalg.norm(control.X.mean(axis=0) - truth)


def test_adapting_to_control_cells_alone_changes_nothing(quick, sparse):
    data = sparse[0]
    adapted = quick["svae-plus"].adapt(data[:10].copy())
    assert adapted.environments == quick["svae-plus"].environments
    np.testing.assert_array_equal(adapted.intervention_targets(), quick["svae-plus"].intervention_targets())


# --- prediction


@pytest.mark.parametrize("name", SHIFTED)
def test_codes_move_by_the_shift_within_content_labels_whatever_the_masks(name, quick, sparse):
    """Types of unequal shares: the mean over all cells, which is what a prior learns, would be another shift."""
    data = sparse[0].copy()
    # at least 20 cells of each, as a shift asks for
    data.obs["cell_type"] = np.where(np.arange(540) % 60 < np.where(environments(data) == "p5", 38, 22), "a", "b")
    method = with_masks(quick[name], np.full((8, 4), -5.0)) if name in MASKED else copy.copy(quick[name])
    method.remember_latents(data)
    codes, types = method.embed(data), data.obs["cell_type"].to_numpy(str)

    def mean(environment, content):
        return codes[(environments(data) == environment) & (types == content)].mean(axis=0)

    shift = np.mean([mean("p5", content) - mean("control", content) for content in "ab"], axis=0)
    control = data[environments(data) == "control"].copy()
    moved = method.embed(control) + shift
    np.testing.assert_allclose(method.predict(control, "p5"), method.decode(moved), rtol=1e-4, atol=1e-4)
    both = shift + np.mean([mean("p1", content) - mean("control", content) for content in "ab"], axis=0)
    np.testing.assert_allclose(method.latent_shift("control", "p5+p1"), both, rtol=1e-4, atol=1e-5)


def test_prediction_moves_cells_toward_the_target(trained, sparse):
    data, method = sparse[0], trained["svae-plus"]
    control = data[environments(data) == "control"].copy()
    for target in ("p0", "p6"):
        truth = data.X[environments(data) == target].mean(axis=0)
        left = np.linalg.norm(method.predict(control, target).mean(axis=0) - truth)
        # measured .32 and .17
        assert left < 0.5 * np.linalg.norm(control.X.mean(axis=0) - truth)


@pytest.mark.parametrize("name", SHIFTED)
def test_cells_of_an_unknown_environment_are_embedded_but_not_moved(name, quick, labelled):
    cells = labelled(np.full((2, 20), 5.0), ["never seen"] * 2)
    assert quick[name].embed(cells).shape == (2, 4)
    with pytest.raises(CannotFit, match="'never seen'"):
        quick[name].predict(cells, "p0")


def test_likelihood_is_under_the_prior_of_the_cells_environment(quick, sparse):
    """With a decoder that ignores z, and a posterior that is p4's prior, all that counts is the prior."""
    method, shift = copy.copy(quick["ivae"]), torch.tensor([1.0, -2.0, 0.5, 0.0])
    method.network = copy.deepcopy(method.network)
    with torch.no_grad():
        method.network["shifts"]["mean"][4] = shift

    class Posterior(torch.nn.Module):
        def forward(self, x):
            return shift.expand(len(x), 4), torch.zeros(len(x), 4)

    class Constant(torch.nn.Module):
        def forward(self, z):
            return torch.zeros(len(z), 20)

    method.network["encoder"], method.network["decoder"] = Posterior(), Constant()
    scaler, likelihood = method.network["observation"].scaler, method.network["observation"].likelihood
    deviation = float(scaler.std) * float(torch.exp(0.5 * likelihood.log_variance.detach()))
    cells = sparse[0][environments(sparse[0]) == "p4"].copy()
    of_decoder = norm(scaler.mean.numpy(), deviation).logpdf(cells.X).sum(axis=1)
    np.testing.assert_allclose(method.log_likelihood(cells, 3), of_decoder, rtol=1e-4)
    # under another prior too, on average over draws
    cells.obs["condition"] = "control"
    for n_samples, least in ((1, 1.0), (3000, -0.1)):
        below = np.mean(of_decoder - method.log_likelihood(cells, n_samples))
        assert least < below < (5.0 if n_samples == 1 else 0.5)


@pytest.mark.parametrize("name", SHIFTED)
def test_the_own_label_explains_a_cell_best(name, sparse):
    data = sparse[0]
    method = fitted(name, data, **{**TRAINED, "steps": 480}, **({"sparsity": 0.0} if name in MASKED else {}))
    cells = data[environments(data) == "p4"].copy()
    own = method.log_likelihood(cells, 20).mean()
    for other in ("control", "p0"):
        cells.obs["condition"] = other
        assert method.log_likelihood(cells, 20).mean() < own - 1


def test_where_there_are_counts_they_are_modelled(labelled):
    counts = np.random.default_rng(0).poisson(4.0, (60, 12)).astype(np.float32)
    data = labelled(
        np.log1p(counts / counts.sum(1, keepdims=True) * 1e4), np.array(["control", "p0"])[np.arange(60) % 2]
    )
    assert fitted("svae-plus", data).likelihood == "gaussian"
    data.layers["counts"] = counts
    method = fitted("svae-plus", data)
    assert method.likelihood == "negative-binomial"
    assert np.isfinite(method.predict(data, "p0")).all()
