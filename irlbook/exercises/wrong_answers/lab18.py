"""Wrong answers to the lab of chapter 18, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "18L.1": {
        "texts once": (Edit("(words, counts, v)", "(words, minlength=v)"), "weighed|counts once"),
        "not normalised": (Edit("rows / rows.sum(axis=1, keepdims=True)", "rows"), "not divided"),
        "normalised over places": (Edit("axis=1", "axis=0"), "share of each word|finite"),
        "one row": (
            Edit(
                "    return rows /",
                "    rows = np.tile(rows.mean(axis=0), (len(rows), 1))\n    return rows /",
            ),
            "share one row",
        ),
        "smoothed": (
            Edit("counts, v) for words in texts.T])", "counts, v) for words in texts.T]) + 1"),
            "nobody saw",
        ),
        "words that nobody writes are left out": (
            Edit("words, counts, v", "words, counts"),
            "shape|list of|error",
        ),
    },
    "18L.2": {
        "mean": (
            Edit(
                "for t in range(texts.shape[1]))",
                "for t in range(texts.shape[1])) / texts.shape[1]",
            ),
            "averaged",
        ),
        "chances": (Edit("return sum(", "return np.exp(1) ** sum("), "minus infinity"),
        "first word": (Edit("range(texts.shape[1])", "range(1)"), "minus infinity"),
        "wrong row": (Edit("logs[t, texts", "logs[t - 1, texts"), "minus infinity|sum over|finite"),
        "floor": (Edit("np.log(rows)", "np.log(np.maximum(rows, 1e-300))"), "minus infinity"),
        "product": (
            "def text_logs(rows, texts):\n"
            "    with np.errstate(divide='ignore'):\n"
            "        return np.log(np.prod(rows[np.arange(texts.shape[1]), texts], axis=1))",
            "long and unlikely|finite",
        ),
    },
    "18L.3": {
        "turned": (
            Edit(
                "log_sft - np.where(can, log_start, 0.0)", "np.where(can, log_start, 0.0) - log_sft"
            ),
            "sign is turned",
        ),
        "ratio": (
            "def log_ratio(log_sft, log_start):\n    return np.exp(log_sft - log_start)",
            "no logarithm",
        ),
        "start left out": (
            Edit("log_sft - np.where(can, log_start, 0.0)", "log_sft"),
            "plays no part",
        ),
        "edges forgotten": (
            "def log_ratio(log_sft, log_start):\n"
            "    with np.errstate(invalid='ignore'):\n"
            "        return log_sft - log_start",
            "NaN",
        ),
        "all infinite made 0": (
            "def log_ratio(log_sft, log_start):\n"
            "    with np.errstate(invalid='ignore'):\n"
            "        r = log_sft - log_start\n"
            "    return np.where(np.isfinite(r), r, 0.0)",
            "only the start writes",
        ),
        "centred": (
            Edit(
                "return np.where(can, log_sft - np.where(can, log_start, 0.0), 0.0)",
                "r = np.where(can, log_sft - np.where(can, log_start, 0.0), 0.0)\n"
                "    return r - r.mean()",
            ),
            "log pi_SFT less",
        ),
        "what cannot be drawn is minus infinity": (
            Edit("np.where(can, log_start, 0.0), 0.0)", "np.where(can, log_start, 0.0), -np.inf)"),
            "never writes has the reward 0",
        ),
    },
    "18L.4": {
        "n - 1": (Edit("(at_most**n - below**n)", "(at_most**(n - 1) - below**(n - 1))"), "n - 1"),
        "n + 1": (
            Edit("(at_most**n - below**n)", "(at_most**(n + 1) - below**(n + 1))"),
            "n \\+ 1",
        ),
        "uniform start": (
            Edit("p = np.exp(log_start)", "p = np.full(len(log_start), 1 / len(log_start))"),
            "uniform",
        ),
        "worst": (Edit("    p = np", "    reward = -reward\n    p = np"), "worst of n"),
        "argmax": (
            "def best_of_n(log_start, reward, n):\n    return np.eye(len(reward))[reward.argmax()]",
            "best text of all",
        ),
        "equal rewards share evenly": (
            Edit(
                "return p * (at_most**n - below**n) / level",
                "alike = (reward[:, None] == reward).sum(axis=1)\n"
                "    return np.where(p > 0, (at_most**n - below**n) / alike, 0)",
            ),
            "share evenly",
        ),
        "first of equals": (
            Edit(
                "    at_most =",
                "    reward = np.argsort(np.argsort(reward, kind='stable'), kind='stable')\n"
                "    at_most =",
            ),
            "equal reward",
        ),
        "division by zero": (
            Edit("    level = np.where(level > 0, level, 1.0)\n", ""),
            "finite|never",
        ),
        "two draws at least": (
            Edit("    p = np.exp(log_start)", "    n = max(n, 2)\n    p = np.exp(log_start)"),
            "best of one",
        ),
    },
    "18L.5": {
        "not normalised": (
            Edit("scores - np.logaddexp.reduce(scores)", "scores"),
            "not normalised",
        ),
        "exponent": (Edit("/ lam", "* lam"), "exponent is lambda"),
        "ratio turned": (Edit("log_expert - log_now", "log_now - log_expert"), "ratio is turned"),
        "exchanged": (
            Edit("log_now + (log_expert - log_now)", "log_expert + (log_now - log_expert)"),
            "exchanged",
        ),
        "demonstrator": (
            "def spin_round(log_expert, log_now, lam):\n    return log_expert",
            "every lambda",
        ),
        "through chances": (
            "def spin_round(log_expert, log_now, lam):\n"
            "    p = np.exp(log_now) ** (1 - 1 / lam) * np.exp(log_expert) ** (1 / lam)\n"
            "    with np.errstate(divide='ignore'):\n"
            "        return np.log(p / p.sum())",
            "very unlikely|finite",
        ),
    },
    "18L.6": {
        "opponent stays": (
            Edit("spin_round(log_expert, log_p, lam)", "spin_round(log_expert, log_start, lam)"),
            "always the start",
        ),
        "round too few": (Edit("range(rounds)", "range(rounds - 1)"), "too few"),
        "round too many": (Edit("range(rounds)", "range(rounds + 1)"), "too many"),
        "divergence turned": (
            "def spin(log_expert, log_start, lam, rounds):\n"
            "    path = [log_start]\n"
            "    for _ in range(rounds):\n"
            "        path.append(spin_round(log_expert, path[-1], lam))\n"
            "    return path[-1], np.array([np.exp(q) @ (q - log_expert) for q in path])",
            "divergence is turned",
        ),
        "sign": (
            Edit("return log_p, np.array(curve)", "return log_p, -np.array(curve)"),
            "sign is turned",
        ),
        "curve without the start": (Edit("np.array(curve)", "np.array(curve[1:])"), "shape"),
        "policy only": (
            Edit("return log_p, np.array(curve)", "return log_p"),
            "policy and the curve",
        ),
    },
    "18L.7": {
        "against places": (
            Edit("ax.plot(ns, learned", "ax.plot(range(len(ns)), learned"),
            "learned reward",
        ),
        "gold left out": (
            Edit('    ax.plot(ns, ceiling, "--", color="0.4", label="gold")\n', ""),
            "gold itself",
        ),
        "place marked": (Edit("ns[learned.argmax()]", "learned.argmax()"), "vertical"),
        "end marked": (Edit("ns[learned.argmax()]", "ns[-1]"), "vertical"),
        "legend exchanged": (Edit('label="learned"', 'label="gold"'), "legend"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "linear axis": (Edit('xscale="log", ', ""), "log axis"),
        "no unit": (Edit('ylabel="gold of the best of n"', 'ylabel="value"'), "says gold"),
    },
    "18L.8": {
        "gold chooses": (
            Edit("best_of_n(log_start, reward, n)", "best_of_n(log_start, gold, n)"),
            "gold chooses",
        ),
        "SFT writes": (
            Edit(
                "best_of_n(log_start, reward, n)",
                "best_of_n(text_logs(sft_rows(texts, counts, v), texts), reward, n)",
            ),
            "SFT writes",
        ),
        "reward averaged": (
            Edit("reward, n) @ gold", "reward, n) @ np.where(np.isfinite(reward), reward, 0)"),
            "reward is averaged",
        ),
        "place of n": (
            Edit("ns[int(np.argmax(curve))]", "int(np.argmax(curve))"),
            "entry of",
        ),
        "largest n": (Edit("ns[int(np.argmax(curve))]", "ns[-1]"), "most gold"),
        "demonstrations once": (
            Edit("sft_rows(texts, counts, v)", "sft_rows(texts, counts > 0, v)"),
            "judged by",
        ),
        "curve only": (
            Edit(
                'return {"gold": curve, "n": ns[int(np.argmax(curve))]}',
                "return curve",
            ),
            "dict|gold",
        ),
    },
}
