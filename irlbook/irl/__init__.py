"""Inverse reinforcement learning: which reward makes the behaviour that we saw likely?"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "apprenticeship": [
            "ApprenticeshipResult",
            "expert_features",
            "nearest_in_hull",
            "policy_of",
            "project_on_segment",
            "sample_size",
        ],
        "bayesian": [
            "Chains",
            "Laplace",
            "Posterior",
            "calibration_ranks",
            "choice_counts",
            "coverage",
            "many_log_likelihoods",
            "metropolis",
        ],
        "chosen_moves": ["ChosenPlan", "ChosenWorld"],
        "deep_maxent": [
            "DeepMaxEntConfig",
            "DeepMaxEntResult",
            "OccupancyDual",
            "fit_deep_max_ent",
            "reward_network",
            "standardise",
        ],
        "dual": ["DualProblem", "Features", "MaxEntResult", "Point", "check_expert", "fit"],
        "groups": [
            "CheckedGroup",
            "Group",
            "are_groups",
            "check_groups",
            "group_by_goal",
            "group_by_start",
        ],
        "linear_programming": [
            "LPResult",
            "chosen_actions",
            "is_optimal",
            "ng_russell",
            "optimality_constraints",
        ],
        "many_goals": ["Edges", "SharedPlan", "SharedSystem", "choice_hessian"],
        "maxent": [
            "Causal",
            "CausalGroups",
            "CausalPlan",
            "causal_dual",
            "causal_hessian",
            "end_in",
            "fit_max_causal_ent",
            "log_likelihood",
        ],
        "maxent_paths": [
            "LonePlan",
            "PathModel",
            "PathPlan",
            "PathsTo",
            "fit_max_ent_paths",
            "log_matvec",
            "path_dual",
            "path_hessian",
        ],
        "shaping": ["potential_shaping", "shaped"],
    },
)
