"""scArches' trVAE as a program that reads and writes h5ad files; it runs in its own environment and knows no suite."""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the package takes a GPU wherever it finds one
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)  # on import it names packages for its other models, which are not installed

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from scarches.models import TRVAE  # noqa: E402
from scipy.sparse import issparse  # noqa: E402

torch.set_num_threads(1)
NOT_MADE_FOR_THIS = 3


def main() -> None:
    """Fit, embed or predict, as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["fit", "embed", "predict"])
    for name in ("data", "config", "seed", "model", "out", "environment"):
        parser.add_argument(f"--{name}")
    asked = parser.parse_args()
    data, model = anndata.read_h5ad(asked.data), Path(asked.model)
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints its layers and losses
        if asked.action == "fit":
            fit(data, json.loads(Path(asked.config).read_text()), int(asked.seed), model)
            return
        trvae, known = fitted(data, model)
        codes = encoded(trvae, data, environments(data, known))
    if asked.action == "embed":
        out = anndata.AnnData(obs=data.obs[[]], obsm={"codes": codes})
    else:
        if asked.environment not in known["environments"]:
            refuse(f"trVAE was not trained on environment {asked.environment!r}")
        out = anndata.AnnData(decoded(trvae, codes, asked.environment), obs=data.obs[[]], var=data.var[[]])
    out.write_h5ad(asked.out)


def fit(data: anndata.AnnData, config: dict, seed: int, model: Path) -> None:
    """Train on all cells and keep the weights."""
    if dense(data).min() < 0:
        refuse("scArches' trVAE ends in a ReLU and cannot fit data with negative values")
    trained = sorted(set(data.obs["environment"].astype(str)))
    control = str(data.uns.get("control", ""))
    known = {"environments": trained, "control": control if control in trained else trained[0], "config": config}
    # the package takes the last tenth of each environment's rows to stop by, so their order should mean nothing
    data = data[np.random.default_rng(seed).permutation(data.n_obs)].copy()
    torch.manual_seed(seed)
    trvae = built(data, known)
    trvae.train(n_epochs=config["max_epochs"], alpha_kl=config["kl"], seed=seed, monitor=False)
    torch.save(trvae.model.state_dict(), model / "weights.pt")
    (model / "known.json").write_text(json.dumps(known))


def built(data: anndata.AnnData, known: dict) -> TRVAE:
    """Return an untrained model of cells."""
    config = known["config"]
    cells = anndata.AnnData(dense(data), obs={"environment": environments(data, known)})
    return TRVAE(
        cells,
        condition_key="environment",
        conditions=list(known["environments"]),
        hidden_layer_sizes=list(config["hidden"]),
        latent_dim=config["n_latent"],
        dr_rate=config["dropout"],
        use_mmd=True,
        mmd_on="y",
        recon_loss="mse",
        beta=config["mmd"],
    )


def fitted(data: anndata.AnnData, model: Path) -> tuple[TRVAE, dict]:
    """Return the trained model and what it knows."""
    known = json.loads((model / "known.json").read_text())
    trvae = built(data, known)
    trvae.model.load_state_dict(torch.load(model / "weights.pt", weights_only=True))
    trvae.model.eval()
    return trvae, known


def encoded(trvae: TRVAE, data: anndata.AnnData, own: list[str]) -> np.ndarray:
    """Return the mean codes of cells. The model's own function, as the package's fails at a last batch of one cell."""
    numbers = torch.tensor([trvae.model.condition_encoder[name] for name in own])
    with torch.no_grad():
        return trvae.model.get_latent(torch.from_numpy(dense(data)), numbers, mean=True).numpy()


def decoded(trvae: TRVAE, codes: np.ndarray, environment: str) -> np.ndarray:
    """Return the expression (n_cells, n_genes) of codes in an environment."""
    number = torch.full((len(codes),), trvae.model.condition_encoder[environment])
    with torch.no_grad():
        return trvae.model.decoder(torch.from_numpy(codes), number)[0].numpy()


def environments(data: anndata.AnnData, known: dict) -> list[str]:
    """Return the environments of cells; one that was not trained is the control."""
    labels = data.obs["environment"].astype(str)
    return labels.where(labels.isin(known["environments"]), known["control"]).tolist()


def dense(data: anndata.AnnData) -> np.ndarray:
    """Return the expression as an array of float32."""
    return np.asarray(data.X.toarray() if issparse(data.X) else data.X, dtype=np.float32)


def refuse(why: str) -> None:
    """End with the code that says that the program is not made for what was asked."""
    print(why, file=sys.stderr)
    sys.exit(NOT_MADE_FOR_THIS)


if __name__ == "__main__":
    main()
