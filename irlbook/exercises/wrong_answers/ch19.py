"""Wrong answers to the exercises of chapter 19, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_BY_NUMBER = "behind the last mark"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "19.1": {
        "with replacement": (
            "def pass_at_k(right, n, k):\n    return 1 - (1 - right / n) ** k",
            "with replacement",
        ),
        "pass at one": ("def pass_at_k(right, n, k):\n    return right / n", "pass@1"),
        "all right": (
            "from math import comb\n\n\ndef pass_at_k(right, n, k):\n"
            "    return np.array([comb(int(c), k) / comb(n, k) for c in right])",
            "all k are right",
        ),
        "all wrong": (Edit("return 1 - none", "return none"), "all k are wrong"),
        "mean over problems": (
            Edit("return 1 - none", "return np.full(len(right), np.mean(1 - none))"),
            "one number for all",
        ),
        "factorials in floats": (
            "def pass_at_k(right, n, k):\n"
            "    found = []\n"
            "    for c in right:\n"
            "        none = 1.0 if n - c >= k else 0.0\n"
            "        top, bottom = 1.0, 1.0\n"
            "        for i in range(k):\n"
            "            top, bottom = top * max(n - c - i, 0), bottom * (n - i)\n"
            "        found.append(1 - none * top / bottom)\n"
            "    return np.array(found)",
            "overflow|finite|NaN|nan",
        ),
    },
    "19.2": {
        "as said": ("def true_accuracy(table, said):\n    return said", "what the verifier says"),
        "shares of verdicts": (
            (
                Edit("table[1, 0] / table[1].sum()", "table[1, 0] / table[:, 0].sum()"),
                Edit("table[0, 1] / table[0].sum()", "table[0, 1] / table[:, 1].sum()"),
            ),
            "shares of verdicts",
        ),
        "swapped": (Edit("(said - b)", "(said - a)"), "swapped"),
        "accepted kept": (Edit("(said - b)", "said"), "not taken off"),
        "refused forgotten": (Edit("(1 - a - b)", "(1 - b)"), "forgotten"),
        "shares of the table": (
            "def true_accuracy(table, said):\n"
            "    a, b = table[1, 0] / table.sum(), table[0, 1] / table.sum()\n"
            "    return float(np.clip((said - b) / (1 - a - b), 0, 1))",
            "whole table",
        ),
        "labelled sample": (
            "def true_accuracy(table, said):\n    return table[1].sum() / table.sum()",
            "labelled sample",
        ),
        "not kept": (
            Edit("float(np.clip((said - b) / (1 - a - b), 0, 1))", "(said - b) / (1 - a - b)"),
            "between 0 and 1",
        ),
        "kept above zero only": (
            Edit(
                "float(np.clip((said - b) / (1 - a - b), 0, 1))", "max(0, (said - b) / (1 - a - b))"
            ),
            "between 0 and 1",
        ),
    },
    "19.3": {
        "running leader": (
            (
                "def weighted_answer(answers, weights):\n"
                "    sums, best = {}, None\n"
                "    for answer, weight in zip(answers, weights, strict=True):\n"
                "        if answer is None:\n"
                "            continue\n"
                "        sums[answer] = sums.get(answer, 0.0) + weight\n"
                "        if best is None or sums[answer] > sums[best]:\n"
                "            best = answer\n"
                "    return best"
            ),
            "given first",
        ),
        "an empty text does not vote": (Edit("answer is None", "not answer"), "empty text"),
        "weight 0 is no vote": (
            Edit(
                "return max(sums, key=sums.get) if sums else None",
                "return max(sums, key=sums.get) if sum(sums.values()) > 0 else None",
            ),
            "weight 0",
        ),
        "plain majority": (Edit("+ weight", "+ 1"), "sum of weights"),
        "best single": (
            Edit("sums.get(answer, 0.0) + weight", "max(sums.get(answer, 0.0), weight)"),
            "sum of weights",
        ),
        "none votes": (
            Edit("        if answer is None:\n            continue\n", ""),
            "sum of weights",
        ),
        "last of a tie": (
            Edit("max(sums, key=sums.get)", "max(reversed(list(sums)), key=sums.get)"),
            "given first",
        ),
        "largest text of a tie": (
            Edit("max(sums, key=sums.get)", "max(sorted(sums, reverse=True), key=sums.get)"),
            "given first",
        ),
        "smallest text of a tie": (
            Edit("max(sums, key=sums.get)", "max(sorted(sums), key=sums.get)"),
            "given first",
        ),
        "nobody votes": (
            Edit(" if sums else None", ""),
            "none to give|raised|error",
        ),
        "returns the sum": (
            Edit("max(sums, key=sums.get)", "max(sums.values())"),
            "sum of weights",
        ),
    },
    "19.4": {
        "from the first": (
            "def solution_scores(chances, lengths):\n"
            "    parts = [chances[:n] for n in lengths]\n"
            "    return np.array([[p.prod(), p.min(), p[-1]] for p in parts])",
            "starts at the first",
        ),
        "mean": (Edit("part.prod()", "part.mean()"), "product is a mean"),
        "geometric mean": (Edit("part.prod()", "part.prod() ** (1 / len(part))"), "geometric"),
        "maximum": (Edit("part.min()", "part.max()"), "maximum"),
        "first": (Edit("part[-1]", "part[0]"), "last is the first"),
        "other order": (
            Edit("[part.prod(), part.min(), part[-1]]", "[part[-1], part.min(), part.prod()]"),
            "another order",
        ),
        "transposed": (Edit("for part in parts])", "for part in parts]).T"), "shape"),
    },
    "19.5": {
        "truth only without separators": (
            Edit("== number(answer)", '== float(answer.replace(",", ""))'),
            "in the truth|raised",
        ),
        "texts made alike": (
            (
                "import re\n"
                "\n"
                "\n"
                "def is_right(solution, answer):\n"
                "    def clean(text):\n"
                "        text = text.replace(',', '').replace('$', '').strip().rstrip('.')\n"
                "        return re.sub(r'\\.0+$', '', text)\n"
                "\n"
                "    _, mark, behind = solution.rpartition('####')\n"
                "    return bool(mark) and clean(behind) == clean(answer)"
            ),
            "two ways",
        ),
        "nearly equal": (
            Edit(
                "return number(behind) == number(answer)",
                (
                    "got = number(behind)\n"
                    "    return got is not None and abs(got - number(answer)) < 0.1"
                ),
            ),
            "small, and not zero",
        ),
        "no negative numbers": (
            Edit('if "####" not in solution:', 'if "####" not in solution or "-" in answer:'),
            "negative number",
        ),
        "last mark with a number": (
            Edit(
                'solution.split("####")[-1]', '[x for x in solution.split("####") if x.strip()][-1]'
            ),
            "last mark with nothing",
        ),
        "texts": (
            "def is_right(solution, answer):\n"
            "    return solution.split('####')[-1].strip() == answer.strip()",
            _BY_NUMBER,
        ),
        "first mark": (Edit('split("####")[-1]', 'split("####")[1]'), "last of two marks"),
        "no mark needed": (
            "import re\n\n\n"
            "def is_right(solution, answer):\n"
            "    found = re.findall(r'-?[\\d,]*\\d(?:\\.\\d+)?', solution)\n"
            "    if not found:\n"
            "        return False\n"
            "    clean = lambda t: float(t.replace(',', ''))\n"
            "    return clean(found[-1]) == clean(answer)",
            "without a mark|nothing behind",
        ),
        "separator of the truth": (
            Edit(
                "return number(behind) == number(answer)", "return number(behind) == float(answer)"
            ),
            "in the truth|raised|error",
        ),
        "dollars": (Edit('.replace("$", "")', ""), "dollar"),
        "separators": (Edit('.replace(",", "")', ""), "separator"),
        "full stop": (Edit('.rstrip(".")', ""), "full stop"),
        "whole numbers": (
            Edit(
                "return number(behind) == number(answer)",
                "return int(number(behind)) == int(number(answer))",
            ),
            "not zero",
        ),
        "no sign": (
            Edit(
                "return number(behind) == number(answer)",
                "return abs(number(behind)) == abs(number(answer))",
            ),
            "another sign",
        ),
        "begins alike": (
            "def is_right(solution, answer):\n"
            "    if '####' not in solution:\n"
            "        return False\n"
            "    clean = lambda t: t.replace(',', '').replace('$', '').strip()\n"
            "    got = clean(solution.split('####')[-1])\n"
            "    return got.startswith(clean(answer)) and not got.endswith('.5')",
            "more digits",
        ),
    },
}
