"""Wrong answers to the lab of chapter 19, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

ORDERED = 'pair == [value, amount] or (sign == "+" and pair == [amount, value])'
PLACE = "every step is compared"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "19L.1": {
        "recovers": (Edit("fine = fine and right", "fine = right"), "all steps up to this one"),
        "any true equation": (
            Edit("right = ordered and int(result) == after", "right = eval(left) == int(result)"),
            "forgot a carry|true equation|right result|behind a wrong one|applies the operation",
        ),
        "result only": (
            Edit("right = ordered and int(result) == after", "right = int(result) == after"),
            "true equation|sides of a sum",
        ),
        "by remainder": (
            Edit("int(result) == after", "(int(result) - after) % modulus == 0"),
            PLACE,
        ),
        "no exchange": (Edit(ORDERED, "pair == [value, amount]"), "may be exchanged"),
        "any exchange": (
            Edit(ORDERED, "sorted(pair) == sorted([value, amount])"),
            "only the sides of a sum",
        ),
        "blanks": (Edit('text.replace(" ", "")', "text"), "blanks and empty pieces"),
        "text of numbers": (
            Edit("int(result) == after", "result == str(after)"),
            "blanks and empty pieces",
        ),
        "text of the answer": (
            Edit("int(said) == true % modulus", "said == str(true % modulus)"),
            "blanks and empty pieces",
        ),
        "empty pieces": (Edit(" for piece in pieces if piece)", " for piece in pieces)"), "empty"),
        "answer anywhere": (
            Edit(
                'pieces.pop().removeprefix("Answer:") if pieces[-1].startswith("Answer:") else ""',
                'text.rpartition("Answer:")[2].partition(";")[0].strip()',
            ),
            "labels|answer",
        ),
        "first digit": (
            Edit("said.isdecimal() and int(said)", "said[:1].isdecimal() and int(said[0])"),
            "nothing else stands behind|blanks",
        ),
        "remainder of what is said": (
            Edit("int(said) == true", "int(said) % modulus == true"),
            "nothing else stands behind",
        ),
        "a float will do": (
            Edit(
                "said.isdecimal() and int(said) == true",
                'said.replace(".", "").isdecimal() and float(said) == true',
            ),
            "nothing else stands behind",
        ),
        "a full stop passes": (
            Edit("    value, labels, fine", '    said = said.rstrip(".")\n    value, labels, fine'),
            "nothing else stands behind",
        ),
        "powers are digits": (Edit("said.isdecimal()", "said.isdigit()"), "without an error"),
        "always five": (Edit("true % modulus", "true % 5"), "modulus"),
        "missing steps": (
            Edit(" and len(labels) == len(operations)", ""),
            "a right step for each operation",
        ),
        "last label is enough": (
            Edit("right and fine and len(labels)", "right and len(labels)"),
            "`sound`",
        ),
        "sound without answer": (
            Edit("labels, right, right and fine", "labels, right, fine"),
            "`sound`",
        ),
        "extra steps pass": (
            Edit("        fine = fine and right\n", "        fine = fine and (right or i > 2)\n"),
            "step too many|beyond the last",
        ),
        "extra steps are dropped": (
            Edit("    true = start", "    labels = labels[: len(operations)]\n    true = start"),
            "shape|beyond the last|step too many",
        ),
        "stops at a wrong step": (
            Edit(
                "        labels.append(fine)\n",
                "        labels.append(fine)\n        if not fine:\n            break\n",
            ),
            "shape|labels",
        ),
        "sign not read": (
            Edit(
                "terms = left.split(sign)",
                'terms = left.replace("-", sign).replace("+", sign).split(sign)',
            ),
            "equation with its sign",
        ),
        "three numbers": (
            (
                Edit("    pieces = text", "    import re\n    pieces = text"),
                Edit(
                    "            if len(terms) == 2 and all(term.isdecimal() "
                    "for term in [*terms, result]):\n",
                    '            terms = re.findall("[0-9]+", left)\n'
                    '            result = "".join(re.findall("[0-9]+", result)[:1])\n'
                    "            if len(terms) == 2 and result:\n",
                ),
            ),
            "equation with its sign",
        ),
        "text behind": (
            Edit(
                "            terms = left.split(sign)\n",
                "            terms = left.split(sign)\n"
                '            result = "".join(c for c in result if c.isdecimal())\n',
            ),
            "equation with its sign",
        ),
        "text before": (
            Edit(
                "            terms = left.split(sign)\n",
                '            terms = left.lstrip("abcdefghijklmnopqrstuvwxyz").split(sign)\n',
            ),
            "equation with its sign",
        ),
        "a semicolon behind the answer": (
            Edit('.split(";")', '.rstrip(";").split(";")'),
            r"end with 'Answer:\d;'",
        ),
        "two values": (
            Edit("return labels, right, right", "return labels, right and right"),
            "3 values",
        ),
        "no text fails": (
            Edit("    pieces = text", "    assert text\n    pieces = text"),
            "without an error",
        ),
    },
    "19L.2": {
        "unweighted": (
            Edit("sum(p * value(prefix + piece)", "sum(value(prefix + piece) / len(tree[prefix])"),
            "equally likely|weighted by the chances",
        ),
        "possible ones alike": (
            Edit(
                "sum(p * value(prefix + piece) for piece, p in tree[prefix].items())",
                "sum((p > 0) * value(prefix + piece) for piece, p in tree[prefix].items()) / "
                "sum(p > 0 for p in tree[prefix].values())",
            ),
            "equally likely",
        ),
        "reachable": (
            Edit(
                "sum(p * value(prefix + piece) for piece, p in tree[prefix].items())",
                "max(value(prefix + piece) for piece in tree[prefix])",
            ),
            "can be reached",
        ),
        "likeliest": (
            Edit(
                "sum(p * value(prefix + piece) for piece, p in tree[prefix].items())",
                "[value(prefix + piece) for piece in tree[prefix]]"
                "[int(np.argmax(list(tree[prefix].values())))]",
            ),
            "likeliest piece",
        ),
        "last digit": (
            Edit("answer_of(prefix) == answer", "prefix.endswith(str(answer))"),
            "ends with the right digit",
        ),
        "wrong": (Edit("answer_of(prefix) == answer", "answer_of(prefix) != answer"), "wrong"),
        "unfinished only": (
            Edit(
                '    value("")\n    return found',
                '    value("")\n    return {p: v for p, v in found.items() if p in tree}',
            ),
            "are missing",
        ),
        "no root": (
            Edit(
                '    value("")\n    return found',
                '    value("")\n    return {p: v for p, v in found.items() if p}',
            ),
            "1 are missing",
        ),
        "never written is left out": (
            Edit(
                "sum(p * value(prefix + piece) for piece, p in tree[prefix].items())",
                "sum(p * value(prefix + piece) for piece, p in tree[prefix].items() if p)",
            ),
            "are missing",
        ),
        "joint chance": (
            Edit(
                "return found[prefix]\n",
                "return found[prefix] ** 2\n",
            ),
            "mean of the values behind",
        ),
        "root only": (
            Edit('    value("")\n    return found', '    return value("")'),
            "dict",
        ),
    },
    "19L.3": {
        "from the root": (
            Edit("text = prefix\n", 'text = "" if prefix in tree else prefix\n'),
            "begins at the empty prefix",
        ),
        "alike": (
            Edit(
                "np.searchsorted(np.cumsum(chances), dice.random())", "dice.integers(len(pieces))"
            ),
            "all pieces are drawn alike",
        ),
        "likeliest": (
            Edit("np.searchsorted(np.cumsum(chances), dice.random())", "int(np.argmax(chances))"),
            "likeliest|completions of its own|generator",
        ),
        "wrong ones": (
            Edit("answer_of(text) == answer", "answer_of(text) != answer"),
            "finished solution",
        ),
        "finished ones are drawn over": (
            Edit("k if prefix in tree else 1", "k if prefix in tree else 0"),
            "finite|without an error|finished",
        ),
        "finished ones count for right": (
            Edit("soft.append(hits / tries)", "soft.append(hits / tries if prefix in tree else 1)"),
            "finished solution",
        ),
        "counts": (Edit("soft.append(hits / tries)", "soft.append(hits)"), "share|near the value"),
        "hard is all": (Edit("soft > 0)", "soft == 1)"), "at least one"),
        "hard is a majority": (Edit("soft > 0)", "soft > 0.5)"), "at least one"),
        "hard is soft": (Edit("(soft > 0).astype(float)", "soft"), "at least one"),
        "remembered": (
            (
                Edit("    soft = []\n", "    soft, known = [], {}\n"),
                Edit(
                    "        hits, tries =",
                    "        if prefix in known:\n"
                    "            soft.append(known[prefix])\n"
                    "            continue\n"
                    "        hits, tries =",
                ),
                Edit(
                    "        soft.append(hits / tries)\n",
                    "        soft.append(hits / tries)\n        known[prefix] = soft[-1]\n",
                ),
            ),
            "completions of its own",
        ),
        "one completion": (
            Edit("k if prefix in tree else 1", "1"),
            "near the value|completions of its own",
        ),
        "one too many": (
            Edit("k if prefix in tree else 1", "k + 1 if prefix in tree else 1"),
            "share of the k",
        ),
        "exact": (
            Edit(
                "        soft.append(hits / tries)\n",
                "        soft.append(values_of(tree, answer)[prefix])\n",
            ),
            "share of the k",
        ),
        "own generator": (
            Edit("    soft = []\n", "    soft, dice = [], np.random.default_rng(0)\n"),
            "generator that is passed",
        ),
        "fresh generator": (
            Edit("    soft = []\n", "    soft, dice = [], np.random.default_rng()\n"),
            "generator that is passed",
        ),
        "sorted": (Edit("for prefix in prefixes", "for prefix in sorted(prefixes)"), "order|near"),
        "soft only": (Edit("return soft, (soft > 0).astype(float)", "return soft"), "2 values"),
    },
    "19L.4": {
        "no prior": (
            Edit(
                "(after + prior * labels.mean()) / (rows + prior)",
                "after / np.maximum(rows, 1)",
            ),
            "no prior",
        ),
        "one half": (Edit("prior * labels.mean()", "prior / 2"), "one half"),
        "towards 0": (Edit("(after + prior * labels.mean())", "after"), "towards 0"),
        "mean over codes": (
            Edit("prior * labels.mean()", "prior * (after[rows > 0] / rows[rows > 0]).mean()"),
            "mean over codes",
        ),
        "labels before": (
            Edit("(after + prior * labels.mean())", "(ahead + prior * before.mean())"),
            "labels before were used",
        ),
        "mean of ratios": (
            Edit(
                "(after + pull) / (ahead + pull)",
                "(np.bincount(codes, np.where(before, labels / (before + (before == 0)), 1), "
                "n_codes) + prior) / (rows + prior)",
            ),
            "mean of ratios",
        ),
        "turned": (
            Edit("(after + pull) / (ahead + pull)", "(ahead + pull) / (after + pull)"),
            "turned",
        ),
        "cut off": (
            Edit(
                "(after + pull) / (ahead + pull)", "np.minimum((after + pull) / (ahead + pull), 1)"
            ),
            "cut off",
        ),
        "no prior above": (Edit("(after + pull) /", "after /"), "missing above"),
        "another mean above": (
            Edit("(after + pull) /", "(after + prior * labels.mean()) /"),
            "unseen codes",
        ),
        "prior counts rows": (Edit("prior * before.mean()", "prior"), "without their mean"),
        "difference": (
            Edit("(after + pull) / (ahead + pull)", "(after - ahead) / np.maximum(rows, 1)"),
            "difference",
        ),
        "no prior in the gains": (
            Edit("(after + pull) / (ahead + pull)", "after / ahead"),
            "finite",
        ),
        "values twice": (
            Edit("return values, (after + pull) / (ahead + pull)", "return values, values"),
            "a gain is",
        ),
        "exchanged": (
            Edit(
                "return values, (after + pull) / (ahead + pull)",
                "return (after + pull) / (ahead + pull), values",
            ),
            "mean label of a code",
        ),
        "seen codes only": (
            (Edit("rows, after, ahead =", "n_codes = codes.max() + 1\n    rows, after, ahead ="),),
            "shape",
        ),
        "values only": (
            Edit("return values, (after + pull) / (ahead + pull)", "return values"),
            "2 values",
        ),
    },
    "19L.5": {
        "no answer may win": (
            Edit(" if answer >= 0]", "]"),
            "wins|never chosen|number is 0",
        ),
        "mean for product": (Edit("np.prod)", "np.mean)"), "largest product|sum of products"),
        "geometric mean": (
            Edit("np.prod)", "lambda s: np.prod(s) ** (1 / len(s)))"),
            "largest product",
        ),
        "zeros are left out": (
            Edit("np.prod)", "lambda s: np.prod(s[s > 0]))"),
            "largest product|sum of products",
        ),
        "maximum": (Edit("np.min,", "np.max,"), "largest minimum"),
        "first score": (Edit("scores[i][-1]", "scores[i][0]"), "largest last"),
        "last of equals": (
            Edit("return max(some, key=worth.get)", "return max(some[::-1], key=worth.get)"),
            "equals the first",
        ),
        "last answer of equals": (
            Edit("max(totals, key=totals.get)", "max(list(totals)[::-1], key=totals.get)"),
            "given first wins|most candidates",
        ),
        "smallest answer of equals": (
            Edit("max(totals, key=totals.get)", "max(sorted(totals), key=totals.get)"),
            "given first wins|most candidates",
        ),
        "vote is a majority": (
            Edit('"majority": lambda', '"vote": lambda'),
            "most candidates|sum of products",
        ),
        "vote by the mean": (
            Edit(
                "    totals = {}\n",
                '    if how == "vote":\n'
                "        worth = {i: w / sum(answers[i] == answers[j] for j in some)"
                " for i, w in worth.items()}\n"
                "    totals = {}\n",
            ),
            "sum of products",
        ),
        "vote by the maximum": (
            Edit(
                "totals.get(int(answers[i]), 0.0) + worth[i]",
                "max(totals.get(int(answers[i]), 0.0), worth[i])",
            ),
            "most candidates|sum of products",
        ),
        "heaviest of the winners": (
            Edit(
                "next(i for i in some if answers[i] == winner)",
                "max((i for i in some if answers[i] == winner), key=lambda i: scores[i][-1])",
            ),
            "first candidate that gives|most candidates|sum of products",
        ),
        "last of the winners": (
            Edit("next(i for i in some if", "next(i for i in some[::-1] if"),
            "wins|first candidate that gives",
        ),
        "the answer": (
            Edit("return next(i for i in some if answers[i] == winner)", "return winner"),
            "most candidates|sum of products|wins",
        ),
        "place among those with an answer": (
            Edit("return max(some, key=worth.get)", "return some.index(max(some, key=worth.get))"),
            "wins|never chosen",
        ),
        "no one": (Edit("        return 0\n", "        return -1\n"), "number is 0"),
        "nobody fails": (Edit("    if not some:\n        return 0\n", ""), "without an error"),
        "nothing": (Edit("        return 0\n", "        return None\n"), "None|a number"),
    },
    "19L.6": {
        "median": (Edit("ys.mean(axis=0)", "np.median(ys, axis=0)"), "mean over worlds"),
        "first world": (Edit("ys.mean(axis=0)", "ys[0]"), "mean over worlds"),
        "steps": (Edit("ax.plot(ns, ys.mean", "ax.plot(np.arange(len(ns)), ys.mean"), "mean over"),
        "two rules": (Edit("curves.items())", "list(curves.items())[:2])"), "'vote'"),
        "no spread": (Edit("for q in (0.25, 0.75):", "for q in ():"), "quantile"),
        "one quantile": (Edit("for q in (0.25, 0.75):", "for q in (0.25,):"), "75% quantile"),
        "deciles": (Edit("(0.25, 0.75)", "(0.1, 0.9)"), "25% quantile"),
        "deviation": (
            Edit("np.quantile(ys, q, axis=0)", "ys.mean(axis=0) + (2 * q - 1) * ys.std(axis=0)"),
            "25% quantile",
        ),
        "linear axis": (Edit('xscale="log", ', ""), "logarithmic"),
        "no legend": (Edit("    ax.legend(fontsize=7)\n", ""), "legend"),
        "one name": (Edit("label=rule", 'label="mean"'), "legend"),
        "names exchanged": (
            Edit("label=rule", "label=list(curves)[number - 1]"),
            "legend",
        ),
        "no samples": (Edit("samples to choose from", "n"), "what is counted"),
        "no share": (Edit("share of problems", "score"), "what is measured"),
        "no y label": (Edit(', ylabel="share of problems"', ""), "y axis"),
    },
    "19L.7": {
        "majority": (Edit('x["answers"], "vote")', 'x["answers"], "majority")'), "majority's"),
        "majority of those with steps": (
            Edit('[gains[c] for c in x["codes"]]', '[[len(c) > 1] for c in x["codes"]]'),
            "majority's",
        ),
        "values": (
            Edit("[gains[c] for c in x", "[values[c] for c in x"),
            "majority's",
        ),
        "last gain": (Edit('x["answers"], "vote")', 'x["answers"], "last")'), "majority's"),
        "first candidate": (Edit("[choose([gains", "[0 * choose([gains"), "majority's"),
        "answers for numbers": (
            Edit(
                '[choose([gains[c] for c in x["codes"]], x["answers"], "vote") for x',
                '[x["answers"][choose([gains[c] for c in x["codes"]], x["answers"], "vote")] for x',
            ),
            "number of a candidate|majority's",
        ),
        "wrong answers reward": (
            Edit('problem["answer"], seen', '(problem["answer"] + 1) % 5, seen'),
            "majority's",
        ),
        "own generator": (Edit("np.random.default_rng(seed)", "np.random.default_rng()"), "same"),
        "counted from one": (
            Edit('"vote") for x', '"vote") + 1 for x'),
            "number of a candidate|majority",
        ),
        "only some": (Edit("for x in test]", "for x in test[:-1]]"), "shape"),
        "a list of texts": (Edit("dtype=int", "dtype=str"), "text|numbers"),
        "borrowed": (
            Edit(
                "    rows = []\n",
                "    import irlbook.posttraining.process_rewards\n    rows = []\n",
            ),
            "irlbook.posttraining",
        ),
        "draws among equals from the last to the first": (
            Edit(
                "    return np.array(\n"
                '        [choose([gains[c] for c in x["codes"]], x["answers"], "vote") '
                "for x in test], dtype=int\n    )",
                "    picked = []\n"
                "    for x in reversed(test):\n"
                '        one = choose([gains[c] for c in x["codes"]], x["answers"], "vote")\n'
                '        equal = np.flatnonzero(x["answers"] == x["answers"][one])\n'
                "        picked.append(dice.choice(equal))\n"
                "    return np.array(picked[::-1])",
            ),
            "does not depend on the other",
        ),
    },
}
