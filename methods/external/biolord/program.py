"""Biolord as a program that reads and writes h5ad files; it runs in an environment of its own and knows no suite."""

import argparse
import json
import logging
import math
import sys
import warnings
from pathlib import Path

import anndata
import biolord
import numpy as np
import pandas as pd
import torch
from scipy.sparse import issparse

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)  # Lightning's notes on the number of workers
torch.set_num_threads(1)
NOT_MADE_FOR_THIS = 3


def main() -> None:
    """Fit or predict, as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["fit", "predict"])
    for name in ("data", "config", "seed", "model", "out", "environment"):
        parser.add_argument(f"--{name}")
    asked = parser.parse_args()
    data, model = anndata.read_h5ad(asked.data), Path(asked.model)
    if asked.action == "fit":
        fit(data, json.loads(Path(asked.config).read_text()), int(asked.seed), model)
    else:
        x = predict(data, asked.environment, model)
        anndata.AnnData(x, obs=data.obs[[]], var=data.var[[]]).write_h5ad(asked.out)


def fit(data: anndata.AnnData, config: dict, seed: int, model: Path) -> None:
    """Train on all cells; keep the weights, and the cells' names and labels."""
    keys = [name for name in ("environment", "content") if name in data.obs]
    labels = data.obs[keys].astype(str)
    x = data.X.toarray() if issparse(data.X) else data.X
    cells = anndata.AnnData(np.asarray(x, dtype=np.float32), obs=labels.copy(), var=data.var[[]])
    biolord.Biolord.setup_anndata(cells, categorical_attributes_keys=keys)
    fitted = biolord.Biolord(
        cells,
        n_latent=config["n_latent"],
        module_params={
            "n_latent_attribute_categorical": config["n_attribute"],
            "decoder_width": config["width"],
            "decoder_depth": config["depth"],
            "seed": seed,
        },
    )
    fitted.train(
        max_epochs=config["max_epochs"],
        batch_size=minibatch(data.n_obs),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=None,
    )
    fitted.save(model / "biolord", save_anndata=False, overwrite=True)
    labels.to_csv(model / "labels.csv")


def predict(data: anndata.AnnData, environment: str, model: Path) -> np.ndarray:
    """Return the mean expression of trained cells when their environment is exchanged."""
    labels = pd.read_csv(model / "labels.csv", index_col=0, dtype=str, keep_default_na=False)
    if environment not in set(labels["environment"]):
        refuse(f"biolord was not trained on environment {environment!r}")
    if not labels.index.is_unique or not data.obs_names.isin(labels.index).all():
        refuse("biolord has codes of its training cells alone, and these are others")
    # the package builds its table of codes from the training cells, and reads their expression for its shape alone
    trained = anndata.AnnData(np.ones((len(labels), data.n_vars), dtype=np.float32), obs=labels, var=data.var[[]])
    biolord.Biolord.setup_anndata(trained, categorical_attributes_keys=list(labels.columns))
    fitted = biolord.Biolord.load(model / "biolord", adata=trained, accelerator="cpu")
    names = [*data.obs_names, data.obs_names[0]]  # the package fails at a minibatch of one cell
    cells = trained[names].copy()
    cells.obs["environment"] = environment
    return fitted.predict(cells, batch_size=len(names))[0].X[:-1]


def minibatch(n_cells: int) -> int:
    """Return the package's 128, or the next smaller size that leaves no minibatch of one or two cells."""
    n_train = math.ceil(0.9 * n_cells)
    sizes = (size for size in range(128, 2, -1) if n_train % size not in (1, 2) and (n_cells - n_train) % size != 1)
    return next(sizes, 128)


def refuse(why: str) -> None:
    """End with the code that says that the program is not made for what was asked."""
    print(why, file=sys.stderr)
    sys.exit(NOT_MADE_FOR_THIS)


if __name__ == "__main__":
    main()
