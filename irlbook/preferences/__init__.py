"""Rewards from choices: which reward makes the comparisons that we saw likely?"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "bradley_terry": [
            "BradleyTerryResult",
            "PairReport",
            "as_pairs",
            "bradley_terry_gradient",
            "bradley_terry_log_likelihood",
            "check_win_graph",
            "differences",
            "fisher_information",
            "fit_bradley_terry",
            "inspect_pairs",
            "pairs_from_labels",
            "sample_preferences",
            "win_graph",
        ],
        "classification": [
            "ClassificationResult",
            "classification_log_likelihood",
            "fit_classification",
            "order_consistency",
            "win_probability",
        ],
        "embedding_trial": ["EmbeddingTrial", "draw_trial", "linear_head", "network_heads"],
        "trex": ["TrexResult", "cut_snippets", "fit_trex", "ranked_pairs", "trajectory_features"],
    },
)
