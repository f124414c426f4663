"""Search and guided decoding: a better response from a policy that is not trained any further.

measure.py            reward, KL, entropy and tokens of a method; the best reward at a KL
prefix_scorers.py     what an unfinished response is worth: exactly, by Monte Carlo, by TD
whole_response.py     why a reward of whole responses says nothing of a prefix
partial_sequence.py   Bradley–Terry on truncated pairs
guided.py             the next token's logit plus a weighted score (ARGS, RAD)
blockwise.py          blockwise best of k
beam.py               value-guided beam search
smc.py                twisted sequential Monte Carlo and its unbiased normaliser
speculative.py        speculative sampling, and with a reward
mcts.py               tree search with PUCT; games.py, step_tree.py: what it searches
expert_iteration.py   fitting the policy to what a search found
samplers.py           the same for real language models, as samplers
study.py              the small model with gold, at equal compute
"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "beam": ["beam_search"],
        "blockwise": ["block_ends", "blockwise_best_of_k"],
        "expert_iteration": ["Table", "break_even", "improve"],
        "games": ["NoughtsAndCrosses", "best_moves", "canonical", "positions", "solve"],
        "guided": ["guided_policy", "guided_tokens", "likeliest"],
        "mcts": ["Game", "Node", "puct", "rollout_value", "search", "uniform_rollouts"],
        "measure": ["Outcome", "best_reward_at_kl", "expected_tokens", "outcome"],
        "partial_sequence": ["cut", "partial_sequence_scores", "truncated_counts"],
        "prefix_scorers": [
            "check_scores",
            "mean_values",
            "monte_carlo_weights",
            "soft_values",
            "tabular_monte_carlo",
            "tabular_td",
            "td_weights",
            "visited_prefixes",
            "with_rewards",
        ],
        "samplers": [
            "BeamSampler",
            "GuidedSampler",
            "KeepBeam",
            "PopulationSampler",
            "Resample",
            "keep_best",
            "module_scorer",
        ],
        "self_play": [
            "BoardNetwork",
            "SelfPlayConfig",
            "alphazero",
            "guaranteed",
            "losses_to_chance",
            "network_move",
            "play_game",
            "searched_move",
        ],
        "smc": [
            "Particles",
            "exact_smc",
            "incremental_weights",
            "simulate_smc",
            "twisted_proposal",
        ],
        "speculative": ["Speculation", "reward_guided", "speculative_sampling"],
        "step_tree": ["Found", "StepTree", "Writer", "sample_until", "step_by_step", "tree_search"],
        "study": [
            "CountedSampler",
            "Scorers",
            "Study",
            "TokenValues",
            "check",
            "main",
            "record",
            "run",
            "settings",
            "td_objective",
            "truncated",
            "value_objective",
        ],
        "whole_response": ["extension"],
    },
)
