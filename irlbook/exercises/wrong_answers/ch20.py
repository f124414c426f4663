"""Wrong answers to the exercises of chapter 20, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_FLIP = "value = -value if alternating else value"
_OVER = "np.where(over, 0.0, logs)"
_MEAN = "top + np.log(weights.mean())"
_SOFT = "return top + beta * np.log(p @ np.exp((v - top) / beta))"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "20.1": {
        "largest of all tokens": (
            Edit("kept = policy[state] > 0", "kept = policy[state] >= 0"),
            "never written|finite",
        ),
        "a small number for 0": (
            (
                Edit("kept = policy[state] > 0", "kept = policy[state] >= 0"),
                Edit("p = policy[state, kept]", "p = policy[state, kept] + 1e-12"),
            ),
            "never written",
        ),
        "parents stand before children": (
            (
                "def soft_values(policy, children, rewards, beta):\n"
                "    values = rewards.copy()\n"
                "    for s in reversed(range(len(values))):\n"
                "        if children[s, 0] >= 0:\n"
                "            kept = policy[s] > 0\n"
                "            v = values[children[s, kept]]\n"
                "            soft = np.log(policy[s, kept] @ np.exp((v - v.max()) / beta))\n"
                "            values[s] = v.max() + beta * soft\n"
                "    return values"
            ),
            "soft average",
        ),
        "mean value": (Edit(_SOFT, "return p @ v"), "not soft"),
        "maximum": (Edit(_SOFT, "return top"), "best that can follow"),
        "uniform": (
            Edit("p = policy[state, kept]", "p = np.full(kept.sum(), 1 / kept.sum())"),
            "count alike",
        ),
        "summed": (Edit("p = policy[state, kept]", "p = np.ones(kept.sum())"), "summed"),
        "beta missing": (
            Edit(
                "return np.array([value(s) for s in range(len(children))])",
                "v = np.array([value(s) for s in range(len(children))])\n"
                "    return np.where(children[:, 0] < 0, v, v / beta)",
            ),
            "factor beta",
        ),
        "beta upside down": (
            Edit("def value(state):", "beta = 1 / beta\n\n    def value(state):"),
            "numerator",
        ),
        "whole responses are worth nothing": (
            Edit(
                "return np.array([value(s) for s in range(len(children))])",
                "v = np.array([value(s) for s in range(len(children))])\n"
                "    return np.where(children[:, 0] < 0, 0.0, v)",
            ),
            "worth 0",
        ),
        "every token is written now and then": (
            (
                Edit("kept = policy[state] > 0", "kept = policy[state] >= 0"),
                Edit("p = policy[state, kept]", "p = policy[state] + 0.02 * (policy[state] == 0)"),
            ),
            "never written",
        ),
        "overflow": (Edit(_SOFT, "return beta * np.log(p @ np.exp(v / beta))"), "finite|stay"),
    },
    "20.2": {
        "a threshold": (
            (
                Edit("order = np.argsort(-logits, axis=1)", "least = np.sort(logits, axis=1)"),
                Edit(
                    "kept = np.zeros(logits.shape, dtype=bool)",
                    "least = least[:, max(0, logits.shape[1] - top)]",
                ),
                Edit(
                    "np.put_along_axis(kept, order[:, :top], True, axis=1)",
                    "kept = logits >= least[:, None]",
                ),
            ),
            "just enough",
        ),
        "candidates by the sum": (
            Edit("np.argsort(-logits, axis=1)", "np.argsort(-(logits + weight * scores), axis=1)"),
            "chosen by the sum",
        ),
        "top ignored": (Edit("z = np.where(kept, z, -np.inf)", "z = z"), "top was ignored"),
        "no weight": (Edit("weight * scores", "scores"), "weight is missing"),
        "divided": (Edit("weight * scores", "scores / weight"), "divides"),
        "score alone": (Edit("z = logits + weight * scores", "z = weight * scores"), "alone"),
        "no score": (Edit("z = logits + weight * scores", "z = logits + 0"), "left out"),
        "zero logits": (Edit("kept, z, -np.inf", "kept, z, 0.0"), "logit of 0"),
        "probabilities added": (
            Edit(
                "z = logits + weight * scores",
                "p = np.exp(logits - logits.max(axis=1, keepdims=True))\n"
                "    z = p / p.sum(axis=1, keepdims=True) + weight * scores",
            ),
            "probabilities were added",
        ),
        "not normalised": (
            Edit(
                "z = np.where(kept, z, -np.inf)",
                "every = np.exp(z - z.max(axis=1, keepdims=True))\n"
                "    return np.where(kept, every / every.sum(axis=1, keepdims=True), 0.0)",
            ),
            "does not add up",
        ),
        "overflow": (
            Edit("z = np.exp(z - z.max(axis=1, keepdims=True))", "z = np.exp(z)"),
            "overflow|finite|nan|NaN",
        ),
        "top must fit": (
            Edit("order[:, :top]", "order[:, np.arange(top)]"),
            "raised|IndexError|bounds",
        ),
        "one token always left out": (
            Edit("order[:, :top]", "order[:, : min(top, logits.shape[1] - 1)]"),
            "with a large top",
        ),
    },
    "20.3": {
        "times zero": (Edit("np.where(over, 0.0, logs)", "logs * ~over"), "does not matter|finite"),
        "largest of those that move": (
            Edit("top = logs.max()", "top = logs[~over].max()"),
            "weight 1|raised",
        ),
        "twist before missing": (Edit("- before ", ""), "before the step is missing"),
        "proposal missing": (Edit(" - log_proposal", ""), "proposal is missing"),
        "reference missing": (Edit(" + log_reference", ""), "reference is missing"),
        "exchanged": (
            Edit("log_reference - log_proposal", "log_proposal - log_reference"),
            "reference and proposal",
        ),
        "twists exchanged": (Edit("after - before", "before - after"), "twists are exchanged"),
        "finished ones move": (Edit(_OVER, "logs"), "moved"),
        "finished ones die": (
            Edit(_OVER, "np.where(over, -np.inf, logs)"),
            "died",
        ),
        "sum": (Edit("weights.mean()", "weights.sum()"), "divide by n"),
        "mean of logs": (
            Edit(_MEAN, "logs.mean()"),
            "mean of the logarithms",
        ),
        "not in logarithms": (
            Edit(_MEAN, "np.exp(top) * weights.mean()"),
            "not in logarithms",
        ),
        "overflow": (Edit("top = logs.max()", "top = 0.0"), "overflow|finite|nan|NaN"),
    },
    "20.4": {
        "rejection": (Edit("accepted = overlap", "accepted = 1 - overlap"), "chance of rejection"),
        "all tokens alike": (
            Edit(
                "overlap = np.minimum(draft, target).sum(axis=1)",
                "overlap = np.minimum(1, target / draft).mean(axis=1)",
            ),
            "count alike",
        ),
        "ratio upside down": (
            Edit(
                "overlap = np.minimum(draft, target).sum(axis=1)",
                "overlap = (draft * np.minimum(1, draft / target)).sum(axis=1)",
            ),
            "upside down",
        ),
        "drawn from the target": (
            Edit(
                "overlap = np.minimum(draft, target).sum(axis=1)",
                "overlap = (target * np.minimum(1, target / draft)).sum(axis=1)",
            ),
            "from the target",
        ),
        "target again": (
            Edit("left = np.maximum(target - draft, 0.0)", "left = target.copy()"),
            "leans towards",
        ),
        "not normalised": (Edit("left / np.where(total > 0, total, 1.0)", "left"), "add up to 1"),
        "too much of the draft": (
            Edit("np.maximum(target - draft, 0.0)", "np.maximum(draft - target, 0.0)"),
            "too much",
        ),
        "absolute": (
            Edit("np.maximum(target - draft, 0.0)", "np.abs(target - draft)"),
            "absolute difference",
        ),
        "zero over zero": (
            Edit(
                "correction = np.where(total > 0, left / np.where(total > 0, total, 1.0), target)",
                "with np.errstate(all='ignore'):\n        correction = left / total",
            ),
            "finite|nan|NaN",
        ),
        "no correction where equal": (
            Edit(
                "np.where(total > 0, total, 1.0), target)", "np.where(total > 0, total, 1.0), 0.0)"
            ),
            "target's distribution|add up",
        ),
    },
    "20.5": {
        "sign by the place": (
            (
                "def backup(visits, totals, path, value, alternating):\n"
                "    visits, totals = visits.copy(), totals.copy()\n"
                "    for number, (state, move) in enumerate(path):\n"
                "        visits[state, move] += 1\n"
                "        totals[state, move] += value * (-1) ** number if alternating else value\n"
                "    return visits, totals"
            ),
            "wrong one",
        ),
        "each pair once": (
            Edit("reversed(path)", "reversed(list(dict.fromkeys(path)))"),
            "stands twice",
        ),
        "all at once": (
            (
                "def backup(visits, totals, path, value, alternating):\n"
                "    visits, totals = visits.copy(), totals.copy()\n"
                "    states, moves = np.array(path).T\n"
                "    away = np.arange(len(path), 0, -1)\n"
                "    visits[states, moves] += 1\n"
                "    totals[states, moves] += value * (-1.0) ** away if alternating else value\n"
                "    return visits, totals"
            ),
            "stands twice",
        ),
        "no sign": (Edit(_FLIP, "pass"), "never changes"),
        "sign after the move": (
            (
                Edit(f"        {_FLIP}\n", ""),
                Edit(
                    "totals[state, move] += value",
                    "totals[state, move] += value\n        " + _FLIP,
                ),
            ),
            "wrong one",
        ),
        "from the root": (
            Edit("reversed(path)", "path"),
            "counted from the root|seen by who moves",
        ),
        "one sign for all": (
            (
                Edit(
                    "for state, move",
                    f"{_FLIP}\n    for state, move",
                ),
                Edit(f"        {_FLIP}\n", ""),
            ),
            "sign of the last|seen by who moves",
        ),
        "sign for one player": (Edit(" if alternating else value", ""), "one player"),
        "visits forgotten": (Edit("visits[state, move] += 1", "pass"), "not counted"),
        "last move only": (Edit("reversed(path)", "reversed(path[-1:])"), "only the last move"),
        "in place": (
            Edit("visits, totals = visits.copy(), totals.copy()", "pass"),
            "in place|stay as they are",
        ),
    },
}
