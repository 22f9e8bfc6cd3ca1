"""Metrics: pure functions of arrays, each with its direction, range, reference and known answers.

``METRICS`` maps every name to its function; ``METRICS[name].info`` says how to read the score.
"""

from metrics.base import MetricInfo, metric
from metrics.registry import Registry, UnknownName

__all__ = ["METRICS", "MetricInfo", "Registry", "UnknownName", "metric"]

METRICS = Registry(
    "metric",
    {
        # embedding
        "displacement": "metrics.embedding:displacement",
        "knn_recall": "metrics.embedding:knn_recall",
        "trustworthiness": "metrics.embedding:trustworthiness",
        "continuity": "metrics.embedding:continuity",
        "distance_spearman": "metrics.embedding:distance_spearman",
        "training_drift": "metrics.embedding:training_drift",
        "reconstruction_error": "metrics.embedding:reconstruction_error",
        "training_reconstruction_error": "metrics.embedding:training_reconstruction_error",
        "label_transfer": "metrics.embedding:label_transfer",
        # perturbation
        "skill": "metrics.perturbation:skill",
        "delta_cosine": "metrics.perturbation:delta_cosine",
        "delta_pearson": "metrics.perturbation:delta_pearson",
        "deg_sign_accuracy": "metrics.perturbation:deg_sign_accuracy",
        "deg_auprc": "metrics.perturbation:deg_auprc",
        "log_variance_error": "metrics.perturbation:log_variance_error",
        "correlation_error": "metrics.perturbation:correlation_error",
        "energy_distance": "metrics.perturbation:energy_distance",
        "mmd": "metrics.perturbation:mmd",
        "mean_r2": "metrics.perturbation:mean_r2",
        "legacy_r2": "metrics.perturbation:legacy_r2",
        "legacy_r2_no_change": "metrics.perturbation:legacy_r2_no_change",
        "legacy_r2_top_degs": "metrics.perturbation:legacy_r2_top_degs",
        # identifiability
        "mcc": "metrics.identifiability:mcc",
        "mcc_within": "metrics.identifiability:mcc_within",
        "latent_r2": "metrics.identifiability:latent_r2",
        "target_auprc": "metrics.identifiability:target_auprc",
        "target_f1": "metrics.identifiability:target_f1",
        # disentanglement
        "mig": "metrics.disentanglement:mig",
        "sap": "metrics.disentanglement:sap",
        "dci_completeness": "metrics.disentanglement:dci_completeness",
        "infoc": "metrics.disentanglement:infoc",
        "dci_disentanglement": "metrics.disentanglement:dci_disentanglement",
        "modularity": "metrics.disentanglement:modularity",
        "infom": "metrics.disentanglement:infom",
        "dci_informativeness": "metrics.disentanglement:dci_informativeness",
        "explicitness": "metrics.disentanglement:explicitness",
        "infoe": "metrics.disentanglement:infoe",
        "beta_vae_score": "metrics.disentanglement:beta_vae_score",
        "factor_vae_score": "metrics.disentanglement:factor_vae_score",
        "irs": "metrics.disentanglement:irs",
        # blocks
        "block_diagonality": "metrics.blocks:block_diagonality",
        "leakage_linear": "metrics.blocks:leakage_linear",
        "leakage_boosted": "metrics.blocks:leakage_boosted",
        "conditional_leakage": "metrics.blocks:conditional_leakage",
        "cluster_ari": "metrics.blocks:cluster_ari",
        "cluster_nmi": "metrics.blocks:cluster_nmi",
        # integration
        "clisi": "metrics.integration:clisi",
        "ari_leiden": "metrics.integration:ari_leiden",
        "nmi_leiden": "metrics.integration:nmi_leiden",
        "isolated_labels": "metrics.integration:isolated_labels",
        "ilisi": "metrics.integration:ilisi",
        "bras": "metrics.integration:bras",
        "silhouette_batch": "metrics.integration:silhouette_batch",
        "graph_connectivity": "metrics.integration:graph_connectivity",
        "kbet_per_label": "metrics.integration:kbet_per_label",
        "pcr_comparison": "metrics.integration:pcr_comparison",
        # geometry
        "ood_distance": "metrics.geometry:ood_distance",
        "local_distortion": "metrics.geometry:local_distortion",
        "cka": "metrics.geometry:cka",
        # curvature
        "extrinsic_curvature": "metrics.curvature:extrinsic_curvature",
        "parameter_effects_curvature": "metrics.curvature:parameter_effects_curvature",
        # transfer
        "skill_half": "metrics.transfer:skill_half",
        "likelihood_gain": "metrics.transfer:likelihood_gain",
        "delta_pearson_top_degs": "metrics.transfer:delta_pearson_top_degs",
        # fate
        "fate_skill": "metrics.fate:fate_skill",
        "fate_auroc": "metrics.fate:fate_auroc",
        "fate_skill_knn": "metrics.fate:fate_skill_knn",
        "fate_auroc_knn": "metrics.fate:fate_auroc_knn",
    },
)
