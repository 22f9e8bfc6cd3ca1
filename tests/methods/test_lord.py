"""LORD: where its codes come from, what they hold, and what its two stages do."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from methods import CannotFit
from methods.lord import LORD, _Encoders, _Latents
from methods.vaes import VAE

TINY = {"n_latent": 3, "n_class": 2, "hidden": (16,), "steps": 24, "passes": 1}
#: With as few cells as here the default steps do not get codes far enough from their start.
TRAINED = {
    "n_latent": 5,
    "hidden": (48,),
    "steps": 1200,
    "passes": 1,
    "minibatch": 32,
    "learning_rate": 1e-3,
    "encoder_learning_rate": 1e-3,
    "latent_learning_rate": 2e-2,
    "decay": 1e-2,
}


def fitted(data, seed=0, **changes):
    return LORD(LORD.configure(**{**TINY, **changes})).fit(data, seed)


def classes(data):
    return data.obs["condition"].to_numpy(str)


@pytest.fixture(scope="module")
def strong(labelled):
    """450 cells of three classes with a strong effect, around the same contents; the contents, and each cell in all."""
    rng = np.random.default_rng(0)
    content, number = rng.standard_normal((450, 3)), np.arange(450) % 3
    names, effects = ["control", "A", "B"], 2 * rng.standard_normal((3, 30))
    base = 8 + content @ rng.standard_normal((3, 30))
    x = base + effects[number] + 0.2 * rng.standard_normal((450, 30))
    truth = {name: base + effect for name, effect in zip(names, effects, strict=True)}
    return labelled(x, np.array(names)[number]), content, truth


@pytest.fixture(scope="module")
def trained(strong):
    """One good fit; no test may change it."""
    return fitted(strong[0], **TRAINED)


@pytest.fixture(scope="module")
def quick(structured):
    return fitted(structured)


# --- where codes come from


def test_codes_are_the_encoders_of_training_cells_too(quick, structured):
    network = quick.network
    with torch.no_grad():
        x = network["observation"].scaler(torch.from_numpy(structured.X))
        content, of_class = network["content_encoder"](x)[0], network["class_encoder"](x)[0]
    blocks = quick.embed_blocks(structured)
    np.testing.assert_array_equal(blocks["shared"], content.numpy())
    np.testing.assert_array_equal(blocks["private"], of_class.numpy())
    np.testing.assert_array_equal(quick.embed(structured), blocks["shared"])
    assert (blocks["shared"].shape, blocks["private"].shape) == ((300, 3), (300, 2))


def test_a_new_cell_that_equals_a_training_cell_has_its_code(trained, strong):
    """Codes of stage 1 differ between two such cells, and a new one has none."""
    data = strong[0]
    cell = data[7].copy()
    cell.obs_names = ["new"]
    cell.obs["condition"] = "never seen"
    np.testing.assert_allclose(trained.embed(cell)[0], trained.embed(data)[7], rtol=1e-5, atol=1e-5)


def test_no_code_of_stage_one_is_kept(quick, structured):
    assert not any(np.shape(value)[:1] == (structured.n_obs,) for value in quick.state().values())


# --- the two stages


class Recording(torch.nn.Module):
    """A generator that keeps what it reads."""

    def __init__(self, n_genes):
        super().__init__()
        self.weight, self.read = torch.nn.Parameter(torch.zeros(1)), []
        self.n_genes = n_genes

    def forward(self, codes):
        self.read.append(codes)
        return torch.zeros(len(codes), self.n_genes) + self.weight


def stages(n_genes=6, n_cells=2000):
    torch.manual_seed(0)
    method = LORD(LORD.configure(**TINY, decay=0.02, match=5.0))
    method.classes, method.likelihood = ["a", "b"], "gaussian"
    network = method.build(n_genes)
    network["decoder"] = Recording(n_genes)
    network["content"] = torch.nn.Embedding(n_cells, 3)
    minibatch = {
        "x": torch.randn(n_cells, n_genes),
        "class": torch.arange(n_cells) % 2,
        "cell": torch.arange(n_cells),
        "content": torch.randn(n_cells, 3),
    }
    return method, network, minibatch


def test_stage_one_decodes_noisy_contents_with_the_embedding_of_the_class():
    method, network, minibatch = stages()
    terms = _Latents(method.config).loss_terms(network, minibatch, 0)
    read, codes = network["decoder"].read[0].detach(), network["content"].weight.detach()
    noise = (read[:, :3] - codes).numpy()
    assert abs(noise.mean()) < 0.05
    np.testing.assert_allclose(noise.std(axis=0), 1, atol=0.05)
    torch.testing.assert_close(read[:, 3:], network["class"].weight.detach()[minibatch["class"]])
    expected = 6 * 0.02 * codes.square().sum(1).mean()
    torch.testing.assert_close(terms["decay"].detach(), expected)
    assert set(terms) == {"reconstruction", "decay"}


def test_stage_one_trains_codes_embeddings_and_generator_at_their_own_steps():
    method, network, _ = stages()
    generator, codes = _Latents(method.config).parameter_groups(network)
    names = {id(parameter): name.split(".")[0] for name, parameter in network.named_parameters()}
    assert {names[id(p)] for p in generator["params"]} == {"decoder", "observation"}
    assert {names[id(p)] for p in codes["params"]} == {"content", "class"}
    assert codes["lr"] == method.config.latent_learning_rate == 3e-3
    assert generator["betas"] == codes["betas"] == (0.5, 0.999)


def test_stage_two_matches_codes_and_embeddings_that_stay():
    method, network, minibatch = stages(n_cells=50)
    terms = _Encoders(method.config).loss_terms(network, minibatch, 0)
    content, of_class = (network[f"{part}_encoder"](minibatch["x"])[0] for part in ("content", "class"))
    read = network["decoder"].read[0]
    torch.testing.assert_close(read, torch.cat([content, of_class], 1))  # no noise
    embedded = network["class"].weight[minibatch["class"]]
    distance = (content - minibatch["content"]).square().mean() + (of_class - embedded).square().mean()
    # theirs stands beside a mean over outputs, the likelihood is a sum over 6 genes
    torch.testing.assert_close(terms["match"], 6 * 5 * distance)
    terms["match"].backward()
    assert network["class"].weight.grad is None
    trained = {id(p) for group in _Encoders(method.config).parameter_groups(network) for p in group["params"]}
    assert id(network["class"].weight) not in trained
    assert all(id(p) in trained for p in network["content_encoder"].parameters())
    assert all(id(p) in trained for p in network["decoder"].parameters())


def test_what_stage_two_matches_are_the_codes_of_stage_one(strong, monkeypatch):
    seen, original = [], _Encoders.loss_terms

    def noting(self, network, minibatch, progress):
        seen.append((minibatch["x"], minibatch["content"]))
        return original(self, network, minibatch, progress)

    monkeypatch.setattr(_Encoders, "loss_terms", noting)
    method = fitted(strong[0], **{**TRAINED, "steps": 160})
    cells, codes = (torch.cat([pair[i] for pair in seen[-15:]]) for i in (0, 1))
    # stage 1 keeps the codes of its best epoch, which is its last or nearly
    assert float(codes.square().sum(1).mean()) == pytest.approx(squared_norm(method, 30, TRAINED["decay"]), rel=0.15)
    with torch.no_grad():
        encoded = method.network["content_encoder"](cells)[0]
    # and what the encoder has learned is them: measured .93
    assert np.corrcoef(encoded.numpy().ravel(), codes.numpy().ravel())[0, 1] > 0.8


def test_both_stages_are_in_the_history(quick):
    assert set(quick.history) == {"codes_reconstruction", "codes_decay", "reconstruction", "match", "validation"}
    assert len(quick.history["codes_decay"]) == 3


def squared_norm(method, n_genes, decay):
    """Mean ‖c‖² in the last epoch of stage 1, read off its decay."""
    return method.history["codes_decay"][-1] / (n_genes * decay)


def test_the_decay_shrinks_the_codes(strong):
    data = strong[0]
    network = {**TRAINED, "steps": 240}
    found = [squared_norm(fitted(data, **{**network, "decay": decay}), 30, decay) for decay in (1e-5, 1e-2, 0.3)]
    # measured 3.4, 2.1, .0005
    assert found[0] > 1.3 * found[1] > 20 * found[2]


def test_codes_start_small(strong):
    """What is left of a random start, in the few steps that a code has, no encoder can learn."""
    data = strong[0]
    method = fitted(data, steps=8, latent_learning_rate=1e-9, decay=1e-2)
    assert squared_norm(method, 30, 1e-2) < 0.01
    assert squared_norm(method, 30, 1e-2) > 1e-4


def test_classes_start_as_small_as_codes():
    """At 956005a they started at N(0, I), so that the generator fitted each class apart."""
    network = stages()[1]
    start = network["class"].weight.detach()
    assert 0 < float(start.abs().max()) <= 0.05


def test_stage_two_has_a_rate_of_its_own_and_codes_get_their_passes(strong, monkeypatch):
    import methods.nn.training

    schedules, original = [], methods.nn.training.train

    def noting(model, network, tensors, schedule, *rest):
        schedules.append(schedule)
        return original(model, network, tensors, schedule, *rest)

    monkeypatch.setattr(methods.nn.training, "train", noting)
    fitted(strong[0], steps=16)
    assert [schedule.learning_rate for schedule in schedules] == [3e-4, 1e-4]
    assert [schedule.steps for schedule in schedules] == [16, 16]
    fitted(strong[0], steps=16, passes=7)
    assert schedules[-1].steps == 7 * schedules[-1].minibatches(len(strong[0]))


def test_stages_that_were_cut_short_say_so(strong, trained):
    # measured 1.57
    assert "stage 1" not in trained.unconverged
    # measured .05
    early = fitted(strong[0], n_latent=5, hidden=(128, 128), steps=160)
    reasons = early.unconverged.split("; ")
    assert reasons[0].startswith("stage 1 left codes near their start (standard deviation 0.")
    blind = fitted(strong[0], **{**TRAINED, "steps": 480, "encoder_learning_rate": 1e-9})
    assert "stage 2 left encoders that miss" in blind.unconverged


# --- what codes hold


def leakage(codes, labels):
    scaled = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    return cross_val_score(LogisticRegression(max_iter=500), scaled, labels, cv=5).mean()


def test_the_content_leaks_less_of_the_class_than_codes_of_a_vae(trained, strong):
    data, _, _ = strong
    shared = {key: TRAINED[key] for key in ("n_latent", "hidden", "steps")}
    vae = VAE(VAE.configure(**shared, learning_rate=5e-3)).fit(data, 0)
    blocks = trained.embed_blocks(data)
    # measured 1, .29 and 1; chance is .33
    assert leakage(vae.embed(data), classes(data)) > 0.95
    assert leakage(blocks["shared"], classes(data)) < 0.55
    assert leakage(blocks["private"], classes(data)) > 0.95


def test_the_content_holds_the_content(trained, strong):
    data, content, _ = strong
    codes = np.column_stack([trained.embed(data), np.ones(data.n_obs)])
    residual = content - codes @ np.linalg.lstsq(codes, content, rcond=None)[0]
    assert 1 - residual.var() / content.var() > 0.9  # measured .98


def test_the_class_code_of_a_cell_is_near_the_embedding_of_its_class(trained, strong):
    data = strong[0]
    codes = trained.embed_blocks(data)["private"]
    embedded = trained.network["class"].weight.detach().numpy()
    distance = np.square(codes[:, None] - embedded[None]).sum(-1)
    assert (np.array(trained.classes)[distance.argmin(axis=1)] == classes(data)).mean() > 0.98


# --- prediction


def test_prediction_decodes_the_content_with_the_embedding_of_the_target(quick, structured):
    for target in ("control", "stimulated"):
        embedded = quick.network["class"].weight[quick.classes.index(target)].detach()
        codes = torch.from_numpy(quick.embed(structured))
        with torch.no_grad():
            output = quick.network["decoder"](torch.cat([codes, embedded.expand(300, 2)], 1))
            expected = quick.network["observation"].expression(output).numpy()
        np.testing.assert_allclose(quick.predict(structured, target), expected, rtol=1e-5, atol=1e-5)


def test_swapping_the_class_changes_what_the_class_has_in_common_only(trained, strong):
    data, _, truth = strong
    for target in ("control", "A", "B"):
        predicted = trained.predict(data, target)
        variance = np.square(truth[target] - truth[target].mean(axis=0)).sum()
        # of the variance between cells, which is that of the contents; measured .027
        assert np.square(predicted - truth[target]).sum() / variance < 0.1
    # the same change for all cells, nearly
    change = trained.predict(data, "B") - trained.predict(data, "A")
    expected = (truth["B"] - truth["A"])[0]
    assert np.corrcoef(change.mean(axis=0), expected)[0, 1] > 0.98
    # measured .09
    assert change.std(axis=0).mean() < 0.2 * np.abs(expected).mean()


def test_a_class_never_trained_is_refused_by_name(quick, structured):
    with pytest.raises(
        CannotFit, match="lord was not trained on environment 'B'; trained environments: control, stimulated"
    ):
        quick.predict(structured, "B")


def test_one_class_alone(structured):
    control = structured[classes(structured) == "control"].copy()
    method = fitted(control)
    assert method.classes == ["control"]
    assert np.isfinite(method.predict(control, "control")).all()


def test_thirty_classes_of_which_one_has_one_cell(labelled):
    rng = np.random.default_rng(0)
    names = np.array([f"e{i:02d}" for i in range(30)])
    labels = np.append(names[np.arange(290) % 29], names[29])
    method = fitted(labelled(rng.standard_normal((291, 8)), labels))
    assert method.network["class"].weight.shape == (30, 2)
    assert all(np.isfinite(curve).all() for curve in method.history.values())


def test_counts_are_predicted_in_another_class(labelled):
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1.0, 1.0, (2, 20)) + 0.05
    number, library = np.arange(300) % 2, rng.lognormal(6.0, 0.3, 300)
    rate = library[:, None] * (profiles / profiles.sum(axis=1, keepdims=True))[number]
    counts = rng.poisson(rate).astype(np.float32)
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    data = labelled(x, np.array(["control", "A"])[number])
    data.layers["counts"] = counts
    method = fitted(data, **{**TRAINED, "n_latent": 2, "steps": 200}, likelihood="auto")
    assert method.likelihood == "negative-binomial"
    control, truth = data[number == 0].copy(), x[number == 1].mean(axis=0)
    # measured .20 and 1.7
    assert np.abs(method.predict(control, "A").mean(axis=0) - truth).mean() < 0.35
    assert np.abs(method.predict(control, "control").mean(axis=0) - truth).mean() > 0.7
