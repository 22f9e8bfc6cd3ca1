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
    },
)
