"""The study of chapter 23: what the book taught, measured on a language model that nobody drew up.

    python -m irlbook.posttraining.real_model --model FOLDER --part bugs --out RESULTS.json

    silent_bugs.py        log-probabilities of one text, right and wrong in five ways
    human_preferences.py  reward models on real preferences, from frozen embeddings and fine-tuned
    sentiment.py          prompts, a gold reward from a lexicon, pairs with known noise
    frontier.py           what a policy's samples cost and are worth, beside the exact tilt
    policies.py           DPO, its remedies and policy gradients on the sentiment task
    study.py              which of these are run; each result is kept as soon as it is there

No model and no data are part of the book: the first comes by folder, the second by path.
"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "embeddings": [
            "EmbeddingSettings",
            "EmbeddingStudy",
            "agreement",
            "distances",
            "linear_share",
            "make_features",
            "reduce",
            "split_pool",
            "with_linear_gold",
        ],
        "frontier": [
            "Evaluation",
            "best_of_n_points",
            "direction",
            "distinct",
            "kl_by_class",
            "kl_by_position",
            "kl_of_gold",
            "matching_tilt",
            "summarise",
            "tilt",
            "token_classes",
        ],
        "human_preferences": [
            "Pairs",
            "collect",
            "embed_pairs",
            "fine_tuned",
            "fit_and_judge",
            "judge",
            "length_baseline",
            "measure_all_fine_tuned",
            "measure_fine_tuned",
            "measure_frozen",
            "measure_frozen_on_few",
            "measures",
            "near_equal",
            "read_pairs",
            "splits",
            "strength",
            "tail",
        ],
        "policies": [
            "EmbeddingScorer",
            "PolicyRun",
            "Pool",
            "Task",
            "classes_of",
            "draw_pool",
            "fit_proxy",
            "group_objective",
            "log_ratios_on",
            "measure_policy",
            "offline_data",
            "tilt_objective",
            "train_offline",
            "train_on_reward",
        ],
        "sentiment": ["all_pairs", "gold", "is_sentiment_word", "prompt", "wide_pairs"],
        "silent_bugs": [
            "boundary_bugs",
            "end_token_bug",
            "generate_default",
            "log_softmax_in_bfloat16",
            "prompt_bugs",
            "temperature_bug",
            "tokenizer_facts",
        ],
        "study": ["RealModelStudy", "largest_gap", "measure_again", "weights_digest"],
    },
)
