"""Wrong answers to the lab of chapter 16, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

HALVING = (
    "        while value(w + step) < value(w) and np.abs(step).max() > 1e-9:\n"
    "            step = step / 2\n"
)

GAIN = "np.linalg.slogdet(precision + more)[1] - np.linalg.slogdet(precision)[1]"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "16L.1": {
        "no prior": (Edit("    w = np", "    l2 = 1e-9\n    w = np"), "no prior"),
        "twice the prior": (Edit("    w = np", "    l2 = 2 * l2\n    w = np"), "twice as strong"),
        "a prior for each answer": (
            Edit("    w = np", "    l2 = max(1, len(d)) * l2\n    w = np"),
            "once for each answer",
        ),
        "loser preferred": (Edit("    w = np", "    d = -d\n    w = np"), "sign is turned"),
        "one step": (Edit("range(100)", "range(1)"), "one step of Newton"),
        "three steps": (Edit("range(100)", "range(2)"), "is where|gradient|precision is"),
        "stops early": (
            Edit("max() < 1e-8", "max() < 0.02"),
            "is where|gradient|too far|precision is",
        ),
        "precision at zero": (
            Edit("return w, precision(w)", "return w, precision(0 * w)"),
            "coin flip",
        ),
        "precision without prior": (
            Edit("return w, precision(w)", "return w, precision(w) - l2 * np.eye(len(w))"),
            "prior is missing",
        ),
        "covariance": (
            Edit("return w, precision(w)", "return w, np.linalg.inv(precision(w))"),
            "covariance",
        ),
        "lambda is p": (
            Edit(
                "return w, precision(w)", "return w, l2 * np.eye(len(w)) + (d.T * expit(d @ w)) @ d"
            ),
            "lambda is p",
        ),
        "lambda missing": (
            Edit("return w, precision(w)", "return w, l2 * np.eye(len(w)) + d.T @ d"),
            "lambda is missing",
        ),
        "mean over answers": (
            Edit(
                "return w, precision(w)",
                "return w, l2 * np.eye(len(w)) + (precision(w) - l2 * np.eye(len(w))) / len(d)",
            ),
            "mean over the answers",
        ),
        "diagonal": (
            Edit("return w, precision(w)", "return w, np.diag(np.diag(precision(w)))"),
            "second derivative",
        ),
        "no halving": (Edit(HALVING, ""), "made shorter"),
        "no answer fails": (
            Edit("    w = np", '    assert len(d), "no answers"\n    w = np'),
            "without an error",
        ),
        "nothing before the first answer": (
            Edit("    w = np", "    if not len(d):\n        l2 = 1.0\n    w = np"),
            "only the prior",
        ),
        "mode only": (Edit("return w, precision(w)", "return w"), "2 values"),
    },
    "16L.2": {
        "single gains added": (
            Edit(
                "    return " + GAIN,
                "    width = np.einsum('pk,kl,pl->p', asked, np.linalg.inv(precision), asked)\n"
                "    return np.log1p(lam * width).sum()",
            ),
            "overlap",
        ),
        "coin flips": (Edit("p * (1 - p)", "0.25 + 0 * p"), "coin flip"),
        "no lambda": (Edit("p * (1 - p)", "1 + 0 * p"), "lambda is missing"),
        "lambda is p": (Edit("p * (1 - p)", "p"), "log det with its information"),
        "whole pool": (Edit("d[rows]", "d"), "whole pool"),
        "nothing subtracted": (Edit(" - np.linalg.slogdet(precision)[1]", ""), "not subtracted"),
        "bits": (
            Edit(GAIN, f"({GAIN}) / np.log(2)"),
            "base 2",
        ),
        "determinants": (
            Edit(
                GAIN,
                "np.linalg.det(precision + more) - np.linalg.det(precision)",
            ),
            "difference of determinants",
        ),
        "half": (
            Edit(GAIN, f"({GAIN}) / 2"),
            "half",
        ),
        "sign": (
            Edit(GAIN, f"-({GAIN})"),
            "sign is turned",
        ),
        "prior left out": (
            Edit(
                GAIN,
                "np.linalg.slogdet(np.eye(len(more)) + more)[1]",
            ),
            "prior was left out",
        ),
        "trace": (
            Edit(
                GAIN,
                "np.trace(np.linalg.inv(precision) - np.linalg.inv(precision + more))",
            ),
            "log det with its information",
        ),
        "repeated once": (Edit("d[rows]", "d[np.unique(rows)]"), "counts twice"),
        "no question fails": (
            Edit("    asked =", '    assert len(rows), "no question"\n    asked ='),
            "without an error",
        ),
        "overflow": (
            Edit(
                GAIN,
                "np.log(np.linalg.det(precision + more)) - np.log(np.linalg.det(precision))",
            ),
            "overflow|finite|NaN",
        ),
        "no question is every question": (
            Edit("asked = d[rows]", "asked = d[rows] if len(rows) else d"),
            "no question is worth nothing",
        ),
    },
    "16L.3": {
        "top of one list": (
            Edit("        precision = precision + lam[row] * np.outer(d[row], d[row])\n", ""),
            "top of one list",
        ),
        "coin flips": (Edit("p * (1 - p)", "0.25 + 0 * p"), "coin flip"),
        "taken ones again": (Edit("free.copy()", "np.ones(len(d), dtype=bool)"), "chosen again"),
        "uncertainty": (
            "def greedy_batch(precision, d, w, free, size):\n"
            "    return np.argsort(np.where(free, np.abs(d @ w), np.inf))[:size]",
            "coin flips",
        ),
        "order lost": (
            Edit("return np.array(chosen)", "return np.sort(chosen)"),
            "order of choice",
        ),
        "largest gaps": (
            "def greedy_batch(precision, d, w, free, size):\n"
            "    return np.argsort(np.where(free, -np.abs(d @ w), np.inf))[:size]",
            "raises log det most",
        ),
        "longest": (
            "def greedy_batch(precision, d, w, free, size):\n"
            "    return np.argsort(np.where(free, -(d**2).sum(axis=1), np.inf))[:size]",
            "raises log det most",
        ),
        "update without lambda": (
            Edit("lam[row] * np.outer", "np.outer"),
            "raises log det most",
        ),
        "precision for covariance": (
            Edit("np.linalg.inv(precision)", "precision"),
            "raises log det most",
        ),
        "lambda missing in the score": (
            Edit("lam * np.einsum", "np.einsum"),
            "raises log det most",
        ),
        "free is changed": (Edit("free.copy()", "free"), "left as they were"),
        "twice": (Edit("        left[row] = False\n", ""), "twice|raises log det most"),
        "last of equals": (
            Edit(
                "np.argmax(np.where(left, score, -np.inf))",
                "len(d) - 1 - np.argmax(np.where(left, score, -np.inf)[::-1])",
            ),
            "first one is taken|equals",
        ),
        "one too few": (Edit("range(size)", "range(size - 1)"), "shape"),
    },
    "16L.4": {
        "chooses after the last fit": (
            Edit(
                "        weights.append(w)",
                ("        weights.append(w)\n        assert free.any()"),
            ),
            "raised",
        ),
        "answers ignored": (
            Edit("np.where(answers[asked][:, None], d[asked], -d[asked])", "d[asked]"),
            "always wins",
        ),
        "answers turned": (
            Edit("d[asked], -d[asked])", "-d[asked], d[asked])"),
            "answers are turned",
        ),
        "answers in another order": (
            Edit("answers[asked]", "answers[np.sort(asked)]"),
            "questions that were asked",
        ),
        "all answers used": (
            Edit(
                "np.where(answers[asked][:, None], d[asked], -d[asked])",
                "np.where(answers[:, None], d, -d)",
            ),
            "not bought",
        ),
        "newest batch only": (
            (
                Edit("answers[asked]", "answers[rows]"),
                Edit("d[asked], -d[asked])", "d[rows], -d[rows])"),
            ),
            "all answers so far|chosen by the rule",
        ),
        "asked twice": (Edit("        free[rows] = False\n", ""), "asked twice|chosen by the rule"),
        "always D-optimal": (Edit('rule == "random"', "False"), "rule 'random'"),
        "always random": (Edit('rule == "random"', "True"), "rule 'D-optimal'"),
        "first batch in order": (
            Edit("dice.choice(len(d), size=batch, replace=False)", "np.arange(batch)"),
            "first batch is drawn",
        ),
        "first batch by the rule": (
            Edit(
                "dice.choice(len(d), size=batch, replace=False)",
                "greedy_batch(l2 * np.eye(d.shape[1]), d, np.zeros(d.shape[1]), free, batch)",
            ),
            "first batch is drawn",
        ),
        "seed ignored": (Edit("default_rng(seed)", "default_rng(0)"), "first batch is drawn"),
        "one batch too few": (
            Edit("budget // batch", "budget // batch - 1"),
            "budget allows",
        ),
        "one batch too many": (
            Edit("budget // batch", "budget // batch + 1"),
            "budget allows",
        ),
        "last weights only": (
            Edit("np.array(weights)", "np.array(weights[-1:])"),
            "after each batch",
        ),
        "precision of the first batch": (
            Edit(
                "        weights.append(w)",
                "        first = precision if not weights else first\n"
                "        precision = first\n        weights.append(w)",
            ),
            "rule 'D-optimal'",
        ),
        "weights of zero when choosing": (
            Edit("greedy_batch(precision, d, w,", "greedy_batch(precision, d, 0 * w,"),
            "rule 'D-optimal'",
        ),
        "chosen by the answers": (
            Edit("w, free, batch)", "w, free & answers, batch)"),
            "rule 'D-optimal'",
        ),
        "prior forgotten": (Edit("-d[asked]), l2)", "-d[asked]), 1e-3)"), "questions that were"),
        "asked only": (
            Edit('{"asked": np.array(asked), "weights": np.array(weights)}', "np.array(asked)"),
            "dict",
        ),
        "other names": (
            Edit('{"asked": np.array(asked), "weights"', '{"rows": np.array(asked), "weights"'),
            "keys 'asked' and 'weights'",
        ),
        "begins again before the last batch": (
            Edit(
                "        if number and rule",
                "        if free.sum() <= batch:\n"
                "            free[:] = True\n"
                "        if number and rule",
            ),
            "buys each question once",
        ),
    },
    "16L.5": {
        "median": (Edit("ys.mean(axis=0)", "np.median(ys, axis=0)"), "mean over seeds"),
        "first seed": (Edit("ys.mean(axis=0)", "ys[0]"), "mean over seeds"),
        "number of the batch": (
            Edit("ax.plot(labels, ys.mean", "ax.plot(np.arange(len(labels)), ys.mean"),
            "mean over seeds",
        ),
        "one rule": (Edit('("D-optimal", chosen', '("D-optimal", chance'), "D-optimal choice"),
        "no spread": (Edit("for q in (0.25, 0.75):", "for q in ():"), "quantile"),
        "one quantile": (Edit("for q in (0.25, 0.75):", "for q in (0.25,):"), "75% quantile"),
        "deciles": (Edit("(0.25, 0.75)", "(0.1, 0.9)"), "25% quantile"),
        "deviation": (
            Edit(
                "np.quantile(ys, q, axis=0)",
                "ys.mean(axis=0) + 2 * (2 * q - 1) * ys.std(axis=0)",
            ),
            "25% quantile",
        ),
        "quantile over steps": (
            Edit("np.quantile(ys, q, axis=0)", "np.quantile(ys, q) + 0 * labels"),
            "quantile",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "one name": (Edit("label=name", 'label="mean"'), "one name for each"),
        "names exchanged": (
            Edit("label=name", 'label={"random": "D-optimal", "D-optimal": "random"}[name]'),
            'hold the word "random"',
        ),
        "no labels": (Edit('xlabel="labels"', 'xlabel="n"'), "what is counted"),
        "no measure": (
            Edit('ylabel="rank correlation on new prompts"', 'ylabel="score"'),
            "what is measured",
        ),
        "no y label": (Edit(', ylabel="rank correlation on new prompts"', ""), "y axis"),
    },
    "16L.6": {
        "budget ignored": (Edit("budget, 5", "60, 5"), "budget allows"),
        "random choice": (Edit('"D-optimal"', '"random"'), "random choice"),
        "first batch only": (
            Edit('"D-optimal", budget, 5', '"D-optimal", 10, 10'),
            "random choice",
        ),
        "uncertainty": (
            Edit(
                '    run = run_active(d, replies, "D-optimal", budget, 5, 1.0, seed)\n',
                "    dice, free = np.random.default_rng(seed), np.ones(len(d), dtype=bool)\n"
                "    rows, asked = dice.choice(len(d), size=10, replace=False), []\n"
                "    for _ in range(budget // 10):\n"
                "        asked += rows.tolist()\n"
                "        free[rows] = False\n"
                "        bought = np.where(replies[asked][:, None], d[asked], -d[asked])\n"
                "        w, _ = refit(bought, 1.0)\n"
                "        rows = np.argsort(np.where(free, np.abs(d @ w), np.inf))[:10]\n"
                '    run = {"asked": np.array(asked), "weights": w[None]}\n',
            ),
            "random choice",
        ),
        "too many labels": (Edit("budget, 5", "2 * budget, 5"), "budget allows"),
        "both orders": (
            Edit("i, j = np.triu_indices(r, 1)", "i, j = np.nonzero(~np.eye(r, dtype=bool))"),
            "responses exchanged",
        ),
        "with itself": (
            Edit("np.triu_indices(r, 1)", "np.triu_indices(r)"),
            "random choice|two different|mode for all",
        ),
        "answers turned": (
            Edit("replies = answers[x, i, j]", "replies = answers[x, j, i]"),
            "mode for all answers",
        ),
        "last batch not in the fit": (
            Edit('run["weights"][-1]', 'run["weights"][-2]'),
            "mode for all answers",
        ),
        "another prior": (Edit("5, 1.0, seed", "5, 0.3, seed"), "l2 = 1"),
        "all answers in the fit": (
            Edit(
                'run["weights"][-1]',
                "refit(np.where(replies[:, None], d, -d), 1.0)[0]",
            ),
            "mode for all answers",
        ),
        "chosen by all answers": (
            Edit(
                '    run = run_active(d, replies, "D-optimal", budget, 5, 1.0, seed)\n',
                "    w, precision = refit(np.where(replies[:, None], d, -d), 1.0)\n"
                "    free = np.ones(len(d), dtype=bool)\n"
                "    rows = greedy_batch(np.eye(len(w)), d, w, free, budget)\n"
                "    bought = np.where(replies[rows][:, None], d[rows], -d[rows])\n"
                '    run = {"asked": rows, "weights": refit(bought, 1.0)[0][None]}\n',
            ),
            "not bought",
        ),
        "seed ignored": (
            Edit("1.0, seed)", "1.0, None)"),
            "same seed",
        ),
        "rows for questions": (
            Edit('named[run["asked"]]', 'run["asked"]'),
            "shape",
        ),
        "one row too low": (Edit('named[run["asked"]]', 'named[run["asked"]] + 1'), "from 0|mode"),
        "weights only": (
            Edit(
                'return {"asked": named[run["asked"]], "weights": run["weights"][-1]}',
                'return run["weights"][-1]',
            ),
            "dict",
        ),
        "borrowed": (
            Edit(
                "    r = features",
                "    from irlbook.preferences import acquisition\n    r = features",
            ),
            "irlbook.preferences",
        ),
        "other names": (
            Edit('return {"asked": named', 'return {"questions": named'),
            "keys 'asked' and 'weights'",
        ),
    },
}
