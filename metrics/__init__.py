"""Metrics: pure functions of arrays, each with its direction, range, reference and known answers.

``METRICS`` maps every name to its function; ``METRICS[name].info`` says how to read the score. A family is a function
that computes several metrics together and returns them by name.
"""

from metrics.base import MetricInfo, checked, family, metric
from metrics.registry import Registry, UnknownName

__all__ = ["METRICS", "MetricInfo", "Registry", "UnknownName", "checked", "family", "metric"]

#: Names, by the module, or the family in a module, that they belong to.
_PLACES = {
    "embedding": (
        "neighbour_agreement knn_recall displacement training_drift trustworthiness continuity distance_spearman "
        "reconstruction_error training_reconstruction_error label_transfer ood_distance"
    ),
    "embedding:two_seeds": "displacement_two_seeds agreement_two_seeds",
    "perturbation": (
        "skill delta_cosine delta_pearson deg_sign_accuracy deg_auprc log_variance_error correlation_error "
        "energy_distance mmd mean_r2 skill_half likelihood_gain delta_pearson_top_degs delta_pearson_perturbed"
    ),
    "perturbation:retrieval": "perturbation_discrimination centroid_accuracy",
    "perturbation:legacy": "legacy_r2 legacy_r2_no_change legacy_r2_top_degs",
    "identifiability": "mcc mcc_within mcc_rotated latent_r2 target_auprc target_f1",
    "disentanglement": "mig sap beta_vae_score factor_vae_score irs",
    "disentanglement:concentration": "modularity infom infoc",
    "disentanglement:linear_readout": "explicitness infoe",
    "disentanglement:dci": "dci_disentanglement dci_completeness dci_informativeness",
    "blocks": (
        "block_diagonality leakage_linear leakage_boosted conditional_leakage transfer_error findability bayes_accuracy"
    ),
    "blocks:clusters": "cluster_ari cluster_nmi",
    "integration:integration": (
        "ilisi pcr_comparison bras graph_connectivity kbet_per_label clisi ari_leiden nmi_leiden "
        "silhouette_label isolated_labels"
    ),
    "curvature:curvature": "extrinsic_curvature parameter_effects_curvature",
    "mixture": "composition_error profile_error",
    "latents:mutual_information": "lms_smi msas_smi msgs_smi",
    "latents:rank_correlation": "lms_asc msas_asc msgs_asc",
    "fate:linear_fates": "fate_skill fate_auroc",
    "fate:knn_fates": "fate_skill_knn fate_auroc_knn",
}

METRICS = Registry(
    "metric",
    {
        name: f"metrics.{place}.{name}" if ":" in place else f"metrics.{place}:{name}"
        for place, names in _PLACES.items()
        for name in names.split()
    },
)
