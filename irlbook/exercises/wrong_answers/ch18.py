"""Wrong answers to the exercises of chapter 18, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "18.1": {
        "nobody by exp": (Edit("np.isneginf(log_q)", "np.exp(log_q) == 0"), "exp\\(log p\\) is 0"),
        "opponent clipped": (
            Edit(
                "    never = np.isneginf(log_q)",
                ("    never = np.isneginf(log_q)\n    log_q = np.maximum(log_q, -700.0)"),
            ),
            "exp\\(log p\\) is 0",
        ),
        "exchanged": (
            Edit("log_p - np.where(never, 0.0, log_q)", "np.where(never, 0.0, log_q) - log_p"),
            "exchanged|minus infinity",
        ),
        "log D alone": (
            Edit("log_p - np.where(never, 0.0, log_q)", "log_p - np.logaddexp(log_p, log_q)"),
            "log D alone|NaN",
        ),
        "-log(1-D) alone": (
            Edit(
                "log_p - np.where(never, 0.0, log_q)",
                "np.logaddexp(log_p, np.where(never, 0.0, log_q)) - np.where(never, 0.0, log_q)",
            ),
            "alone",
        ),
        "ratio": (
            Edit(
                "log_p - np.where(never, 0.0, log_q)",
                "np.exp(log_p - np.where(never, 0.0, log_q))",
            ),
            "without the logarithm",
        ),
        "nan where nobody writes": (
            "def log_ratio(log_p, log_q):\n    return log_p - log_q",
            "NaN",
        ),
        "clipped": (
            Edit("return np.where(", "return np.clip(log_p, -50, 0) - log_q + 0 * np.where("),
            "NaN|infinity",
        ),
        "through D": (
            "def log_ratio(log_p, log_q):\n"
            "    p, q = np.exp(log_p), np.exp(log_q)\n"
            "    d = np.where(p + q > 0, p / np.where(p + q > 0, p + q, 1.0), 0.5)\n"
            "    with np.errstate(divide='ignore'):\n"
            "        return np.log(d) - np.log1p(-d)",
            "finite|underflow|exp|numbers",
        ),
        "zero for minus infinity": (
            Edit("return np.where(never, ", "return np.where(never | np.isneginf(log_p), "),
            "minus infinity",
        ),
    },
    "18.2": {
        "equal weights": (
            Edit(
                "np.add.at(total, groups, rho)",
                "mass = rho.sum(axis=1, keepdims=True)\n"
                "    np.add.at(total, groups, rho / np.where(mass > 0, mass, 1.0))",
            ),
            "count alike",
        ),
        "not divided": (
            Edit(
                "return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0)",
                "return np.where(mass > 0, total",
            ),
            "not divided by the group's total",
        ),
        "by the number": (
            Edit(
                "total / np.where(mass > 0, mass, 1.0)",
                "total / np.bincount(groups)[:, None]",
            ),
            "number of prefixes",
        ),
        "a row each": (
            "def shared_rows(rho, groups):\n"
            "    mass = rho.sum(axis=1, keepdims=True)\n"
            "    return rho / np.where(mass > 0, mass, 1.0)",
            "shape",
        ),
        "over groups": (
            Edit(
                "mass = total.sum(axis=1, keepdims=True)", "mass = total.sum(axis=0, keepdims=True)"
            ),
            "shared row|add up",
        ),
        "nan without data": (
            Edit(
                "np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), 1 / rho.shape[1])",
                "total / mass",
            ),
            "finite",
        ),
        "zero without data": (
            Edit("1 / rho.shape[1])", "0.0)"),
            "uniform row",
        ),
        "last prefix wins": (
            Edit("np.add.at(total, groups, rho)", "total[groups] += rho"),
            "shared row",
        ),
    },
    "18.3": {
        "never is next to never": (
            Edit(
                "scores = log_opponent",
                ("log_expert = np.maximum(log_expert, -1000.0)\n    scores = log_opponent"),
            ),
            "minus infinity",
        ),
        "log 0 is -50": (
            Edit(
                "scores = log_opponent",
                (
                    "log_expert = np.where(np.isneginf(log_expert), -50.0, log_expert)\n"
                    "    scores = log_opponent"
                ),
            ),
            "minus infinity",
        ),
        "not normalised": (Edit(" - np.logaddexp.reduce(scores)", ""), "not normalised"),
        "lambda multiplies": (Edit("/ lam", "* lam"), "multiplies"),
        "no reference": (Edit("log_opponent + (", "("), "missing as reference"),
        "exchanged": (
            Edit(
                "log_opponent + (log_expert - log_opponent)",
                "log_expert + (log_opponent - log_expert)",
            ),
            "exchanged|finite",
        ),
        "probabilities": (
            Edit(
                "return scores - np.logaddexp.reduce(scores)",
                "return np.exp(scores - np.logaddexp.reduce(scores))",
            ),
            "return logarithms",
        ),
        "one round is enough": (Edit("/ lam", "/ 1.0"), "ignored"),
        "smoothed": (
            Edit(
                "scores = log_opponent",
                "log_expert = np.maximum(log_expert, -9.0)\n    scores = log_opponent",
            ),
            "probability 0|underflow",
        ),
        "through probabilities": (
            "def spin_round(log_expert, log_opponent, lam):\n"
            "    p, q = np.exp(log_expert), np.exp(log_opponent)\n"
            "    new = q * (p / q) ** (1 / lam)\n"
            "    with np.errstate(divide='ignore'):\n"
            "        return np.log(new / new.sum())",
            "finite|underflow",
        ),
    },
    "18.4": {
        "the bug": (
            Edit("((rewards - centre) / spread)", "rewards"),
            "different zeros and units",
        ),
        "mean": (Edit(".min(axis=0)", ".mean(axis=0)"), "mean of the rewards"),
        "optimism": (Edit(".min(axis=0)", ".max(axis=0)"), "optimism"),
        "worst response": (Edit(".argmax(axis=1)", ".argmin(axis=1)"), "worst reward"),
        "only zeros": (
            Edit("(rewards - centre) / spread", "rewards - centre"),
            "units are not|different zeros",
        ),
        "only units": (
            Edit("(rewards - centre) / spread", "rewards / spread"),
            "zeros are not|different zeros",
        ),
        "on the candidates": (
            Edit(
                "centre = usual.mean(axis=1)[:, None, None]",
                "usual = rewards.reshape(len(rewards), -1)\n"
                "    centre = usual.mean(axis=1)[:, None, None]",
            ),
            "on the candidates",
        ),
        "one scale for all": (
            Edit("usual.std(axis=1)[:, None, None]", "usual.std()"),
            "worst standardised",
        ),
    },
    "18.5": {
        "only visited states": (Edit("(n_states, size)", "(states.max() + 1, size)"), "shape"),
        "half a visit for each token": (Edit("0.5 / size", "0.5"), "mean of what"),
        "copies itself": (
            Edit("np.add.at(table, states, teacher)", "np.add.at(table, (states, written), 1.0)"),
            "student wrote",
        ),
        "likeliest only": (
            Edit(
                "np.add.at(table, states, teacher)",
                "np.add.at(table, (states, teacher.argmax(axis=1)), 1.0)",
            ),
            "likeliest",
        ),
        "where it agreed": (
            Edit(
                "np.add.at(table, states, teacher)",
                "right = teacher[np.arange(len(written)), written] > 0\n"
                "    np.add.at(table, states[right], teacher[right])",
            ),
            "erred were left out",
        ),
        "not after a mistake": (
            Edit(
                "np.add.at(table, states, teacher)",
                "right = teacher.max(axis=1) < 0.9\n"
                "    np.add.at(table, states[right], teacher[right])",
            ),
            "left out",
        ),
        "no smoothing": (
            Edit("0.5 / size", "0.0"),
            "finite|mean of what",
        ),
        "last visit only": (
            Edit("np.add.at(table, states, teacher)", "table[states] += teacher"),
            "mean of what",
        ),
        "not normalised": (
            Edit("table / table.sum(axis=1, keepdims=True)", "table"),
            "distribution|add up|sum",
        ),
        "unseen states do what is usual": (
            Edit(
                "    return table",
                "    table[np.setdiff1d(np.arange(n_states), states)] = teacher.mean(axis=0)\n"
                "    return table",
            ),
            "without a visit",
        ),
    },
}
