"""Wrong answers to the exercises of chapter 14, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "14.1": {
        "the first tokens": (
            Edit(
                "    ratio = ",
                "    mask = np.arange(mask.shape[2]) < mask.sum(axis=2)[:, :, None]\n    ratio = ",
            ),
            "from the left",
        ),
        "one mask for both": (
            Edit("    ratio = ", "    mask = mask[:, :1]\n    ratio = "),
            "with h as in",
        ),
        "one mask for all pairs": (
            Edit("    ratio = ", "    mask = mask[:1]\n    ratio = "),
            "with h as in",
        ),
        "only the policy's padding": (
            Edit("np.where(mask, reference_logp, 0.0)", "mask * reference_logp"),
            "stands in the padding",
        ),
        "infinite means padding": (
            Edit(
                "    ratio = ",
                "    mask = np.isfinite(policy_logp) & np.isfinite(reference_logp)\n    ratio = ",
            ),
            "padding is counted",
        ),
        "h cut at 700": (
            Edit("    return", "    h = h.clip(-700, 700)\n    return"),
            "thousands of nats",
        ),
        "last token left out": (
            Edit("ratio.sum(axis=2)", "ratio[:, :, :-1].sum(axis=2)"),
            "with h as in",
        ),
        "first token left out": (
            Edit("ratio.sum(axis=2)", "ratio[:, :, 1:].sum(axis=2)"),
            "with h as in",
        ),
        "chosen alone": (
            Edit("implicit[:, 0] - implicit[:, 1]", "implicit[:, 0]"),
            "with h as in",
        ),
        "hinge": (Edit("np.logaddexp(0.0, -h)", "np.maximum(0.0, 1 - h)"), "with h as in"),
        "no minus": (Edit("np.logaddexp(0.0, -h)", "-np.logaddexp(0.0, -h)"), "minus sign"),
        "exchanged": (
            Edit("implicit[:, 0] - implicit[:, 1]", "implicit[:, 1] - implicit[:, 0]"),
            "exchanged",
        ),
        "mean over tokens": (
            Edit("ratio.sum(axis=2)", "ratio.sum(axis=2) / mask.sum(axis=2)"),
            "averaged over the tokens",
        ),
        "padding counted": (
            (
                Edit("np.where(mask, policy_logp, 0.0)", "policy_logp"),
                Edit("np.where(mask, reference_logp, 0.0)", "reference_logp"),
            ),
            "padding is counted",
        ),
        "no reference": (
            Edit("- np.where(mask, reference_logp, 0.0)", "- 0.0"),
            "reference is missing",
        ),
        "beta divides": (
            Edit("beta * ratio.sum(axis=2)", "ratio.sum(axis=2) / beta"),
            "beta divides",
        ),
        "beta outside": (
            (
                Edit("beta * ratio", "ratio"),
                Edit("np.logaddexp(0.0, -h)", "beta * np.logaddexp(0.0, -h)"),
            ),
            "in front of the loss",
        ),
        "one number": (
            Edit("return np.logaddexp(0.0, -h)", "return 0 * h + np.logaddexp(0.0, -h).mean()"),
            "averaged over the pairs",
        ),
        "overflow": (
            Edit(
                "return np.logaddexp(0.0, -h)",
                "with np.errstate(all='ignore'):\n        return -np.log(1 / (1 + np.exp(-h)))",
            ),
            "hopeless|finite",
        ),
        "mask by multiplication": (
            Edit(
                "np.where(mask, policy_logp, 0.0) - np.where(mask, reference_logp, 0.0)",
                "mask * (policy_logp - reference_logp)",
            ),
            "padding",
        ),
        "no difference costs nothing": (
            Edit(
                "return np.logaddexp(0.0, -h)",
                "return np.where(h == 0, 0.0, np.logaddexp(0.0, -h))",
            ),
            "every pair costs log 2",
        ),
    },
    "14.2": {
        "inverse price at most one": (
            Edit("    scores = ", "    b = min(b, 1.0)\n    scores = "),
            "put the optimum in",
        ),
        "inverse price at least one": (
            Edit("    scores = ", "    b = max(b, 1.0)\n    scores = "),
            "sums to one|implicit reward",
        ),
        "probabilities of the optimum": (
            Edit("(log_policy - log_reference) / b", "(log_optimum - log_reference) / b"),
            "speak for itself",
        ),
        "loss of the reward": (
            Edit(
                "    loss = -(wins * log_probabilities)",
                "    gaps = reward[:, None] - reward[None, :]\n"
                "    loss = (wins * np.logaddexp(0.0, -gaps))",
            ),
            "mean log-likelihood",
        ),
        "each compared pair once": (
            Edit("loss = -(wins", "wins = np.sign(wins)\n    loss = -(wins"),
            "mean log-likelihood",
        ),
        "half of the table": (
            Edit("loss = -(wins", "wins = np.triu(wins)\n    loss = -(wins"),
            "mean log-likelihood",
        ),
        "loss of the probabilities": (
            Edit(
                "loss = -(wins * log_probabilities)",
                "loss = -(wins * np.exp(log_probabilities))",
            ),
            "mean log-likelihood",
        ),
        "losers counted": (Edit("loss = -(wins * ", "loss = -(wins.T * "), "exchanged"),
        "log-probabilities returned": (
            Edit("np.exp(log_probabilities), float", "log_probabilities, float"),
            "logarithms of probabilities",
        ),
        "optimum as probabilities": (
            Edit("return log_optimum,", "return np.exp(log_optimum),"),
            "not their logarithms",
        ),
        "certain choices": (
            Edit("np.exp(log_probabilities), float", "1.0 * (h > 0) + 0.5 * (h == 0), float"),
            "implicit reward",
        ),
        "survey line 1": (
            Edit("scores = log_reference + b * reward", "scores = b * reward"),
            "reference is missing, as in the survey",
        ),
        "survey line 3": (
            Edit("(log_policy - log_reference) / b", "(log_policy - log_reference) * b"),
            "third line",
        ),
        "b divides": (Edit("b * reward", "reward / b"), "b divides"),
        "no minus": (Edit("loss = -(", "loss = ("), "minus sign is missing"),
        "not normalised": (
            Edit("scores - np.logaddexp.reduce(scores)", "scores"),
            "not normalised",
        ),
        "no reference in the ratio": (
            Edit("(log_policy - log_reference) / b", "log_policy / b"),
            "reference is missing",
        ),
        "exchanged": (
            Edit("implicit[:, None] - implicit[None, :]", "implicit[None, :] - implicit[:, None]"),
            "exchanged",
        ),
        "from the reward": (
            Edit("implicit = (log_policy - log_reference) / b", "implicit = reward"),
            "speak for itself",
        ),
        "sum": (Edit(" / wins.sum()", ""), "a sum, not a mean"),
        "mean of cells": (
            Edit(
                "(wins * log_probabilities).sum() / wins.sum()",
                "(wins * log_probabilities).mean()",
            ),
            "cells",
        ),
    },
    "14.3": {
        "flips assumed for DPO": (
            Edit('if loss == "conservative":', 'if loss in ("conservative", "dpo"):'),
            "epsilon changes nothing",
        ),
        "flips assumed for IPO": (
            Edit("return p - 0.5", "return (1 - 2 * epsilon) * (p - 0.5)"),
            "epsilon changes nothing",
        ),
        "a flip at least": (
            Edit('    if loss == "ipo"', '    epsilon = epsilon or 0.1\n    if loss == "ipo"'),
            "without flips",
        ),
        "IPO for ever": (
            Edit(
                '    if loss == "ipo"',
                "    if p in (0, 1):\n        return np.inf if p else -np.inf\n"
                '    if loss == "ipo"',
            ),
            "IPO is content",
        ),
        "conservative for ever": (
            Edit(
                '    if loss == "conservative"',
                "    if p in (0, 1):\n        return np.inf if p else -np.inf\n"
                '    if loss == "conservative"',
            ),
            "conservative DPO is content",
        ),
        "conservative never infinite": (
            Edit(
                "if p >= 1:",
                'if loss == "conservative":\n        p = min(max(p, 1e-12), 1 - 1e-12)\n'
                "    if p >= 1:",
            ),
            "falls without end",
        ),
        "robust not below zero": (
            Edit(
                "p = (p - epsilon) / (1 - 2 * epsilon)",
                "p = abs((p - epsilon) / (1 - 2 * epsilon))",
            ),
            "falls without end",
        ),
        "robust divided once": (
            Edit("(1 - 2 * epsilon)", "(1 - epsilon)"),
            "share before the flips",
        ),
        "infinite only at exactly one": (
            (
                Edit("if p >= 1:", "if p == 1:"),
                Edit("if p <= 0:", "if p == 0:"),
                Edit(
                    "return float(np.log(p) - np.log1p(-p))",
                    "return float(np.log(abs(p) / abs(1 - p)))",
                ),
            ),
            "falls without end",
        ),
        "natural units for IPO": (
            Edit("return p - 0.5", "return (p - 0.5) / 2"),
            "half a unit",
        ),
        "share for log-odds": (
            Edit("float(np.log(p) - np.log1p(-p))", "float(p)"),
            "share itself",
        ),
        "sign": (
            Edit("np.log(p) - np.log1p(-p)", "np.log1p(-p) - np.log(p)"),
            "sign is turned",
        ),
        "odds": (Edit("float(np.log(p) - np.log1p(-p))", "float(p / (1 - p))"), "the odds"),
        "ipo for a sure pair": (
            Edit("return p - 0.5", "return 0.5 if p > 0.5 else -0.5"),
            "always wins|half a unit",
        ),
        "ipo doubled": (Edit("return p - 0.5", "return 2 * p - 1"), "twice"),
        "no epsilon": (
            Edit("p = (1 - epsilon) * p + epsilon * (1 - p)", "pass"),
            "epsilon is missing",
        ),
        "robust as conservative": (
            Edit(
                "p = (p - epsilon) / (1 - 2 * epsilon)",
                "p = (1 - epsilon) * p + epsilon * (1 - p)",
            ),
            "conservative DPO",
        ),
        "no infinity": (
            (
                Edit("if p >= 1:\n        return np.inf", "p = min(p, 1 - 1e-9)"),
                Edit("if p <= 0:\n        return -np.inf", "p = max(p, 1e-9)"),
            ),
            "falls without end",
        ),
        "infinity without sign": (Edit("return -np.inf", "return np.inf"), "right sign"),
    },
    "14.4": {
        "chains of four": (
            Edit(
                "    for k in range(n_responses):\n"
                "        known |= known[:, k, None] & known[None, k, :]",
                "    known = np.linalg.matrix_power(known.astype(float), 4) > 0",
            ),
            "however long",
        ),
        "three squarings": (
            Edit(
                "    for k in range(n_responses):\n"
                "        known |= known[:, k, None] & known[None, k, :]",
                "    for _ in range(3):\n        known = known.astype(int) @ known.astype(int) > 0",
            ),
            "however long",
        ),
        "one pass over the rows": (
            Edit(
                "    for k in range(n_responses):\n"
                "        known |= known[:, k, None] & known[None, k, :]",
                "    for i, j in pairs:\n        known[i] |= known[j]\n"
                "        known[:, i] |= known[:, j]\n"
                "    known |= known.T",
            ),
            "however long|no chain|that of j to i",
        ),
        "labels not merged": (
            "def fixed_ratios(n_responses, pairs):\n"
            "    label = np.arange(n_responses)\n"
            "    for i, j in pairs:\n"
            "        label[j] = label[i]\n"
            "    return label[:, None] == label[None, :]",
            "however long|were compared",
        ),
        "one group": (
            Edit(
                "return known",
                "many = known.sum(axis=1) > 1\n    return known | (many[:, None] & many)",
            ),
            "no chain",
        ),
        "only the longest chain": (
            Edit(
                "return known",
                "size = known.sum(axis=1)\n"
                "    return known & (size == size.max())[:, None] | np.eye(n_responses, "
                "dtype=bool)",
            ),
            "were compared",
        ),
        "winners are fixed, losers not": (
            Edit("return known", "return np.triu(known)"),
            "that of j to i",
        ),
        "fails without pairs": (
            Edit(
                "    for i, j in pairs:",
                "    pairs = np.asarray(pairs)\n    assert pairs.max() >= 0\n"
                "    for i, j in pairs:",
            ),
            "runs without an error",
        ),
        "without pairs everything": (
            Edit("return known", "return known if len(pairs) else np.ones_like(known)"),
            "without pairs",
        ),
        "direct pairs only": (
            Edit("known |= known[:, k, None] & known[None, k, :]", "known |= known.T"),
            "however long",
        ),
        "two steps only": (
            Edit(
                "    for k in range(n_responses):\n"
                "        known |= known[:, k, None] & known[None, k, :]",
                "    known = known | ((known.astype(int) @ known.astype(int)) > 0)",
            ),
            "however long",
        ),
        "one direction": (
            Edit("known[i, j] = known[j, i] = True", "known[i, j] = True"),
            "that of j to i",
        ),
        "no diagonal": (
            Edit("return known", "return known & ~np.eye(n_responses, dtype=bool)"),
            "to itself",
        ),
        "everything seen is fixed": (
            Edit(
                "return known",
                "seen = np.zeros(n_responses, dtype=bool)\n"
                "    seen[np.asarray(pairs, dtype=int).ravel()] = True\n"
                "    return known | (seen[:, None] & seen[None, :])",
            ),
            "no chain",
        ),
        "everything": (Edit("return known", "return np.ones_like(known)"), "no chain"),
        "never compared": (
            Edit("return known", "return known & (known.sum(axis=1) > 1)[:, None]"),
            "to itself",
        ),
    },
    "14.5": {
        "until the first pad": (
            Edit(
                "(place < ends[:, None])",
                "(np.cumsum((ids[:, 1:] == pad_id) & (place >= starts[:, None]), axis=1) "
                "- ((ids[:, 1:] == pad_id) & (place >= starts[:, None])) == 0)",
            ),
            "sums every token",
        ),
        "the end token left out": (
            Edit("place < ends[:, None]", "place < ends[:, None] - 1"),
            "end token is not counted|sums every token",
        ),
        "all begin with the first": (
            Edit("starts[:, None]", "starts[:1, None]"),
            "sums every token",
        ),
        "all end with the first": (
            Edit("ends[:, None]", "ends[:1, None]"),
            "sums every token|pads are",
        ),
        "one maximum for the batch": (
            Edit("logits.max(axis=2, keepdims=True)", "logits.max()"),
            "finite|constant",
        ),
        "end of the row left out": (
            Edit("place < ends[:, None]", "place < np.minimum(ends, ids.shape[1] - 1)[:, None]"),
            "sums every token",
        ),
        "last prompt token counted": (
            Edit("place >= starts[:, None]", "place >= starts[:, None] - 1"),
            "last token of the prompt",
        ),
        "entropy": (
            Edit("np.where(mask, steps, 0.0)", "np.where(mask, -steps * np.exp(steps), 0.0)"),
            "sums every token",
        ),
        "the bug": (
            Edit("(place < ends[:, None])", "(ids[:, 1:] != pad_id)"),
            "end token is not counted",
        ),
        "pads counted": (
            Edit(" & (place < ends[:, None])", ""),
            "pads are counted",
        ),
        "one more token": (
            Edit("place < ends[:, None]", "place <= ends[:, None]"),
            "sums every token|padding",
        ),
        "first token lost": (
            Edit("place >= starts[:, None]", "place > starts[:, None]"),
            "first token of the response",
        ),
        "prompt counted": (
            Edit("(place >= starts[:, None]) & ", ""),
            "whole prompt",
        ),
        "no shift": (
            (
                Edit("log_p[:, :-1], ids[:, 1:, None]", "log_p, ids[:, :, None]"),
                Edit("np.arange(1, ids.shape[1])", "np.arange(ids.shape[1])"),
            ),
            "same place",
        ),
        "raw logits": (
            Edit(
                "logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))",
                "logits",
            ),
            "these are logits",
        ),
        "mean": (
            Edit(
                "np.where(mask, steps, 0.0).sum(axis=1)",
                "np.where(mask, steps, 0.0).sum(axis=1) / mask.sum(axis=1)",
            ),
            "mean over the tokens",
        ),
    },
}
