"""DRVI as a program that reads and writes h5ad files; it runs in an environment of its own and knows no suite."""

import argparse
import json
import warnings
from pathlib import Path

import anndata
import numpy as np
import scvi
import torch
from drvi.model import DRVI

warnings.filterwarnings("ignore")
torch.set_num_threads(1)


def main() -> None:
    """Fit or embed, as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["fit", "embed"])
    for name in ("data", "config", "seed", "model", "out"):
        parser.add_argument(f"--{name}")
    asked = parser.parse_args()
    data, model = anndata.read_h5ad(asked.data), Path(asked.model)
    if asked.action == "fit":
        fit(data, json.loads(Path(asked.config).read_text()), int(asked.seed), model)
    else:
        anndata.AnnData(obs=data.obs[[]], obsm={"codes": embed(data, model)}).write_h5ad(asked.out)


def fit(data: anndata.AnnData, config: dict, seed: int, model: Path) -> None:
    """Train on all cells and keep the weights."""
    scvi.settings.seed = seed
    environments = sorted(set(data.obs["environment"].astype(str)))
    control = str(data.uns.get("control", ""))
    known = {"environments": environments, "control": control if control in environments else environments[0]}
    (model / "known.json").write_text(json.dumps(known))
    data = prepared(data, known)
    counts = "counts" in data.layers
    DRVI.setup_anndata(
        data,
        layer="counts" if counts else None,
        is_count_data=counts,
        categorical_covariate_keys=["environment"] if len(environments) > 1 else None,
    )
    drvi = DRVI(
        data,
        n_latent=config["n_latent"],
        encoder_dims=config["hidden"],
        decoder_dims=config["hidden"],
        gene_likelihood="pnb" if counts else "normal",
    )
    drvi.train(
        max_epochs=config["max_epochs"],
        accelerator="cpu",
        early_stopping=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=None,
        plan_kwargs={"n_epochs_kl_warmup": config["max_epochs"]},
    )
    drvi.save(model / "drvi", save_anndata=False, overwrite=True)


def embed(data: anndata.AnnData, model: Path) -> np.ndarray:
    """Return the posterior means of cells, (n_cells, n_latent)."""
    known = json.loads((model / "known.json").read_text())
    drvi = DRVI.load(model / "drvi", adata=prepared(data, known), accelerator="cpu")
    return drvi.get_latent_representation()


def prepared(data: anndata.AnnData, known: dict) -> anndata.AnnData:
    """Return the cells with an environment that was trained."""
    environment = data.obs["environment"].astype(str)
    data.obs["environment"] = environment.where(environment.isin(known["environments"]), known["control"])
    return data


if __name__ == "__main__":
    main()
