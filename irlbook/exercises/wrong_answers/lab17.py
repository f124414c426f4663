"""Wrong answers to the lab of chapter 17, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "17L.1": {
        "likelihood underflows": (
            Edit(
                "return np.exp(joint - total), total.sum()",
                (
                    'with np.errstate(divide="ignore"):\n'
                    "        return np.exp(joint - total), np.log(np.exp(joint).sum(axis=1)).sum()"
                ),
            ),
            "1000 nats|finite",
        ),
        "users without labels stand last": (
            Edit("users, log_expit", "np.unique(users, return_inverse=True)[1], log_expit"),
            "given all labels",
        ),
        "share 0 is a small number": (Edit("np.log(shares)", "np.log(shares + 1e-300)"), "share 0"),
        "labels in blocks": (
            Edit("np.add.at(logs, users,", "np.add.at(logs, np.sort(users),"),
            "given all labels",
        ),
        "no shares": (Edit("np.log(shares) + logs", "logs + 0 * shares"), "shares are missing"),
        "normalised over users": (
            Edit("np.exp(joint - total), total", "np.exp(joint - logsumexp(joint, axis=0)), total"),
            "over users",
        ),
        "not normalised": (Edit("np.exp(joint - total)", "np.exp(joint)"), "does not add up"),
        "hard": (
            Edit("np.exp(joint - total)", "np.eye(len(shares))[joint.argmax(axis=1)]"),
            "given to one type",
        ),
        "labels averaged": (
            Edit(
                "    with np",
                "    logs /= np.maximum(np.bincount(users, minlength=n_users), 1)[:, None]\n"
                "    with np",
            ),
            "averaged",
        ),
        "shares for each label": (
            Edit(
                "np.log(shares) + logs",
                "np.log(shares) * np.bincount(users, minlength=n_users)[:, None] + logs",
            ),
            "once for each label",
        ),
        "loser preferred": (Edit("log_expit(d", "log_expit(-d"), "exchanged"),
        "no sigmoid": (Edit("log_expit(d @ weights.T)", "d @ weights.T"), "sigmoid is missing"),
        "last label of a user only": (
            Edit(
                "np.add.at(logs, users, log_expit(d @ weights.T))",
                "logs[users] = log_expit(d @ weights.T)",
            ),
            "given all labels",
        ),
        "users without labels left out": (
            Edit("return np.exp(joint - total)", "return np.exp(joint - total)[np.unique(users)]"),
            "shape",
        ),
        "users without labels are even": (
            Edit(
                "    total =",
                "    joint[np.bincount(users, minlength=n_users) == 0] = 0\n    total =",
            ),
            "given all labels",
        ),
        "mean over users": (Edit("total.sum()", "total.mean()"), "mean over users"),
        "mean over labels": (Edit("total.sum()", "total.sum() / len(users)"), "mean over labels"),
        "likelihood without shares": (
            Edit("total.sum()", "logsumexp(logs, axis=1).sum()"),
            "shares are missing",
        ),
        "likeliest type only": (
            Edit("total.sum()", "joint.max(axis=1).sum()"),
            "likeliest type",
        ),
        "expected log-likelihood": (
            Edit("total.sum()", "(np.exp(joint - total) * logs).sum()"),
            "expected",
        ),
        "loss": (Edit("total.sum()", "-total.sum()"), "sign is turned"),
        "log of a sigmoid": (
            Edit("log_expit(d @ weights.T)", "np.log(expit(d @ weights.T))"),
            "1000 nats|finite",
        ),
        "clipped sigmoid": (
            Edit("log_expit(d @ weights.T)", "np.log(expit(d @ weights.T).clip(1e-300))"),
            "1000 nats",
        ),
        "underflow": (
            Edit(
                "np.exp(joint - total), total.sum()",
                "np.exp(joint) / np.exp(joint).sum(axis=1, keepdims=True), total.sum()",
            ),
            "underflow|finite",
        ),
        "share 0 raised": (Edit("np.log(shares)", "np.log(shares + 0.01)"), "given all|share 0"),
        "share 0 raised a little": (
            Edit("np.log(shares)", "np.log(np.maximum(shares, 1e-4))"),
            "share 0",
        ),
    },
    "17L.2": {
        "all alike": (
            Edit("    w = start", "    counts = np.ones(len(d))\n    w = start"),
            "count alike",
        ),
        "counts add up to 1": (
            Edit("    w = start", "    counts = counts / counts.sum()\n    w = start"),
            "add up to 1",
        ),
        "counts rounded": (
            Edit("    w = start", "    counts = np.round(counts)\n    w = start"),
            "rounded",
        ),
        "counts squared": (
            Edit("    w = start", "    counts = counts**2\n    w = start"),
            "squared",
        ),
        "no penalty": (Edit("    w = start", "    l2 = 1e-9\n    w = start"), "no penalty"),
        "twice the penalty": (
            Edit("    w = start", "    l2 = 2 * l2\n    w = start"),
            "twice as large",
        ),
        "penalty per label": (
            Edit("    w = start", "    l2 = l2 * len(d)\n    w = start"),
            "once for each label",
        ),
        "loser preferred": (Edit("    w = start", "    d = -d\n    w = start"), "loser"),
        "one step": (Edit("range(100)", "range(1)"), "one step of Newton"),
        "two steps": (Edit("range(100)", "range(2)"), "largest|gradient"),
        "penalty towards the start": (
            (
                Edit("- l2 / 2 * w @ w", "- l2 / 2 * (w - start) @ (w - start)"),
                Edit("- l2 * w\n", "- l2 * (w - start)\n"),
            ),
            "start changes nothing",
        ),
        "stops early": (Edit("max() < 1e-7", "max() < 0.02"), "largest|gradient|start changes"),
        "no halving": (
            Edit(
                "        while value(w + step) < value(w) and np.abs(step).max() > 1e-9:\n"
                "            step = step / 2\n",
                "",
            ),
            "made shorter",
        ),
    },
    "17L.3": {
        "three steps at least": (Edit("len(curve) < 2", "len(curve) < 3"), "second step"),
        "hard": (
            Edit(
                "        shares =",
                "        belief = np.eye(n_types)[belief.argmax(axis=1)]\n        shares =",
            ),
            "given to one type|hard version",
        ),
        "equal shares": (
            Edit("belief.mean(axis=0)", "np.full(n_types, 1 / n_types)"),
            "all equal",
        ),
        "shares over labels": (
            Edit("belief.mean(axis=0)", "belief[users].mean(axis=0)"),
            "means over labels",
        ),
        "bare curve": (
            Edit("log_likelihood - l2 / 2 * (weights**2).sum()", "log_likelihood"),
            "no penalty",
        ),
        "full penalty": (Edit("l2 / 2 * (weights", "l2 * (weights"), "less l2 / 2"),
        "penalty of one type": (
            Edit("(weights**2).sum()", "(weights[0] ** 2).sum()"),
            "squares of all weights",
        ),
        "responsibilities of other users": (
            Edit("belief[users, g]", "belief[users[::-1], g]"),
            "beginning|M step and E step",
        ),
        "all labels for each type": (
            Edit("belief[users, g]", "np.ones(len(d))"),
            "M step and E step|stops after",
        ),
        "shares of one step before": (
            (
                Edit("    weights, curve", "    shares = belief.mean(axis=0)\n    weights, curve"),
                Edit("        shares = belief.mean(axis=0)\n", ""),
                Edit(
                    "        curve.append",
                    "        shares = belief.mean(axis=0)\n        curve.append",
                ),
            ),
            "value of the weights and shares|shares are those|the last number",
        ),
        "coarse tolerance": (Edit(">= 1e-3", ">= 1e-1"), "stops after the first"),
        "fine tolerance": (Edit(">= 1e-3", ">= 1e-6"), "stops after the first"),
        "ten steps": (
            Edit("len(curve) < 2 or curve[-1] - curve[-2] >= 1e-3", "len(curve) < 10"),
            "stops after the first|second step|goes on|most of",
        ),
        "belief kept": (
            Edit("belief, log_likelihood =", "_, log_likelihood ="),
            "M step and E step|stops|goes on",
        ),
        "sorted": (
            Edit(
                "    return weights, shares,",
                "    order = np.argsort(shares)\n"
                "    weights, shares = weights[order], shares[order]\n"
                "    return weights, shares,",
            ),
            "order of the given|row for each type",
        ),
        "weights of another M step": (
            Edit(
                "    return weights,",
                "    weights = np.array([m_step(d, belief[users, g], 2 * l2, weights[g]) "
                "for g in range(n_types)])\n    return weights,",
            ),
            "weights are those of the last step|last number",
        ),
        "curve of losses": (Edit("np.array(curve)", "-np.array(curve)"), "log-likelihood less"),
        "last value only": (
            Edit("np.array(curve)", "np.array(curve[-1:])"),
            "number for each step",
        ),
    },
    "17L.4": {
        "four starts": (Edit("range(5)", "range(4)"), "best of 5 starts"),
        "first start": (Edit("range(5)", "range(1)"), "best of 5 starts"),
        "two starts": (Edit("range(5)", "range(2)"), "best of 5 starts"),
        "one start five times": (
            Edit(
                "dice.dirichlet(np.ones(n_types), size=n_users) for",
                "np.random.default_rng(seed).dirichlet(np.ones(n_types), size=n_users) for",
            ),
            "best of 5 starts",
        ),
        "last start": (
            Edit("max(climbs, key=lambda c: c[2][-1])", "climbs[-1]"),
            "best of 5 starts",
        ),
        "worst start": (Edit("max(climbs", "min(climbs"), "best of 5 starts"),
        "not sorted": (
            Edit("np.argsort(-shares)", "np.argsort(shares)"),
            "most common first",
        ),
        "shares sorted alone": (
            Edit("return weights[order]", "return weights"),
            "best of 5 starts",
        ),
        "weights alone": (Edit(", shares[order]", ""), "2 values"),
    },
    "17L.5": {
        "fitted users scored": (Edit("*new)[1] / new[2]", "*seen)[1] / seen[2]"), "were fitted"),
        "all users fitted": (
            Edit("part_of(users, d, ~held_out)", "(users, d, len(held_out))"),
            "fitted, too",
        ),
        "parts exchanged": (
            Edit(
                "part_of(users, d, ~held_out), part_of(users, d, held_out)",
                "part_of(users, d, held_out), part_of(users, d, ~held_out)",
            ),
            "exchanged",
        ),
        "per label": (Edit("/ new[2]", "/ len(new[0])"), "per label"),
        "per user of the crowd": (Edit("/ new[2]", "/ len(held_out)"), "per held-out user"),
        "sum": (Edit(" / new[2]", ""), "sum over users"),
        "penalised": (
            Edit("*new)[1] / new[2]", "*new)[1] / new[2] - l2 / 2 * (weights**2).sum() / new[2]"),
            "penalty",
        ),
        "best type of each": (
            Edit(
                "        scores.append(e_step(weights, shares, *new)[1] / new[2])",
                "        logs = np.zeros((new[2], n_types))\n"
                "        np.add.at(logs, new[0], log_expit(new[1] @ weights.T))\n"
                "        scores.append(logs.max(axis=1).mean())",
            ),
            "peeks",
        ),
        "even shares": (
            Edit("weights, shares, *new", "weights, 0 * shares + 1 / n_types, *new"),
            "per held-out user",
        ),
        "one type fewer": (Edit("range(1, most + 1)", "range(1, most)"), "shape"),
        "one type too many": (
            Edit("range(1, most + 1)", "range(2, most + 2)"),
            "per held-out user",
        ),
        "the best number": (
            Edit("return np.array(scores)", "return 1 + int(np.argmax(scores))"),
            "shape",
        ),
        "labels held out": (
            Edit(
                "part_of(users, d, ~held_out), part_of(users, d, held_out)",
                "(users[::2], d[::2], len(held_out)), (users[1::2], d[1::2], len(held_out))",
            ),
            "per held-out user",
        ),
        "always three": (Edit("most + 1", "4"), "shape"),
        "the last ones of three": (
            Edit("range(1, most + 1)", "range(4 - most, 4)"),
            "belong to 1, 2, ",
        ),
    },
    "17L.6": {
        "from zero": (Edit("np.arange(1, most + 1)", "np.arange(most)"), "against 1, 2"),
        "sum over splits": (
            Edit("fitted.mean(axis=0)", "fitted.sum(axis=0)"),
            "mean over splits",
        ),
        "median": (
            Edit(
                "ax.plot(numbers, new.mean(axis=0), label",
                "ax.plot(numbers, np.median(new, axis=0), label",
            ),
            "mean over splits for new|both lines",
        ),
        "first split only": (Edit("fitted.mean(axis=0)", "fitted[0]"), "mean over splits"),
        "no points": (
            Edit("    ax.scatter(np.tile(numbers, splits), new.ravel(), s=12, alpha=0.6)\n", ""),
            "is a point",
        ),
        "points of the fitted": (Edit("new.ravel()", "fitted.ravel()"), "is a point"),
        "points by number": (
            Edit(
                "np.tile(numbers, splits), new.ravel()", "np.tile(numbers, splits), new.T.ravel()"
            ),
            "is a point",
        ),
        "no mark": (
            Edit('    ax.axvline(numbers[new.mean(axis=0).argmax()], color="0.6", ls=":")\n', ""),
            "vertical line",
        ),
        "mark by the fitted": (
            Edit("numbers[new.mean", "numbers[fitted.mean"),
            "vertical line",
        ),
        "mark by the best single split": (
            Edit("numbers[new.mean(axis=0).argmax()]", "numbers[new.max(axis=0).argmax()]"),
            "vertical line",
        ),
        "mark by index": (
            Edit("numbers[new.mean(axis=0).argmax()]", "new.mean(axis=0).argmax()"),
            "vertical line",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "one name": (Edit('"users who were fitted"', '"new users"'), "one name for each"),
        "names exchanged": (
            (
                Edit(
                    'color="0.4", label="users who were fitted"', 'color="0.4", label="new users"'
                ),
                Edit('new.mean(axis=0), label="new users"', 'new.mean(axis=0), label="fitted"'),
            ),
            'hold the word "fitted"',
        ),
        "no unit": (Edit(" (nats per user)", ""), "unit"),
        "no types": (Edit('"number of types"', '"number"'), "types"),
        "no label": (Edit('xlabel="number of types", ', ""), "x axis"),
    },
    "17L.7": {
        "always three": (
            Edit("1 + int(np.argmax(scores > scores.max() - 0.2))", "3"),
            "number of types",
        ),
        "one": (Edit("number, l2, seed)", "1, l2, seed)"), "number of types"),
        "at most three": (Edit("held_out, 5,", "held_out, 3,"), "number of types"),
        "at least two": (
            Edit("d, n_users, number,", "d, n_users, max(2, number),"),
            "number of types",
        ),
        "always five": (Edit("d, n_users, number,", "d, n_users, 5,"), "number of types"),
        "one too few": (
            Edit("number = 1 + int", "number = int"),
            "number of types|without an error",
        ),
        "the worst score": (
            Edit("np.argmax(scores > scores.max() - 0.2)", "np.argmin(scores)"),
            "number of types",
        ),
        "loose margin": (Edit("scores.max() - 0.2", "scores.max() - 20"), "number of types"),
        "weights only": (
            Edit('return {"weights": weights, "shares": shares}', "return weights"),
            "dict",
        ),
        "one key": (Edit(', "shares": shares}', "}"), "keys"),
        "even shares": (
            Edit('"shares": shares', '"shares": 0 * shares + 1 / number'),
            "shares are",
        ),
        "shares in another order": (
            Edit('"shares": shares', '"shares": shares[::-1]'),
            "shares are",
        ),
        "the loser": (Edit('"weights": weights', '"weights": -weights'), "fresh pairs"),
        "the same for all": (
            Edit('"weights": weights', '"weights": weights[:1] + 0 * weights'),
            "fresh pairs",
        ),
        "far too large a penalty": (
            Edit(
                "fit_types(users, d, n_users, number, l2, seed)",
                "fit_types(users, d, n_users, number, 3000.0, seed)",
            ),
            "fresh pairs|shares are",
        ),
        "no seed": (
            (
                Edit("np.random.default_rng(seed)", "np.random.default_rng()"),
                Edit("number, l2, seed)", "number, l2, None)"),
            ),
            "same seed",
        ),
        "borrowed": (
            Edit("    l2 = 1.0", "    import irlbook.preferences.mixture\n    l2 = 1.0"),
            "irlbook.preferences",
        ),
    },
}
