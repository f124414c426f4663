"""Demonstrations and preferences: records, readers of the usual formats, writers back.

>>> from irlbook.data import Preference
>>> Preference("Name a colour.", chosen="Blue.", rejected="Nine.").margin is None
True

Readers return `Records`, a sequence whose `report` counts and names what was left out. Data are
found by path, by name under the folder in the environment variable IRLBOOK_DATA, or by name on
the Hugging Face hub.
"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "audit": [
            "Audit",
            "Leakage",
            "Share",
            "audit_preferences",
            "clustered_share",
            "label_disagreement",
            "label_noise",
            "leakage",
            "near_duplicates",
            "shingles",
        ],
        "benchmarks": [
            "read_bigbench_mistake",
            "read_gsm8k",
            "read_gsm8k_solutions",
            "read_hh_rlhf",
            "read_llmbar",
        ],
        "columns": [
            "answer_of",
            "check_answer_parts",
            "check_names",
            "check_prompt_parts",
            "column",
            "columns_of",
            "ended_of",
            "find_prompt",
            "is_empty",
            "kind_of",
            "prompt_of",
            "said",
            "text_of",
            "unread",
            "with_system",
        ],
        "files": [
            "Row",
            "atomic",
            "find_data",
            "is_hub_name",
            "loads",
            "read_rows",
            "umask",
            "write_rows",
        ],
        "formats": [
            "as_messages",
            "demonstration_from",
            "demonstration_row",
            "is_transcript",
            "preference_from",
            "preference_row",
            "prompt_from",
            "read_transcript",
            "split_messages",
            "split_texts",
            "unpaired_from",
            "unpaired_row",
            "write_transcript",
        ],
        "labyrinth": ["Bout", "read_labyrinth"],
        "prompt_results": ["PromptResults", "read_prompt_answers", "read_prompt_results"],
        "readers": [
            "read_demonstrations",
            "read_preferences",
            "read_prompts",
            "read_unpaired",
            "write_demonstrations",
            "write_preferences",
            "write_unpaired",
        ],
        "records": [
            "Demonstration",
            "LabelledSolution",
            "MathProblem",
            "Preference",
            "ReasoningTrace",
            "Unpaired",
        ],
        "report": ["Finding", "ReadReport", "Records", "Rejected", "collect"],
        "rollouts": ["Rollouts", "read_rollouts"],
        "truncation": ["Fitted", "LengthReport", "fit_response", "group_report", "length_report"],
    },
)
