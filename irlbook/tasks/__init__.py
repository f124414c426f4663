"""Small text worlds whose gold reward is written down.

`irlbook.tasks.reviews`: write a review in a given tone; the reward is a sum of named parts.
`irlbook.tasks.arithmetic`: word problems; the reward checks the answer, or every step.
"""

from irlbook._front import front

__all__, __getattr__, __dir__ = front(
    __name__,
    {
        "arithmetic": [
            "Check",
            "Operation",
            "Problem",
            "Step",
            "answer_is_right",
            "check",
            "final_answer",
            "is_correct",
            "last_number",
            "lucky",
            "misread",
            "skipped",
        ],
        "recital": ["Heard", "Recital"],
        "remainders": ["column_result", "columnwise", "direct", "steps_of"],
        "reviewer_likelihood": ["Reading", "TokenReading", "TokenReviewer", "log_likelihood"],
        "reviews": [
            "Breakdown",
            "Probe",
            "Request",
            "Reviewer",
            "Sentence",
            "aspect_sentence",
            "breakdown",
            "gold",
            "prefer",
            "preferences",
            "probes",
            "read_response",
            "request_of",
            "sample_prompts",
        ],
    },
)
