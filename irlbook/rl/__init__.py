"""Learning a policy from interaction, when the reward is known and the dynamics are not."""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "advantages": ["gae", "returns_to_go", "td_errors"],
        "ppo": [
            "ActorCritic",
            "PPOConfig",
            "PPOResult",
            "Rollout",
            "clipped_policy_loss",
            "collect",
            "evaluate",
            "make_vector_env",
            "sample_actions",
            "space_sizes",
        ],
        "q_learning": [
            "TDConfig",
            "TDResult",
            "constant",
            "epsilon_greedy",
            "linear",
            "power_decay",
            "q_learning_target",
            "sarsa",
            "sarsa_target",
        ],
        "reinforce": ["ReinforceConfig", "ReinforceResult", "play_episodes", "reinforce_loss"],
        "tabular_gradient": [
            "enumerate_trajectories",
            "estimator_moments",
            "exact_policy_gradient",
            "reinforce_estimate",
            "score",
            "softmax_policy",
            "values_by_time",
        ],
    },
)
