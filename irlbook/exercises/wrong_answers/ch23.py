"""Wrong answers to the exercises of chapter 23, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "23.1": {
        "mask by ids": (
            "def own_tokens(ids, lengths, marks):\n"
            "    own = np.zeros(ids.shape, dtype=bool)\n"
            "    for row, out in zip(ids, own):\n"
            "        inside = False\n"
            "        for t, token in enumerate(row):\n"
            "            if token == marks['begin']:\n"
            "                inside = row[t + 1] == marks['assistant']\n"
            "                skip = t + 3\n"
            "            out[t] = inside and t >= skip and token != marks['end']\n"
            "            if token == marks['end']:\n"
            "                inside = False\n"
            "    return own",
            "end token is left out",
        ),
        "no end": (Edit("ends[0] + 1", "ends[0]"), "end token is left out"),
        "pads": (
            Edit(
                "    return own",
                "    own |= np.arange(ids.shape[1]) >= lengths[:, None]\n    return own",
            ),
            "padding is counted",
        ),
        "length of the batch": (Edit("*begins[1:], n]", "*begins[1:], len(row)]"), "nothing else"),
        "a pad ends a cut answer": (
            Edit("row[text:stop] == marks", "row[text : stop + 1] == marks"),
            "nothing else",
        ),
        "last answer only": (
            Edit(
                "            text = begin + 3",
                "            if stop != n:\n                continue\n            text = begin + 3",
            ),
            "only the last answer",
        ),
        "first answer only": (
            Edit("            out[text:stop] = True", "            out[text:stop] = not out.any()"),
            "nothing else",
        ),
        "header counted": (Edit("out[text:stop]", "out[begin:stop]"), "header is counted"),
        "newline of the header": (Edit("out[text:stop]", "out[text - 1 : stop]"), "nothing else"),
        "newline behind the end": (
            Edit("                stop = text + ends[0] + 1\n", "                pass\n"),
            "newline behind an end token",
        ),
        "every role": (
            Edit('if row[begin + 1] != marks["assistant"]:', "if False:"),
            "what the others say",
        ),
        "not the user": (
            Edit('!= marks["assistant"]', '== marks["user"]'),
            "nothing else",
        ),
        "the word begins a turn": (
            Edit(
                'np.flatnonzero(row[:n] == marks["begin"])',
                'np.flatnonzero((row[:n] == marks["begin"]) '
                '| (np.append(row[1:n], 0) == marks["assistant"]))',
            ),
            "nothing else",
        ),
        "a newline ends it": (
            Edit(
                'row[text:stop] == marks["end"]',
                '(row[text:stop] == marks["end"]) | (row[text:stop] == marks["newline"])',
            ),
            "nothing else",
        ),
        "newlines are never counted": (
            Edit("    return own", '    return own & (ids != marks["newline"])'),
            "nothing else",
        ),
        "roles are never counted": (
            Edit("    return own", '    return own & (ids != marks["assistant"])'),
            "nothing else",
        ),
        "cut answers left out": (
            Edit("            out[text:stop] = True", "            out[text:stop] = len(ends) > 0"),
            "nothing else",
        ),
        "an opened turn is counted": (
            Edit("out[text:stop]", "out[min(text, n - 1) : stop]"),
            "nothing else",
        ),
        "weights of a mean": (
            Edit("    return own", "    return own / own.sum()"),
            "True or False of each token",
        ),
    },
    "23.2": {
        "over all prompts": (
            (
                Edit("logw.max(axis=1, keepdims=True)", "logw.max()"),
                Edit("np.exp(logw).sum(axis=1, keepdims=True)", "np.exp(logw).sum()"),
                Edit("(w * gold).sum(axis=1).mean()", "(w * gold).sum()"),
            ),
            "over all prompts together",
        ),
        "strength divides": (
            Edit("strength * gold", "gold / strength if strength else 0 * gold"),
            "strength divides",
        ),
        "strength without sign": (Edit("strength * gold", "abs(strength) * gold"), "by its size"),
        "strength at most ten": (
            Edit("logw = strength * gold", "logw = min(strength, 10.0) * gold"),
            "very large strength",
        ),
        "not stabilised": (
            Edit("logw = logw - logw.max(axis=1, keepdims=True)", "pass"),
            "finite|numbers, not NaN",
        ),
        "log of the weights": (
            Edit("kl = (w * logw)", "logw = np.log(w)\n    kl = (w * logw)"),
            "finite|numbers, not NaN",
        ),
        "one of the ties": (
            Edit(
                "    kl = ",
                "    if w.max() > 0.3 and (np.sort(w)[:, -2] == w.max(axis=1)).any():\n"
                "        w = np.eye(gold.shape[1])[gold.argmax(axis=1)]\n    kl = ",
            ),
            "very large strength",
        ),
        "mean gold of the start": (
            Edit("(w * gold).sum(axis=1)", "gold"),
            "mean gold of the start",
        ),
        "best samples": (
            Edit("(w * gold).sum(axis=1)", "gold.max(axis=1)"),
            "gold of the best samples",
        ),
        "gold summed": (Edit("(w * gold).sum(axis=1).mean()", "(w * gold).sum()"), "sum over"),
        "no log n": (Edit(" + np.log(gold.shape[1])", ""), "1/n is missing"),
        "log of all samples": (
            Edit("np.log(gold.shape[1])", "np.log(gold.size)"),
            "`kl` is the KL",
        ),
        "other direction": (
            Edit(
                "(w * logw).sum(axis=1) + np.log(gold.shape[1])",
                "-logw.mean(axis=1) - np.log(gold.shape[1])",
            ),
            "other direction",
        ),
        "under equal weights": (
            Edit(
                "(w * logw).sum(axis=1) + np.log(gold.shape[1])",
                "logw.mean(axis=1) + np.log(gold.shape[1])",
            ),
            "under equal weights",
        ),
        "bits": (Edit("float(kl.mean())", "float(kl.mean() / np.log(2))"), "in bits"),
        "small strength": (
            Edit(
                "    effective = ",
                "    kl = strength**2 * gold.var(axis=1) / 2\n    effective = ",
            ),
            "small-strength",
        ),
        "kl summed": (Edit("float(kl.mean())", "float(kl.sum())"), "sum over prompts"),
        "kl of the largest": (Edit("float(kl.mean())", "float(kl.max())"), "`kl` is the KL"),
        "effective of means": (
            Edit("1 / (w**2).sum(axis=1)", "1 / (w**2).sum(axis=1).mean()"),
            "before the division",
        ),
        "effective as a share": (
            Edit("1 / (w**2).sum(axis=1)", "1 / (w**2).mean(axis=1) / gold.shape[1] ** 2"),
            "share of n",
        ),
        "perplexity": (
            Edit("1 / (w**2).sum(axis=1)", "np.exp(-(w * logw).sum(axis=1))"),
            "exp of the entropy",
        ),
        "effective summed": (
            Edit("float(effective.mean())", "float(effective.sum())"),
            "it is a sum",
        ),
        "two numbers": (Edit(", float(effective.mean())", ""), "3 values"),
        "zero is an error": (
            Edit("    logw = strength", "    1 / strength\n    logw = strength"),
            "runs without an error",
        ),
        "zero read as none": (
            Edit("logw = strength * gold", "logw = (strength or 1.0) * gold"),
            "at strength 0",
        ),
    },
    "23.3": {
        "log-ratios with the other sign": (
            Edit("float(log_ratios.mean())", "float(-log_ratios.mean())"),
            "other direction",
        ),
        "squared": (
            Edit("float(log_ratios.mean())", "float((log_ratios**2).mean() / 2)"),
            "squared",
        ),
        "summed": (Edit("float(log_ratios.mean())", "float(log_ratios.sum())"), "it is a sum"),
        "never negative": (
            Edit("float(log_ratios.mean())", "max(0.0, float(log_ratios.mean()))"),
            "left so",
        ),
        "the positive estimator": (
            Edit(
                "float(log_ratios.mean())",
                "float((np.exp(-log_ratios) - 1 + log_ratios).mean())",
            ),
            "`paid` estimates",
        ),
        "small gain": (
            Edit(
                "tilt(pool, strength)[1], float",
                "float((wanted - pool.mean()) ** 2 / 2 / pool.var(axis=1).mean()), float",
            ),
            "small gain",
        ),
        "one pool": (
            Edit(
                "    wanted = gold.mean()",
                "    wanted, pool = gold.mean(), pool.reshape(1, -1)",
            ),
            "share one distribution",
        ),
        "a strength for each prompt": (
            "def bill(gold, log_ratios, pool):\n"
            "    found = []\n"
            "    for own, samples in zip(gold, pool, strict=True):\n"
            "        wanted = np.clip(own.mean(), samples.min() + 1e-6, samples.max() - 1e-6)\n"
            "        s = brentq(lambda s: tilt(samples[None], s)[0] - wanted, -1e7, 1e7)\n"
            "        found.append((tilt(samples[None], s)[1], s))\n"
            "    if not pool.min(axis=1).mean() < gold.mean() < pool.max(axis=1).mean():\n"
            "        raise ValueError\n"
            "    needed, strength = np.mean(found, axis=0)\n"
            "    return float(log_ratios.mean()), float(needed), float(strength)",
            "same for all prompts",
        ),
        "the best prompt": (
            Edit("wanted = gold.mean()", "wanted = gold[0].mean()"),
            "of the pool has|runs",
        ),
        "what was wasted": (
            Edit(
                "tilt(pool, strength)[1], float",
                "float(log_ratios.mean()) - tilt(pool, strength)[1], float",
            ),
            "spent on the rest",
        ),
        "no sign": (Edit("[1], float(strength)", "[1], abs(float(strength))"), "sign is lost"),
        "the price": (Edit("[1], float(strength)", "[1], 1 / float(strength)"), "the inverse"),
        "positive strengths only": (
            Edit("    while gap(low) > 0:\n        low *= 2\n", "    low = 0.0\n"),
            "runs without an error",
        ),
        "strengths up to twenty": (
            Edit(
                "brentq(gap, low, high, xtol=1e-10)",
                "brentq(gap, low, high, xtol=1e-10) if gap(20) > 0 else 20.0",
            ),
            "may need a large strength",
        ),
        "out of reach above": (
            (
                Edit(
                    "not pool.min(axis=1).mean() < wanted < pool.max(axis=1).mean()",
                    "wanted <= pool.min(axis=1).mean()",
                ),
                Edit("while gap(high) < 0:", "while gap(high) < 0 and high < 1e6:"),
                Edit(
                    "brentq(gap, low, high, xtol=1e-10)",
                    "brentq(gap, low, high, xtol=1e-10) if gap(high) > 0 else high",
                ),
            ),
            "no number",
        ),
        "out of reach below": (
            (
                Edit(
                    "not pool.min(axis=1).mean() < wanted < pool.max(axis=1).mean()",
                    "wanted >= pool.max(axis=1).mean()",
                ),
                Edit("while gap(low) > 0:", "while gap(low) > 0 and low > -1e6:"),
                Edit(
                    "brentq(gap, low, high, xtol=1e-10)",
                    "brentq(gap, low, high, xtol=1e-10) if gap(low) < 0 else low",
                ),
            ),
            "no number",
        ),
        "infinity": (
            Edit(
                'raise ValueError(f"no tilt of the pool has a mean gold of {wanted:.3f}")',
                "return float(log_ratios.mean()), np.inf, np.inf",
            ),
            "no number",
        ),
        "the best sample of all": (
            (
                Edit("pool.max(axis=1).mean()", "pool.max()"),
                Edit("while gap(high) < 0:", "while gap(high) < 0 and high < 1e6:"),
                Edit(
                    "brentq(gap, low, high, xtol=1e-10)",
                    "brentq(gap, low, high, xtol=1e-10) if gap(high) > 0 else high",
                ),
            ),
            "no number",
        ),
    },
    "23.4": {
        "the mean within a response": (
            "def kl_by_class(classes, log_ratios):\n"
            "    found = {}\n"
            "    for names, ratios in zip(classes, log_ratios, strict=True):\n"
            "        for name in set(names):\n"
            "            own = [r for n, r in zip(names, ratios, strict=True) if n == name]\n"
            "            found[name] = found.get(name, 0.0) + np.mean(own)\n"
            "    return {name: x / len(classes) for name, x in found.items()}",
            "averaged, not summed",
        ),
        "only where it occurs": (
            Edit("total / len(classes)", "total / sum(name in c for c in classes)"),
            "have such a token",
        ),
        "cut off": (Edit("total / len(classes)", "max(0.0, total / len(classes))"), "cut off"),
        "cut off within a response": (
            "def kl_by_class(classes, log_ratios):\n"
            "    found = {}\n"
            "    for names, ratios in zip(classes, log_ratios, strict=True):\n"
            "        for name in set(names):\n"
            "            own = [r for n, r in zip(names, ratios, strict=True) if n == name]\n"
            "            found[name] = found.get(name, 0.0) + max(0.0, sum(own))\n"
            "    return {name: x / len(classes) for name, x in found.items()}",
            "within a response",
        ),
        "as it was": (
            "def kl_by_class(classes, log_ratios):\n"
            "    found = {}\n"
            "    for names, ratios in zip(classes, log_ratios, strict=True):\n"
            "        for name in set(names):\n"
            "            own = [r for n, r in zip(names, ratios, strict=True) if n == name]\n"
            "            found.setdefault(name, []).append(np.mean(own))\n"
            "    return {name: max(0.0, float(np.mean(parts))) for name, parts in found.items()}",
            "add up to the KL",
        ),
        "absolute": (Edit("+ ratio", "+ abs(ratio)"), "lost their sign"),
        "per token": (
            Edit("total / len(classes)", "total / sum(map(len, classes))"),
            "nats per token of all",
        ),
        "per token of the class": (
            Edit("total / len(classes)", "total / sum(c.count(name) for c in classes)"),
            "per token of the class",
        ),
        "empty ones left out": (
            Edit("total / len(classes)", "total / sum(1 for c in classes if c)"),
            "without tokens are left out",
        ),
        "summed": (Edit("total / len(classes)", "total"), "sum over responses"),
        "no end": (
            Edit(
                "for name, total in sorted(found.items())}",
                "for name, total in found.items() if name != 'end'}",
            ),
            "each class that occurs",
        ),
        "fails at an empty one": (
            Edit("        for name, ratio", "        names[0]\n        for name, ratio"),
            "runs without an error",
        ),
    },
    "23.5": {
        "tie is wrong": (
            Edit("return share(margin),", "return float((margin > 0).mean()),"),
            "tie counts as wrong",
        ),
        "tie is right": (
            Edit("return share(margin),", "return float((margin >= 0).mean()),"),
            "tie counts as right",
        ),
        "columns exchanged": (
            Edit("rewards[:, 0] - rewards[:, 1]", "rewards[:, 1] - rewards[:, 0]"),
            "rejected response is read",
        ),
        "longer": (
            Edit("share(shorter), near_equal", "share(-shorter), near_equal"),
            "prefers the longer",
        ),
        "better of both rules": (
            Edit("share(shorter), near_equal", "max(share(shorter), share(-shorter)), near_equal"),
            "`shorter` is",
        ),
        "equal lengths are wrong": (
            Edit("share(shorter), near_equal", "float((shorter > 0).mean()), near_equal"),
            "equal lengths count as wrong",
        ),
        "equal lengths left out": (
            Edit("share(shorter), near_equal", "share(shorter[shorter != 0]), near_equal"),
            "equal lengths are left out",
        ),
        "boundary left out": (Edit("<= near", "< near"), "exactly `near`"),
        "share of the shorter": (
            Edit("lengths.max(axis=1)", "lengths.min(axis=1)"),
            "shorter length",
        ),
        "tokens, not a share": (
            Edit("near * lengths.max(axis=1)", "near * 100"),
            "`near_equal` is",
        ),
        "share of the chosen one": (
            Edit("lengths.max(axis=1)", "lengths[:, 0]"),
            "`near_equal` is",
        ),
        "always a tenth": (Edit("<= near *", "<= 0.1 *"), "`near_equal` is"),
        "the others": (Edit("share(margin[close])", "share(margin[~close])"), "not near"),
        "length rule on near pairs": (
            Edit("share(margin[close])", "share(shorter[close])"),
            "length rule's hits",
        ),
        "near ties are wrong": (
            Edit("share(margin[close])", "float((margin[close] > 0).mean())"),
            "`near_equal` is",
        ),
        "no near pair is one half": (
            Edit("if close.any() else None", "if close.any() else 0.5"),
            "no pair is near",
        ),
        "no near pair is NaN": (
            Edit("share(margin[close]) if close.any() else None", "share(margin[close])"),
            "no pair is near",
        ),
        "by size": (
            Edit(
                "(share(margin[shorter > 0]) + share(margin[shorter < 0])) / 2",
                "share(margin[shorter != 0])",
            ),
            "by their sizes",
        ),
        "equal lengths in both": (
            (
                Edit("margin[shorter > 0]", "margin[shorter >= 0]"),
                Edit("margin[shorter < 0]", "margin[shorter <= 0]"),
            ),
            "in both groups",
        ),
        "equal lengths in one": (
            Edit("margin[shorter < 0]", "margin[shorter <= 0]"),
            "`balanced` is",
        ),
        "one group": (
            Edit("+ share(margin[shorter < 0])", "+ share(margin[shorter > 0])"),
            "group with the shorter",
        ),
        "an empty group is left out": (
            Edit(
                "    return share(margin)",
                "    else:\n        balanced = share(margin[shorter != 0])\n"
                "    return share(margin)",
            ),
            "groups is empty",
        ),
        "one empty group is seen": (
            Edit("(shorter > 0).any() and (shorter < 0).any()", "(shorter > 0).any()"),
            "groups is empty",
        ),
        "the other empty group is seen": (
            Edit("(shorter > 0).any() and (shorter < 0).any()", "(shorter < 0).any()"),
            "groups is empty",
        ),
        "too few pairs are none": (
            Edit("if close.any() else None", "if close.sum() > 100 else None"),
            "a number where there are pairs",
        ),
        "an accuracy of 0 is no accuracy": (
            Edit(
                "    return share(margin)",
                "    if balanced is not None:\n"
                "        both = share(margin[shorter > 0]), share(margin[shorter < 0])\n"
                "        balanced = float(np.mean([one for one in both if one]))\n"
                "    return share(margin)",
            ),
            "minus the length is worth one half",
        ),
    },
}
