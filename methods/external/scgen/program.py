"""scGen as a program that reads and writes h5ad files; it runs in an environment of its own and knows no suite."""

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
logging.disable(logging.WARNING)  # Lightning's notes on devices

with warnings.catch_warnings(record=True):  # Lightning 1.7 says on import, against any filter, what became of its names
    import anndata
    import numpy as np
    import scvi
    import torch
    from scgen import SCGEN, SCGENVAE
    from scipy.sparse import issparse

warnings.simplefilter("ignore")
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
    if asked.action == "fit":
        fit(data, json.loads(Path(asked.config).read_text()), int(asked.seed), model)
        return
    state = torch.load(model / "scgen.pt", weights_only=True)
    network = SCGENVAE(data.n_vars, **state["sizes"])
    network.load_state_dict(state["weights"])
    network.eval()
    with torch.no_grad():
        codes = network.z_encoder(torch.from_numpy(dense(data)))[0]
        if asked.action == "embed":
            out = anndata.AnnData(obs=data.obs[[]], obsm={"codes": codes.numpy()})
        else:
            codes = codes + shifts(data, asked.environment, state["deltas"])
            out = anndata.AnnData(network.decoder(codes).numpy(), obs=data.obs[[]], var=data.var[[]])
    out.write_h5ad(asked.out)


def fit(data: anndata.AnnData, config: dict, seed: int, model: Path) -> None:
    """Train on all cells; keep the weights, and each environment's mean code less that of the control."""
    scvi.settings.seed = seed
    labels = data.obs[["environment"]].astype(str)
    labels["content"] = data.obs["content"].astype(str) if "content" in data.obs else "all"
    environments = sorted(set(labels["environment"]))
    control = str(data.uns.get("control", ""))
    control = control if control in environments else environments[0]
    cells = anndata.AnnData(dense(data), obs=labels, var=data.var[[]])
    SCGEN.setup_anndata(cells, batch_key="environment", labels_key="content")
    sizes = {
        "n_hidden": config["width"],
        "n_latent": config["n_latent"],
        "n_layers": config["depth"],
        "dropout_rate": config["dropout"],
    }
    scgen = SCGEN(cells, **sizes)
    scgen.train(
        max_epochs=config["max_epochs"],
        batch_size=config["minibatch"],
        use_gpu=False,
        early_stopping=True,
        early_stopping_patience=config["patience"],
        enable_progress_bar=False,
        simple_progress_bar=False,
    )
    scgen.module.eval()
    deltas = {control: torch.zeros(config["n_latent"])}
    for environment in environments:
        if environment != control:
            _, delta = scgen.predict(ctrl_key=control, stim_key=environment, adata_to_predict=cells[:2].copy())
            deltas[environment] = torch.as_tensor(delta)
    state = {"weights": scgen.module.state_dict(), "sizes": sizes, "deltas": deltas}
    torch.save(state, model / "scgen.pt")


def shifts(data: anndata.AnnData, environment: str, deltas: dict) -> torch.Tensor:
    """Return the vectors (n_cells, n_latent) that lead from the cells' own environments to another."""
    own = data.obs["environment"].astype(str)
    for name in [environment, *sorted(set(own))]:
        if name not in deltas:
            print(f"scGen was not trained on environment {name!r}", file=sys.stderr)
            sys.exit(NOT_MADE_FOR_THIS)
    return deltas[environment] - torch.stack([deltas[name] for name in own])


def dense(data: anndata.AnnData) -> np.ndarray:
    """Return the expression as an array of float32."""
    return np.asarray(data.X.toarray() if issparse(data.X) else data.X, dtype=np.float32)


if __name__ == "__main__":
    main()
