"""Wrong answers to the exercises of chapter 15, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_WINDOW = Edit("values[max(t - 2, 0) : t + 1]", "values[max(t - 1, 0) : t + 2]")

_BY_GOLD = Edit("return t, best", 'return t, int(np.argmax(history["gold"][: t + 1]))')

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "15.1": {
        "a peak before the start": (
            Edit("peak_d = max(alpha, 0.0) / (2 * beta)", "peak_d = alpha / (2 * beta)"),
            "before its start",
        ),
        "peak among the points": (
            Edit(
                "return float(alpha), float(beta), float(peak_d**2)",
                "peak_d = d[np.argmax(table @ found)] if beta > 0 else peak_d\n"
                "    return float(alpha), float(beta), float(peak_d**2)",
            ),
            "has the slope 0",
        ),
        "highest gold seen": (
            Edit(
                "return float(alpha), float(beta), float(peak_d**2)",
                "peak_d = d[np.argmax(gold)] if beta > 0 else peak_d\n"
                "    return float(alpha), float(beta), float(peak_d**2)",
            ),
            "has the slope 0",
        ),
        "correlation for R^2": (Edit("float(r2)", "float(np.sqrt(r2))"), "R\\^2 is the share"),
        "share that is left": (Edit("float(r2)", "float(1 - r2)"), "R\\^2 is the share"),
        "adjusted R^2": (
            Edit("float(r2)", "float(1 - (1 - r2) * (len(d) - 1) / (len(d) - 3))"),
            "R\\^2 is the share",
        ),
        "first point taken for the start": (
            Edit("gold = gold - start", "gold = gold - gold[0]"),
            "counted from|least-squares|finite",
        ),
        "half of the points": (
            Edit("    table = ", "    d, bend, gold = d[::2], bend[::2], gold[::2]\n    table = "),
            "least-squares",
        ),
        "first and last point": (
            Edit(
                "    table = np.stack([d, -bend], axis=1)\n"
                "    found = np.linalg.lstsq(table, gold, rcond=None)[0]",
                "    table = np.stack([d, -bend], axis=1)\n"
                "    found = np.linalg.lstsq(table[-2:], gold[-2:], rcond=None)[0]",
            ),
            "least-squares|finite",
        ),
        "the start left out of the points' mean": (
            Edit("    left =", "    table, gold = table[d > 0], gold[d > 0]\n    left ="),
            "R\\^2 is the share",
        ),
        "on KL": (Edit("d = np.sqrt(kl)", "d = np.asarray(kl) * 1.0"), "regressed on KL"),
        "intercept": (
            (
                Edit(
                    "np.stack([d, -bend], axis=1)",
                    "np.stack([d, -bend, np.ones_like(d)], axis=1)",
                ),
                Edit("alpha, beta = found", "alpha, beta = found[:2]"),
            ),
            "intercept",
        ),
        "start forgotten": (Edit("gold = gold - start", "gold = gold * 1.0"), "counted from"),
        "uncentred R2": (Edit("gold - gold.mean()", "gold"), "not with the mean"),
        "peak in d": (Edit("peak_d**2", "peak_d"), "not in nats"),
        "sign": (
            Edit("return float(alpha), float(beta)", "return float(alpha), -float(beta)"),
            "sign of beta",
        ),
        "log of KL": (
            Edit(
                "d * np.log(np.where(d > 0, d, 1.0))",
                "d * np.log(np.where(d > 0, d, 1.0) ** 2)",
            ),
            "logarithm of KL",
        ),
        "base 10": (Edit("d * np.log(np", "d * np.log10(np"), "base 10"),
        "wrong peak": (
            Edit("np.exp(alpha / beta - 1)", "np.exp(alpha / beta)"),
            "derive again",
        ),
        "no 2": (Edit("max(alpha, 0.0) / (2 * beta)", "max(alpha, 0.0) / beta"), "the 2"),
        "forms exchanged": ((Edit('form == "rl"', 'form != "rl"'),) * 2, "other form"),
        "no start": (
            Edit(
                "d = np.sqrt(kl)",
                "d = np.sqrt(kl)\n    if d.min() <= 0:\n"
                "        raise ValueError('a KL must be positive')",
            ),
            "must be positive",
        ),
        "always a peak": (Edit("if beta <= 0:", "if False:"), "never turns over"),
    },
    "15.2": {
        "features taken for independent": (
            Edit("    price = ", "    sigma = np.diag(np.diag(sigma))\n    price = "),
            "KL of the budget",
        ),
        "root of the covariance": (
            Edit("sigma @ v / price", "np.linalg.cholesky(sigma) @ v / price"),
            "moves the mean",
        ),
        "gold and proxy exchanged": (
            Edit("    price = ", "    w, v = v, w\n    price = "),
            "KL of the budget",
        ),
        "half of the penalty": (
            Edit("- c * shift @ shift", "- 0.5 * c * shift @ shift"),
            "what the shift earns",
        ),
        "length for square": (
            Edit("- c * shift @ shift", "- c * np.sqrt(shift @ shift)"),
            "length of the shift",
        ),
        "penalty in the metric of the features": (
            Edit("- c * shift @ shift", "- c * shift @ np.linalg.solve(sigma, shift)"),
            "Sigma\\^-1 shift",
        ),
        "zero budget, trace charged": (
            Edit("np.zeros(len(v)), 0.0", "np.zeros(len(v)), -c * float(np.trace(sigma))"),
            "buys nothing",
        ),
        "zero budget, price zero": (
            Edit("return np.inf, np.zeros", "return 0.0, np.zeros"),
            "infinite price",
        ),
        "budget as a distance": (
            Edit("np.sqrt(v @ sigma @ v / (2 * kl))", "np.sqrt(v @ sigma @ v / 2) / kl"),
            "budget as a distance",
        ),
        "proxy's gain added": (
            Edit("w @ shift -", "(w + v) @ shift -"),
            "what the shift earns",
        ),
        "no half": (Edit("(2 * kl)", "kl"), "half of the KL"),
        "no covariance in KL": (Edit("v @ sigma @ v", "v @ v"), "covariance is missing in"),
        "inverse price": (Edit("return price,", "return 1 / price,"), "inverse of the price"),
        "square": (Edit("return price,", "return price**2,"), "square of the price"),
        "plain shift": (
            Edit("shift = sigma @ v / price", "shift = v / price"),
            "covariance is missing\\n",
        ),
        "inverted": (
            Edit("sigma @ v / price", "np.linalg.solve(sigma, v) / price"),
            "inverted",
        ),
        "along gold": (Edit("sigma @ v / price", "sigma @ w / price"), "along gold's"),
        "no penalty": (Edit("- c * shift @ shift", ""), "penalty is missing"),
        "sign": (Edit("- c * shift @ shift", "+ c * shift @ shift"), "wrong sign"),
        "trace": (
            Edit("- c * shift @ shift", "- c * (shift @ shift + np.trace(sigma))"),
            "trace is charged",
        ),
        "charged KL": (Edit("- c * shift @ shift", "- c * kl"), "charged the KL"),
        "promise": (Edit("w @ shift - c * shift @ shift", "v @ shift"), "proxy promises"),
        "zero budget": (
            Edit("if kl == 0:", "kl = max(kl, 1e-6)\n    if kl == 0:"),
            "budget of 0 needs",
        ),
        "KL charged where features are independent": (
            Edit(
                "    return price, shift, gold",
                "    if not (sigma - np.diag(np.diag(sigma))).any():\n"
                "        gold = float(w @ shift - c * kl)\n"
                "    return price, shift, gold",
            ),
            "the chapter's world",
        ),
    },
    "15.3": {
        "decided before the units are taken off": (
            Edit(
                "return z.min(axis=0)",
                "return z[rewards.argmin(axis=0), np.arange(rewards.shape[1])]",
            ),
            "own zero and unit|conventions",
        ),
        "first member's unit for all": (Edit("/ scale", "/ scale[0]"), "own zero and unit"),
        "one unit for all": (
            Edit("start.std(axis=1, keepdims=True)", "start.std()"),
            "own zero and unit",
        ),
        "median for mean": (
            Edit("start.mean(axis=1, keepdims=True)", "np.median(start, axis=1, keepdims=True)"),
            "own zero and unit",
        ),
        "spread together with the new": (
            Edit("start.std(axis=1", "np.concatenate([start, rewards], axis=1).std(axis=1"),
            "own zero and unit",
        ),
        "second worst": (Edit("z.min(axis=0)", "np.sort(z, axis=0)[1]"), "own zero and unit"),
        "first member only": (Edit("z.min(axis=0)", "z[0]"), "own zero and unit"),
        "mean less spread": (
            Edit("z.min(axis=0)", "z.mean(axis=0) - z.std(axis=0)"),
            "own zero and unit",
        ),
        "in the first member's units": (
            Edit("return z.min(axis=0)", "return centre[0] + scale[0] * z.min(axis=0)"),
            "own zero and unit",
        ),
        "never above the start": (
            Edit("return z.min(axis=0)", "return np.minimum(z.min(axis=0), 0.0)"),
            "own zero and unit",
        ),
        "the bug": (
            (
                Edit("start.mean(axis=1, keepdims=True)", "start.mean()"),
                Edit("start.std(axis=1, keepdims=True)", "start.std()"),
            ),
            "share one zero and one unit",
        ),
        "raw": (
            Edit("z = (rewards - centre) / scale", "z = rewards * 1.0"),
            "lowest zero decides",
        ),
        "on the batch": (
            (
                Edit("start.mean(", "rewards.mean("),
                Edit("start.std(", "rewards.std("),
            ),
            "hides that the policy moved",
        ),
        "centre only": (Edit("/ scale", "/ 1.0"), "keep their own units"),
        "scale only": (Edit("(rewards - centre)", "rewards"), "keep their own zeros"),
        "best": (Edit("z.min(", "z.max("), "best member"),
        "mean": (Edit("z.min(", "z.mean("), "mean of the members"),
        "other axis": (Edit("z.min(axis=0)", "z.min(axis=1)"), "shape"),
        "variance": (Edit("start.std(", "start.var("), "variance divides"),
        "N - 1": (Edit("start.std(axis=1,", "start.std(axis=1, ddof=1,"), "N - 1"),
        "a response alone in a common unit": (
            Edit(
                "    z = (rewards",
                "    if rewards.shape[1] == 1:\n"
                "        centre, scale = start.mean(), start.std()\n"
                "    z = (rewards",
            ),
            "alone and in a batch",
        ),
    },
    "15.4": {
        "values before the start are zero": (
            Edit(
                "np.array([values[max(t - 2, 0) : t + 1].mean() for t in range(len(values))])",
                "np.convolve(values, np.ones(3) / 3)[: len(values)]",
            ),
            "taken for zeros|past its best",
        ),
        "no average before three values": (
            Edit("    best = 0", "    smooth[:2] = -np.inf\n    best = 0"),
            "before three values exist|past its best|taken for zeros",
        ),
        "window of two": (Edit("max(t - 2, 0)", "max(t - 1, 0)"), "past its best"),
        "window of four": (Edit("max(t - 2, 0)", "max(t - 3, 0)"), "four iterations long"),
        "mean of all so far": (Edit("max(t - 2, 0)", "0"), "past its best"),
        "best begins at zero": (
            (
                Edit("    best = 0", "    best, top = 0, 0.0"),
                Edit(
                    "if smooth[t] > smooth[best]:\n            best = t",
                    "if smooth[t] > top:\n            best, top = t, smooth[t]",
                ),
            ),
            "may be negative|past its best",
        ),
        "stop is the best": (
            Edit("return t, best", "return best, best"),
            "stop at the best itself",
        ),
        "one past the end": (
            Edit(
                "            break\n    return t, best",
                "            return t, best\n    return t + 1, best",
            ),
            "goes to its end|at its last",
        ),
        "never fired, last is kept": (
            Edit(
                "            break\n    return t, best",
                "            return t, best\n    return t, t",
            ),
            "at its last",
        ),
        "gold by the side": (
            Edit(
                'history["validation"], dtype=float)',
                'history["validation"], dtype=float) + 0.1 * np.asarray(history["gold"])',
            ),
            "gold changes nothing",
        ),
        "watches the KL": (Edit('history["validation"]', 'history["kl"]'), "past its best"),
        "patience of three": (
            Edit("    best = 0", "    patience = 3\n    best = 0"),
            "past its best|improvement|exists",
        ),
        "the bug": (
            (_WINDOW, _BY_GOLD),
            "gold changes nothing",
        ),
        "gold left": (_BY_GOLD, "gold changes nothing"),
        "window left": (_WINDOW, "future is not known|centred"),
        "best of the whole run": (
            Edit("return t, best", "return t, int(smooth.argmax())"),
            "whole run|future is not known",
        ),
        "not smoothed": (
            Edit("values[max(t - 2, 0) : t + 1].mean()", "values[t]"),
            "not smoothed",
        ),
        "too late": (Edit("t - best >= patience", "t - best > patience"), "too late"),
        "too early": (Edit("t - best >= patience", "t - best >= patience - 1"), "too early"),
        "keeps the last": (Edit("return t, best", "return t, t"), "keep the last"),
        "watches the proxy": (
            Edit('history["validation"]', 'history["proxy"]'),
            "never stops rising",
        ),
        "kept on raw values": (
            Edit("return t, best", "return t, int(values[: t + 1].argmax())"),
            "chosen on values that are not smoothed",
        ),
        "ties improve": (
            Edit("smooth[t] > smooth[best]", "smooth[t] >= smooth[best]"),
            "equal value|nothing happens",
        ),
    },
    "15.5": {
        "N and N - 1 mixed": (
            Edit(
                "slope = (centred * score).sum() / spread",
                "slope = np.cov(length, score)[0, 1] / np.var(length)",
            ),
            "one by N - 1, one by N\\n",
        ),
        "N - 1 and N mixed": (
            Edit(
                "slope = (centred * score).sum() / spread",
                "slope = (centred * score).mean() / np.var(length, ddof=1)",
            ),
            "one by N, one by N - 1",
        ),
        "median gain": (
            Edit("raw = score.mean()", "raw = np.median(score)"),
            "raw gain is the mean",
        ),
        "controlled for raw": (
            Edit(
                "return float(raw), float(controlled)",
                "return float(controlled), float(controlled)",
            ),
            "raw gain is the mean",
        ),
        "our length's share taken off": (
            Edit("slope * length.mean()", "slope * length_a.mean()"),
            "own length earned",
        ),
        "centred above only": (
            Edit(
                "spread = (centred**2).sum()",
                "spread = (length**2).sum() * (centred != 0).any()",
            ),
            "centred above the line",
        ),
        "pay per hundred tokens": (
            Edit("float(controlled), float(slope)", "float(controlled), 100 * float(slope)"),
            "pay for a token",
        ),
        "equal lengths leave nothing": (
            Edit("float(raw), float(raw), 0.0", "float(raw), 0.0, 0.0"),
            "never differ",
        ),
        "correlation": (
            Edit("/ spread", "/ np.sqrt(spread * ((score - raw) ** 2).sum())"),
            "pay for a token",
        ),
        "only pairs of about the same length": (
            Edit(
                "controlled = raw - slope * length.mean()",
                "controlled = score[np.abs(length) <= np.median(np.abs(length))].mean()",
            ),
            "at equal lengths",
        ),
        "centred": (
            Edit("controlled = raw - slope * length.mean()", "controlled = raw"),
            "centred",
        ),
        "no intercept": (
            Edit("(centred * score).sum() / spread", "(score @ length) / (length @ length)"),
            "no intercept",
        ),
        "per-token score": (
            Edit(
                "controlled = raw - slope * length.mean()",
                "controlled = (score_a / length_a - score_b / length_b).mean()",
            ),
            "divided scores by lengths",
        ),
        "turned round": (
            Edit("/ spread", "/ ((score - raw) ** 2).sum()"),
            "regressed on score",
        ),
        "our length only": (
            Edit("centred = length - length.mean()", "centred = length_a - length_a.mean()"),
            "against our length",
        ),
        "torn pairs": (
            Edit(
                "slope = (centred * score).sum() / spread",
                "slope = np.polyfit(np.append(length_a, length_b), "
                "np.append(score_a, score_b), 1)[0]",
            ),
            "torn apart",
        ),
        "exchanged": (
            Edit(
                "score = score_a - score_b",
                "score_a, score_b, length_a, length_b = score_b, score_a, length_b, length_a\n"
                "    score = score_a - score_b",
            ),
            "exchanged",
        ),
        "added": (Edit("raw - slope", "raw + slope"), "added, not taken off"),
        "0/0": (Edit("if spread == 0:", "if spread < 0:"), "never differ|equal lengths"),
        "a quarter of a point a token at most": (
            Edit("    controlled = raw", "    slope = min(slope, 0.25)\n    controlled = raw"),
            "pays more for each token",
        ),
    },
}
