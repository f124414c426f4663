"""Wrong answers to the exercises of chapter 22, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_ROOT = "math.sqrt(max(0.0, 1 - 2 * d))"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "22.1": {
        "the disagreement": (Edit("return (1 - " + _ROOT + ") / 2", "return d"), "itself"),
        "half of it": (Edit("return (1 - " + _ROOT + ") / 2", "return d / 2"), "small rates"),
        "single labels agree": (
            (
                Edit("if n > 1:", "if n > 0:"),
                Edit("z * (n - z) / (n * (n - 1) / 2)", "z * (n - z) / max(1, n * (n - 1) / 2)"),
            ),
            "counted as agreement",
        ),
        "pooled": (
            (
                "import math\n\n\n"
                "def noise_rate(labels):\n"
                "    some = [y for y in labels if len(y) > 1]\n"
                "    if not some:\n"
                "        return None\n"
                "    apart = sum(sum(y) * (len(y) - sum(y)) for y in some)\n"
                "    d = apart / sum(len(y) * (len(y) - 1) / 2 for y in some)\n"
                "    return (1 - math.sqrt(max(0.0, 1 - 2 * d))) / 2"
            ),
            "pooled",
        ),
        "with replacement": (
            Edit("z * (n - z) / (n * (n - 1) / 2)", "2 * z * (n - z) / n**2"),
            "mean over questions",
        ),
        "a negative root": (Edit(_ROOT, "np.sqrt(1 - 2 * d)"), "finite|1/2"),
        "zero without repeats": (Edit("return None", "return 0.0"), "None"),
        "the larger root": (Edit("(1 - " + _ROOT, "(1 + " + _ROOT), "mean over questions"),
    },
    "22.2": {
        "strictly further": (
            Edit(">= abs(sums.sum())", "> abs(sums.sum())"),
            "not counted|nothing",
        ),
        "one side": (
            Edit("abs(totals) >= abs(sums.sum())", "totals >= sums.sum()"),
            "one side|as far from 0",
        ),
        "each pair alone": (
            Edit("sums = np.array(list(sums.values()))", "sums = np.array(signs)"),
            "turned round alone|as far from 0",
        ),
        "one vote a prompt": (
            Edit("sums = np.array(list(sums.values()))", "sums = np.sign(list(sums.values()))"),
            "one vote|as far from 0",
        ),
        "doubled": (
            Edit("return float(np.mean(", "return 2 * float(np.mean("),
            "as far from 0",
        ),
        "means of prompts": (
            Edit(
                "sums = np.array(list(sums.values()))",
                "sums = np.array([s / prompts.count(p) for p, s in sums.items()])",
            ),
            "as far from 0",
        ),
    },
    "22.3": {
        "frozen weights, too": (
            Edit("2 * trained, 12 * trained", "2 * parameters, 12 * parameters"),
            "frozen",
        ),
        "moments alone": (Edit("12 * trained", "8 * trained"), "float32"),
        "all split from one": (
            Edit(
                "(weights, 3), (gradients, 2), (moments, 1)",
                "(weights, 1), (gradients, 1), (moments, 1)",
            ),
            "from stage 1|each stage",
        ),
        "in reverse": (
            Edit(
                "(weights, 3), (gradients, 2), (moments, 1)",
                "(weights, 1), (gradients, 2), (moments, 3)",
            ),
            "reverse|from stage 1|nothing",
        ),
        "never": (Edit("processes if stage >= first else 1", "1"), "nothing was split|each stage"),
        "weights in float32": (
            Edit("2 * parameters, 2 * trained", "4 * parameters, 4 * trained"),
            "each stage",
        ),
        "one stage late": (Edit("stage >= first", "stage > first"), "each stage|nothing"),
    },
    "22.4": {
        "one policy answers": (
            Edit("2 * k * per_response", "k * per_response"),
            "both policies|least",
        ),
        "prompts are free": (
            Edit("per_prompt + 2 * k * per_response", "2 * k * per_response"),
            "least standard error|whole|integer",
        ),
        "the most prompts": (Edit("range(1, 65)", "range(1, 2)"), "least standard error"),
        "the most responses": (Edit("error < best[0]", "True"), "least standard error"),
        "noise once": (Edit("2 * sigma**2 / k", "sigma**2 / k"), "least standard error"),
        "ties to the larger": (Edit("error < best[0]", "error <= best[0]"), "fewer responses"),
        "a part of a prompt": (
            (
                Edit(
                    "int(budget // (per_prompt + 2 * k * per_response))",
                    "budget / (per_prompt + 2 * k * per_response)",
                ),
            ),
            "least standard error",
        ),
        "up to eight": (Edit("range(1, 65)", "range(1, 9)"), "least standard error|k is at most"),
        "beyond the budget": (
            Edit(
                "int(budget // (per_prompt + 2 * k * per_response))",
                "max(1, int(budget // (per_prompt + 2 * k * per_response)))",
            ),
            "no design costs more than",
        ),
        "up to 128": (Edit("range(1, 65)", "range(1, 129)"), "least standard error|k is at most"),
        "two responses at least": (
            Edit("range(1, 65)", "range(2, 65)"),
            "without noise of responses",
        ),
    },
    "22.5": {
        "rows": (
            (
                "import numpy as np\n\n\n"
                "def hold_out(prompts, share, rng):\n"
                "    held = np.zeros(len(prompts), dtype=bool)\n"
                "    n = max(1, round(share * len(prompts)))\n"
                "    held[rng.permutation(len(prompts))[:n]] = True\n"
                "    return held"
            ),
            "both sides",
        ),
        "always the same": (
            Edit("rng.permutation(len(different))", "np.arange(len(different))"),
            "rng",
        ),
        "another source": (
            Edit("rng.permutation(", "np.random.permutation("),
            "drawn with rng",
        ),
        "rounded down": (
            Edit("round(share * len(different))", "int(share * len(different))"),
            "share is one of the prompts",
        ),
        "rounded up": (
            Edit("round(share * len(different))", "math.ceil(share * len(different))"),
            "share is one of the prompts",
        ),
        "the prompts of drawn pairs": (
            Edit(
                "held = {different[i] for i in rng.permutation(len(different))[:n]}",
                "held = set()\n"
                "    for i in rng.permutation(len(prompts)):\n"
                "        if len(held) < n:\n"
                "            held.add(prompts[i])",
            ),
            "no likelier",
        ),
        "a run of neighbours": (
            Edit(
                "held = {different[i] for i in rng.permutation(len(different))[:n]}",
                "start = rng.integers(len(different))\n"
                "    held = {different[(start + i) % len(different)] for i in range(n)}",
            ),
            "every set of prompts",
        ),
        "none of few": (
            Edit("max(1, round(share * len(different)))", "round(share * len(different))"),
            "at least one",
        ),
        "share of rows": (
            Edit("round(share * len(different))", "round(share * len(prompts))"),
            "share is one of the prompts",
        ),
        "each with a coin": (
            (
                "import numpy as np\n\n\n"
                "def hold_out(prompts, share, rng):\n"
                "    different = list(dict.fromkeys(prompts))\n"
                "    held = {p for p in different if rng.random() < share / 3}\n"
                "    return np.array([p in held for p in prompts])"
            ),
            "share is one of the prompts",
        ),
        "the other side": (
            Edit(
                "return np.array([p in held for p in prompts])",
                "return ~np.array([p in held for p in prompts])",
            ),
            "share is one of the prompts|at least one",
        ),
        "names": (
            Edit("return np.array([p in held for p in prompts])", "return sorted(held)"),
            "one truth value|shape|array",
        ),
    },
}
