"""Demonstrations and preferences: records, readers of the usual formats, writers back.

>>> from irlbook.data import Preference
>>> Preference("Name a colour.", chosen="Blue.", rejected="Nine.").margin is None
True

Readers return `Records`, a sequence whose `report` counts and names what was left out. Data are
found by path, by name under the folder in the environment variable IRLBOOK_DATA, or by name on
the Hugging Face hub.
"""

from irlbook.data.benchmarks import (
    read_bigbench_mistake,
    read_gsm8k,
    read_gsm8k_solutions,
    read_hh_rlhf,
    read_llmbar,
)
from irlbook.data.files import find_data
from irlbook.data.formats import as_messages
from irlbook.data.readers import (
    read_demonstrations,
    read_preferences,
    read_prompts,
    read_unpaired,
    write_demonstrations,
    write_preferences,
    write_unpaired,
)
from irlbook.data.records import (
    Demonstration,
    LabelledSolution,
    MathProblem,
    Message,
    Preference,
    Prompt,
    ReasoningTrace,
    Unpaired,
)
from irlbook.data.report import ReadReport, Records
from irlbook.data.truncation import fit_response, length_report

__all__ = [
    "Demonstration",
    "LabelledSolution",
    "MathProblem",
    "Message",
    "Preference",
    "Prompt",
    "ReadReport",
    "ReasoningTrace",
    "Records",
    "Unpaired",
    "as_messages",
    "find_data",
    "fit_response",
    "length_report",
    "read_bigbench_mistake",
    "read_demonstrations",
    "read_gsm8k",
    "read_gsm8k_solutions",
    "read_hh_rlhf",
    "read_llmbar",
    "read_preferences",
    "read_prompts",
    "read_unpaired",
    "write_demonstrations",
    "write_preferences",
    "write_unpaired",
]
