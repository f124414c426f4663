"""What a language model learns from: demonstrations, preferences, labelled responses.

A prompt is a text, or a conversation: a list of messages `{"role": ..., "content": ...}` as chat
templates take them. A response is always the text of one assistant's turn, without end marker.

`where` is the file and line that a record was read from, and plays no part in comparisons.
"""

from dataclasses import dataclass, field

__all__ = [
    "Demonstration",
    "LabelledSolution",
    "MathProblem",
    "Message",
    "Preference",
    "Prompt",
    "ReasoningTrace",
    "Unpaired",
]

Message = dict[str, str]  # the keys "role" and "content"
Prompt = str | list[Message]


@dataclass(frozen=True)
class Demonstration:
    """A prompt, and a response worth imitating.

    `ended`: False for a sample that was cut off, after which no end token may be learned.
    """

    prompt: Prompt
    response: str
    ended: bool = True
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Preference:
    """Two responses to one prompt, of which someone chose one.

    `margin`: by how much, where the data say so (a difference of ratings).
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Unpaired:
    """One response, and whether it was found good (for KTO and classification)."""

    prompt: Prompt
    response: str
    label: bool
    ended: bool = True
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class MathProblem:
    """A question with a worked solution; `answer` is the number that it ends with, as text."""

    question: str
    solution: str
    answer: str


@dataclass(frozen=True)
class LabelledSolution:
    """A solution that a model wrote, and whether its final answer is right."""

    question: str
    solution: str
    answer: str  # the right one
    model: str
    correct: bool


@dataclass(frozen=True)
class ReasoningTrace:
    """A chain of thought with its first wrong step marked; None: every step is right."""

    question: str
    steps: tuple[str, ...]
    answer: str | None  # what the chain arrived at, if anything
    target: str  # the right answer
    first_mistake: int | None  # counted from 0
