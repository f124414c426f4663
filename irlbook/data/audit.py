"""An audit of preference pairs: what is wrong with a file that reads without an error.

    repeats       rows that are copies, and texts that are nearly copies
    label noise   pairs that were labelled more than once, and how often the labels disagree
    length        how often the longer response is the one chosen
    position      how often the response that was shown first is the one chosen
    prompts       how unevenly the pairs are spread over prompts
    leakage       held-out rows whose prompt or responses stand in the training rows, too

Pairs of one prompt are not independent: tests go over prompts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, erfc, sqrt

import numpy as np

from irlbook.data.records import Preference, Prompt
from irlbook.errors import EmptyDataError, InvalidHyperparameterError, ShapeError

__all__ = [
    "Audit",
    "EXACT",
    "Leakage",
    "Share",
    "audit_preferences",
    "clustered_share",
    "label_disagreement",
    "label_noise",
    "leakage",
    "near_duplicates",
    "shingles",
]

EXACT = 4000  # largest total of votes for which the sign test goes through every outcome


@dataclass(frozen=True)
class Share:
    """How many of some yes-or-no outcomes are yes, and whether that could be a coin.

    Attributes:
        yes, no: counts; ties are neither.
        p_value: two-sided, of a fair coin for each *cluster*.
    """

    yes: int
    no: int
    p_value: float

    @property
    def share(self) -> float:
        """yes / (yes + no); NaN without outcomes."""
        return self.yes / (self.yes + self.no) if self.yes + self.no else float("nan")


def clustered_share(signs: Sequence[int], clusters: Sequence[Hashable]) -> Share:
    """A sign test in which all outcomes of a cluster turn round together.

    Let s_c be the sum of the signs of cluster c. If + and - were equally likely, every s_c could
    as well be -s_c. The p-value is the share of the sign flips whose total is at least as far from
    0 as the one seen: over all flips up to a total of 4,000 votes, else by the normal
    approximation, whose variance is the sum of the s_c squared.

    Args:
        signs: +1, -1, or 0 for a tie, which is left out.
        clusters: what each outcome belongs to, such as its prompt.

    Raises:
        ShapeError: the two differ in length. InvalidHyperparameterError: another sign.
    """
    if len(signs) != len(clusters):
        raise ShapeError(f"{len(signs)} signs and {len(clusters)} clusters; give one for each.")
    if not set(signs) <= {-1, 0, 1}:
        raise InvalidHyperparameterError("signs must be 1, -1, or 0 for a tie.")
    sums: Counter[Hashable] = Counter()
    for sign, cluster in zip(signs, clusters, strict=True):
        sums[cluster] += int(sign)
    sizes = [abs(s) for s in sums.values() if s]
    seen = abs(sum(sums.values()))
    p = _flips(sizes, seen) if sum(sizes) <= EXACT else _normal(sizes, seen)
    return Share(sum(s == 1 for s in signs), sum(s == -1 for s in signs), p)


def _flips(sizes: Sequence[int], seen: int) -> float:
    """P(|sum of +-size| >= seen), every sign a fair coin, by adding one cluster at a time."""
    total = sum(sizes)
    chance = np.zeros(2 * total + 1)
    chance[total] = 1.0
    for size in sizes:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    value = np.abs(np.arange(-total, total + 1))
    return float(min(1.0, chance[value >= seen].sum()))


def _normal(sizes: Sequence[int], seen: int) -> float:
    return erfc(seen / sqrt(2 * sum(size * size for size in sizes)))


def shingles(text: str, words: int = 3) -> frozenset[str]:
    """The runs of `words` words of a text, in lower case; of a shorter text, the text itself."""
    parts = text.lower().split()
    runs = (" ".join(parts[i : i + words]) for i in range(max(1, len(parts) - words + 1)))
    return frozenset(runs)


def near_duplicates(
    sets: Sequence[frozenset[str]], least: float = 0.8
) -> list[tuple[int, int, float]]:
    """All pairs i < j whose Jaccard similarity |A and B| / |A or B| is `least` or more, exactly.

    Two sets that are so alike have a common element among the first |A| - ceil(least |A|) + 1 of
    each, if all are sorted in one order. Rare elements come first, so few pairs are compared
    (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007).

    Returns:
        (i, j, similarity). Two equal sets are a pair, too.

    Raises:
        InvalidHyperparameterError: `least` outside (0, 1].
    """
    if not 0 < least <= 1:
        raise InvalidHyperparameterError(f"least={least} must lie in (0, 1]; 0.8 is usual.")
    often = Counter(element for one in sets for element in one)
    holders: dict[str, list[int]] = defaultdict(list)
    found = []
    for j, one in enumerate(sets):
        first = sorted(one, key=lambda element: (often[element], element))
        first = first[: len(one) - ceil(least * len(one) - 1e-9) + 1]
        for i in sorted({i for element in first for i in holders[element]}):
            both = len(one & sets[i])
            alike = both / (len(one) + len(sets[i]) - both)
            if alike >= least:
                found.append((i, j, alike))
        for element in first:
            holders[element].append(j)
    return found


def label_disagreement(labels: Iterable[Sequence[int]]) -> float:
    """d: the share of the label pairs of a question that disagree, averaged over questions.

    Independent errors give at most 1/2. More says that the labels of a question depend on each
    other, so no rate of independent errors explains them.

    Args:
        labels: of each question its labels, 0 or 1; those with one label are left out.

    Returns:
        d in [0, 1]; NaN without a repeated question.
    """
    found = []
    for given in labels:
        n, ones = len(given), sum(given)
        if n > 1:
            found.append(2 * ones * (n - ones) / (n * (n - 1)))
    return float(np.mean(found)) if found else float("nan")


def label_noise(labels: Iterable[Sequence[int]]) -> float:
    """The rate at which labels are flipped, from questions that were asked more than once.

    If each label is wrong with probability e, independently, two labels of one question disagree
    with probability d = 2 e (1 - e). So e = (1 - sqrt(1 - 2 d)) / 2, with d their
    `label_disagreement`. A question that is a coin toss for
    everybody looks like noise, and a row that was copied looks like agreement.

    Args:
        labels: of each question its labels, 0 or 1; those with one label are left out.

    Returns:
        e in [0, 1/2]. Where more than half of the pairs disagree it is 1/2, which is a cap and no
        estimate. NaN without a repeated question.
    """
    d = label_disagreement(labels)
    return (1 - sqrt(1 - 2 * d)) / 2 if not d > 0.5 else 0.5


@dataclass(frozen=True)
class Leakage:
    """Held-out rows (by index) that the training rows give away.

    Attributes:
        prompts: whose prompt stands in training. near_prompts: whose prompt nearly does.
        responses: of which a response does, under whatever prompt.
        pairs: whose two responses do, under the same prompt.
    """

    prompts: tuple[int, ...]
    near_prompts: tuple[int, ...]
    responses: tuple[int, ...]
    pairs: tuple[int, ...]


def leakage(
    train: Sequence[Preference], held_out: Sequence[Preference], least: float = 0.8
) -> Leakage:
    """What of the held-out rows was seen in training.

    Args:
        least: the Jaccard similarity of word triples from which two prompts are nearly the same.
    """
    prompts = list(dict.fromkeys(_key(one.prompt) for one in train))
    known = set(prompts)
    texts = {text for one in train for text in (one.chosen, one.rejected)}
    asked = {_question(one) for one in train}
    wanted = list(dict.fromkeys(_key(one.prompt) for one in held_out))
    alike = near_duplicates([shingles(text) for text in (*prompts, *wanted)], least)
    n = len(prompts)
    near = {wanted[j - n] for i, j, _ in alike if i < n <= j} - known

    def rows(test: Callable[[Preference], bool]) -> tuple[int, ...]:
        return tuple(i for i, one in enumerate(held_out) if test(one))

    return Leakage(
        rows(lambda one: _key(one.prompt) in known),
        rows(lambda one: _key(one.prompt) in near),
        rows(lambda one: not texts.isdisjoint((one.chosen, one.rejected))),
        rows(lambda one: _question(one) in asked),
    )


@dataclass(frozen=True)
class Audit:
    """What an audit of preference pairs found. Rows are counted from 0.

    Attributes:
        rows, prompts: how many.
        effective_prompts: (sum n)^2 / sum n^2 of the pairs n per prompt: as many prompts as an even
            spread would need to be as uneven.
        copies: rows that repeat an earlier row, word for word.
        near: (i, j, similarity) of rows whose responses are nearly the same, and not the same.
        contradictions: rows that turn an earlier row round.
        disagree: `label_disagreement` of the questions that were asked more than once.
        noise: `label_noise` of them.
        repeated: how many such questions there are.
        longer: how often the longer response was chosen.
        first: how often the response that was shown first was chosen; None where nobody knows.
        leak: from training rows into held-out rows; None without held-out rows.
    """

    rows: int
    prompts: int
    effective_prompts: float
    copies: tuple[int, ...]
    near: tuple[tuple[int, int, float], ...]
    contradictions: tuple[int, ...]
    disagree: float
    noise: float
    repeated: int
    longer: Share
    first: Share | None
    leak: Leakage | None

    def __str__(self) -> str:
        lines = [
            f"{self.rows} pairs, {self.prompts} prompts (as good as {self.effective_prompts:.0f})",
            f"  {len(self.copies)} copies, {len(self.near)} near copies, "
            f"{len(self.contradictions)} contradictions",
            f"  {self.repeated} questions asked more than once"
            + (f": label noise {self.noise:.0%}" if self.repeated else "")
            + (
                f", which is a cap:\n    {self.disagree:.0%} of the label pairs disagree, and "
                "independent errors explain 50% at most"
                if self.disagree > 0.5
                else ""
            ),
            f"  {_said('the longer response', self.longer)}",
            f"  {_said('the response shown first', self.first)}"
            if self.first
            else "  which response was shown first is not known",
        ]
        if self.leak:
            lines.append(
                f"  of the held-out rows {len(self.leak.prompts)} share a prompt with training, "
                f"{len(self.leak.near_prompts)} nearly, {len(self.leak.responses)} a response, "
                f"{len(self.leak.pairs)} both responses"
            )
        return "\n".join(lines)


def _said(what: str, found: Share) -> str:
    if not found.yes + found.no:
        return f"{what}: no pair to judge by"
    return f"{what} was chosen in {found.share:.0%} of the pairs (p = {found.p_value:.2g})"


def audit_preferences(
    pairs: Sequence[Preference],
    held_out: Sequence[Preference] | None = None,
    *,
    first: Sequence[bool | None] | None = None,
    length: Callable[[str], int] = len,
    least: float = 0.8,
) -> Audit:
    """Look for repeats, noisy labels, biases, uneven prompts and leakage.

    Args:
        pairs: training pairs.
        held_out: pairs that the model will be judged by.
        first: for each pair whether the chosen response was the one shown first; None: unknown.
        length: of a response; characters by default.
        least: the Jaccard similarity of word triples from which two texts are nearly the same.

    Raises:
        EmptyDataError: there are no pairs. ShapeError: `first` has another length.
    """
    if not pairs:
        raise EmptyDataError("there are no pairs to audit.")
    prompts = [_key(one.prompt) for one in pairs]
    per_prompt = np.array(list(Counter(prompts).values()))
    seen: set[tuple[str, str, str]] = set()
    copies, contradictions = [], []
    labels: dict[Hashable, list[int]] = defaultdict(list)
    for i, one in enumerate(pairs):
        row = (prompts[i], one.chosen, one.rejected)
        copies += [i] if row in seen else []
        turned = (row[0], row[2], row[1])
        contradictions += [i] if turned != row and turned in seen else []
        seen.add(row)
        labels[_question(one)].append(int(one.chosen < one.rejected))
    longer = [int(np.sign(length(one.chosen) - length(one.rejected))) for one in pairs]
    return Audit(
        rows=len(pairs),
        prompts=len(per_prompt),
        effective_prompts=float(per_prompt.sum() ** 2 / (per_prompt**2).sum()),
        copies=tuple(copies),
        near=tuple(_near_rows(pairs, least)),
        contradictions=tuple(contradictions),
        disagree=label_disagreement(labels.values()),
        noise=label_noise(labels.values()),
        repeated=sum(len(given) > 1 for given in labels.values()),
        longer=clustered_share(longer, prompts),
        first=None if first is None else clustered_share([_sign(f) for f in first], prompts),
        leak=None if held_out is None else leakage(pairs, held_out, least),
    )


def _near_rows(pairs: Sequence[Preference], least: float) -> list[tuple[int, int, float]]:
    """Rows that ask nearly, and not exactly, the same question of the same prompt or another."""
    first: dict[Hashable, int] = {}
    for i, one in enumerate(pairs):
        first.setdefault(frozenset((one.chosen, one.rejected)), i)
    rows = list(first.values())
    sets = [shingles(pairs[i].chosen) | shingles(pairs[i].rejected) for i in rows]
    return [(rows[i], rows[j], alike) for i, j, alike in near_duplicates(sets, least)]


def _key(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _question(one: Preference) -> Hashable:
    return _key(one.prompt), frozenset((one.chosen, one.rejected))


def _sign(chosen_first: bool | None) -> int:
    return 0 if chosen_first is None else 1 if chosen_first else -1
