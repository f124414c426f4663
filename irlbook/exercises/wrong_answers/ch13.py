"""Wrong answers to the exercises of chapter 13, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "13.1": {
        "divided by k": (Edit("/ (k - 1)", "/ k"), "mean of the other responses"),
        "best of the others": (
            Edit(
                "return rewards - others",
                "drop = np.where(np.eye(k, dtype=bool), -np.inf, rewards[:, None, :])\n"
                "    return rewards - drop.max(axis=2)",
            ),
            "mean of the other responses",
        ),
        "only those before it": (
            Edit(
                "return rewards - others",
                "before = np.cumsum(rewards, axis=1) - rewards\n"
                "    return rewards - before / np.maximum(np.arange(k), 1)",
            ),
            "mean of the other responses",
        ),
        "the next response": (
            Edit("return rewards - others", "return rewards - np.roll(rewards, 1, axis=1)"),
            "mean of the other responses",
        ),
        "ranks": (
            Edit(
                "return rewards - others",
                "return rewards.argsort(axis=1).argsort(axis=1) - (k - 1) / 2",
            ),
            "mean of the other responses",
        ),
        "half": (
            Edit("return rewards - others", "return (rewards - others) / 2"),
            "mean of the other responses",
        ),
        "first prompt's baseline": (
            Edit("rewards - others", "rewards - others[:1]"),
            "mean of the other responses",
        ),
        "others of four": (
            Edit("k = rewards.shape[1]", "k = max(rewards.shape[1], 4)"),
            "mean of the other responses|compared with the other one",
        ),
        "own sample included": (
            Edit(
                "(rewards.sum(axis=1, keepdims=True) - rewards) / (k - 1)",
                "rewards.mean(axis=1, keepdims=True)",
            ),
            "holds the response itself",
        ),
        "factor turned": (
            Edit(
                "return rewards - others",
                "return (k - 1) / k * (rewards - rewards.mean(axis=1, keepdims=True))",
            ),
            "factor is turned",
        ),
        "leak over prompts": (
            Edit("return rewards - others", "return rewards - rewards.mean()"),
            "mixes the prompts",
        ),
        "all others of the batch": (
            Edit(
                "return rewards - others",
                "return rewards - (rewards.sum() - rewards) / (rewards.size - 1)",
            ),
            "of every prompt",
        ),
        "wrong axis": (
            Edit("return rewards - others", "return rewards - rewards.mean(axis=0)"),
            "over prompts",
        ),
        "sign": (Edit("return rewards - others", "return others - rewards"), "sign is turned"),
        "standardised": (
            Edit(
                "return rewards - others",
                "c = rewards - rewards.mean(axis=1, keepdims=True)\n"
                "    return c / rewards.std(axis=1, keepdims=True, ddof=1)",
            ),
            "standard deviation",
        ),
        "sum": (Edit(" / (k - 1)", ""), "a sum, not a mean"),
        "own sample included in a pair": (
            Edit(
                "/ (k - 1)\n",
                "/ (k - 1)\n    if k == 2:\n        others = (others + rewards) / 2\n",
            ),
            "is unbiased",
        ),
        "no baseline for a pair": (
            Edit("/ (k - 1)\n", "/ (k - 1)\n    if k == 2:\n        others = 0.0\n"),
            "compared with the other one",
        ),
    },
    "13.2": {
        "close is constant": (
            Edit(
                "constant = rewards.max(axis=1, keepdims=True) == rewards.min(axis=1, "
                "keepdims=True)",
                "constant = np.isclose(rewards.max(axis=1, keepdims=True), "
                "rewards.min(axis=1, keepdims=True))",
            ),
            "unit of the reward",
        ),
        "one constant group silences the batch": (
            Edit("    centred =", "    constant = constant | constant.any()\n    centred ="),
            "leaves the other groups alone",
        ),
        "not a number made zero": (
            Edit(
                "    if not scale:",
                "    if scale:\n        with np.errstate(all='ignore'):\n"
                "            c = rewards - rewards.mean(axis=1, keepdims=True)\n"
                "            return np.nan_to_num(c / c.std(axis=1, keepdims=True, "
                "ddof=1))\n    if not scale:",
            ),
            "exactly 0",
        ),
        "rounding error without scale": (
            Edit(
                "    if not scale:\n        return centred",
                "    if not scale:\n        return rewards - rewards.mean(axis=1, keepdims=True)",
            ),
            "exactly 0",
        ),
        "constant groups keep their reward": (
            Edit("np.where(constant, 0.0, rewards", "np.where(constant, rewards, rewards"),
            "exactly 0",
        ),
        "never scaled": (Edit("    if not scale:", "    if True:"), "not scaled at all"),
        "scaled the wrong way": (
            Edit("if not scale:", "if scale:"),
            "not scaled at all|scaled all the same",
        ),
        "over the prompts": (
            Edit(
                "    constant",
                "    rewards = rewards - rewards.mean(axis=0) + rewards.mean()\n    constant",
            ),
            "standard deviation 1",
        ),
        "mean absolute deviation": (
            Edit(
                "rewards.std(axis=1, keepdims=True, ddof=1)",
                "np.abs(centred).mean(axis=1, keepdims=True)",
            ),
            "standard deviation 1",
        ),
        "groups of two are constant": (
            Edit(
                "    centred =",
                "    constant = constant | (rewards.shape[1] == 2)\n    centred =",
            ),
            "group of two",
        ),
        "divisor k": (Edit("ddof=1", "ddof=0"), "divides by k"),
        "variance": (Edit("rewards.std(", "rewards.var("), "variance"),
        "batch statistics": (
            Edit("rewards.std(axis=1, keepdims=True, ddof=1)", "rewards.std(ddof=1)"),
            "whole batch",
        ),
        "no mean": (
            Edit("rewards - rewards.mean(axis=1, keepdims=True)", "rewards * 1.0"),
            "not subtracted",
        ),
        "NaN": (
            Edit(
                "constant = rewards.max(axis=1, keepdims=True) == "
                "rewards.min(axis=1, keepdims=True)",
                "constant = np.zeros((len(rewards), 1), dtype=bool)\n    np.seterr(all='ignore')",
            ),
            "not a number|finite|NaN|exactly 0",
        ),
        "zero standard deviation": (
            Edit(
                "constant = rewards.max(axis=1, keepdims=True) == "
                "rewards.min(axis=1, keepdims=True)",
                "constant = rewards.std(axis=1, keepdims=True, ddof=1) == 0",
            ),
            "exactly 0",
        ),
        "added number": (
            Edit("np.where(constant, 1.0, spread)", "(spread + 1e-4)"),
            "small number is added",
        ),
        "tiny added number": (
            Edit("np.where(constant, 1.0, spread)", "(spread + 1e-10)"),
            "unit of the reward",
        ),
        "threshold": (
            Edit(
                "constant = rewards.max(axis=1, keepdims=True) == "
                "rewards.min(axis=1, keepdims=True)",
                "constant = rewards.std(axis=1, keepdims=True, ddof=1) < 1e-6",
            ),
            "unit of the reward",
        ),
        "RLOO": (
            Edit(
                "return centred\n",
                "return centred * rewards.shape[1] / (rewards.shape[1] - 1)\n",
            ),
            "that is RLOO",
        ),
        "always scaled": (Edit("if not scale:", "if False:"), "scaled all the same"),
    },
    "13.3": {
        "border of the slope at one half": (
            Edit(
                "ratio > 1 + clip_high, ratio < 1 - clip_low",
                "ratio > 1.5, ratio < 1 - clip_low",
            ),
            "slope is the derivative",
        ),
        "all responses of one length": (
            Edit(
                "np.repeat(advantages, lengths)",
                "np.repeat(advantages, -(-len(logps) // len(lengths)))[: len(logps)]",
            ),
            "own response",
        ),
        "slope of the mean": (
            Edit(
                "np.where(stopped, 0.0, -ratio * a)",
                "np.where(stopped, 0.0, -ratio * a / len(a))",
            ),
            "slope is the derivative",
        ),
        "losses averaged": (
            Edit("return losses,", "return losses.mean() + 0 * losses,"),
            "costs -min",
        ),
        "interval in logs": (
            Edit(
                "np.clip(ratio, 1 - clip_low, 1 + clip_high)",
                "np.exp(np.clip(np.log(ratio), -clip_low, clip_high))",
            ),
            "costs -min",
        ),
        "stopped above only": (
            Edit("ratio < 1 - clip_low)", "False)"),
            "slope is the derivative",
        ),
        "stopped below only": (
            Edit("np.where(a > 0, ratio > 1 + clip_high,", "np.where(a > 0, False,"),
            "slope is the derivative",
        ),
        "borders exchanged in the slope": (
            Edit(
                "ratio > 1 + clip_high, ratio < 1 - clip_low",
                "ratio > 1 + clip_low, ratio < 1 - clip_high",
            ),
            "slope is the derivative",
        ),
        "slope in the ratio": (
            Edit("np.where(stopped, 0.0, -ratio * a)", "np.where(stopped, 0.0, -a)"),
            "ratio is missing",
        ),
        "slope up": (
            Edit("np.where(stopped, 0.0, -ratio * a)", "np.where(stopped, 0.0, ratio * a)"),
            "sign is turned",
        ),
        "sign of the advantage only": (
            Edit(
                "a = np.repeat(advantages, lengths)",
                "a = np.sign(np.repeat(advantages, lengths))",
            ),
            "costs -min",
        ),
        "advantage per token": (
            Edit(
                "a = np.repeat(advantages, lengths)",
                "a = np.repeat(advantages / lengths, lengths)",
            ),
            "costs -min",
        ),
        "maximum": (Edit("np.minimum(", "np.maximum("), "larger of the two"),
        "clipped only": (
            Edit(
                "np.minimum(ratio * a, np.clip(ratio, 1 - clip_low, 1 + clip_high) * a)",
                "(np.clip(ratio, 1 - clip_low, 1 + clip_high) * a)",
            ),
            "without the minimum",
        ),
        "no clip": (
            Edit(
                "np.minimum(ratio * a, np.clip(ratio, 1 - clip_low, 1 + clip_high) * a)",
                "(ratio * a)",
            ),
            "nothing is clipped",
        ),
        "gain": (Edit("losses = -np", "losses = np"), "gain, not a loss"),
        "symmetric": (
            Edit("1 - clip_low, 1 + clip_high", "1 - clip_low, 1 + clip_low"),
            "by clip_low",
        ),
        "upside down": (
            Edit("np.exp(logps - old_logps)", "np.exp(old_logps - logps)"),
            "upside down",
        ),
        "tiled": (
            Edit("np.repeat(advantages, lengths)", "np.resize(advantages, len(logps))"),
            "own response",
        ),
        "log ratio": (
            Edit("np.exp(logps - old_logps)", "(logps - old_logps)"),
            "difference of logs",
        ),
        "stopped on both sides": (
            Edit(
                "stopped = np.where(a > 0, ratio > 1 + clip_high, ratio < 1 - clip_low)",
                "stopped = (ratio > 1 + clip_high) | (ratio < 1 - clip_low)",
            ),
            "on either side",
        ),
        "never stopped": (
            Edit("np.where(stopped, 0.0, -ratio * a)", "-ratio * a"),
            "never stopped",
        ),
        "no ratio in the slope": (
            Edit("np.where(stopped, 0.0, -ratio * a)", "np.where(stopped, 0.0, -a)"),
            "ratio is missing",
        ),
        "wrong side": (
            Edit(
                "np.where(a > 0, ratio > 1 + clip_high, ratio < 1 - clip_low)",
                "np.where(a > 0, ratio < 1 - clip_low, ratio > 1 + clip_high)",
            ),
            "wrong sign of the advantage",
        ),
        "unmoved tokens have no slope": (
            Edit("stopped = np.where(", "stopped = (ratio == 1) | np.where("),
            "on fresh samples",
        ),
    },
    "13.4": {
        "never negative": (
            Edit("k1 = -log_ratio", "k1 = np.maximum(-log_ratio, 0.0)"),
            "mean of k1",
        ),
        "k2 of the ratio": (Edit("log_ratio**2 / 2", "ratio**2 / 2"), "squared the ratio"),
        "k2 of ratio less one": (
            Edit("log_ratio**2 / 2", "(ratio - 1) ** 2 / 2"),
            "half the square",
        ),
        "k2 as k3": (Edit("log_ratio**2 / 2", "ratio - 1 - log_ratio"), "half the square"),
        "k3 without the logarithm": (Edit("ratio - 1 - log_ratio", "ratio - 1"), "mean of k3"),
        "k3 halved": (
            Edit("ratio - 1 - log_ratio", "(ratio - 1 - log_ratio) / 2"),
            "mean of k3",
        ),
        "weighed by the policy": (
            Edit(
                "return k1, k2, k3",
                "p = np.exp(policy_logps)\n    return p * k1, p * k2, p * k3",
            ),
            "mean of k1",
        ),
        "order": (Edit("return k1, k2, k3", "return k1, k3, k2"), "half the square"),
        "means": (Edit("return k1, k2, k3", "return k1.mean(), k2.mean(), k3.mean()"), "shape"),
        "k3 cut at 1": (
            Edit("return k1, k2, k3", "return k1, k2, np.minimum(k3, k2)"),
            "mean of k3|k3 is ratio",
        ),
        "the bug": (
            Edit("reference_logps - policy_logps", "policy_logps - reference_logps"),
            "points the other way",
        ),
        "k1 alone mended": (
            (
                Edit("reference_logps - policy_logps", "policy_logps - reference_logps"),
                Edit("k1 = -log_ratio", "k1 = log_ratio"),
            ),
            "chi-square",
        ),
        "k3 alone mended": (Edit("k1 = -log_ratio", "k1 = log_ratio"), "points the other way"),
        "absolute value": (Edit("k1 = -log_ratio", "k1 = abs(log_ratio)"), "absolute value"),
        "no half": (Edit("log_ratio**2 / 2", "log_ratio**2"), "half is missing"),
        "log term": (
            Edit("ratio - 1 - log_ratio", "ratio - 1 + log_ratio"),
            "log term has the wrong sign",
        ),
        "no minus one": (Edit("ratio - 1 - log_ratio", "ratio - log_ratio"), "-1 is missing"),
        "half mended k3": (
            Edit("ratio - 1 - log_ratio", "1 / ratio - 1 - log_ratio"),
            "in one term only",
        ),
        "k3 is k1": (Edit("ratio - 1 - log_ratio", "-log_ratio"), "added something|samples"),
        "mean": (
            Edit(
                "return k1, k2, k3",
                "return k1.mean() + 0 * k1, k2.mean() + 0 * k2, k3.mean() + 0 * k3",
            ),
            "mean of k1",
        ),
    },
    "13.5": {
        "all as long as the first": (
            Edit(
                "    bounds =",
                "    ends = np.minimum(np.arange(1, len(lengths) + 1) * lengths[0], "
                "len(values))\n"
                "    lengths = np.diff(ends, prepend=0)\n    bounds =",
            ),
            "own response's surprises",
        ),
        "own value after the end": (
            Edit("else 0.0", "else values[t]"),
            "own response's surprises",
        ),
        "reward at the end only": (
            Edit("running = rewards[t] +", "running = rewards[t] * (t + 1 == end) +"),
            "own response's surprises",
        ),
        "normalised": (
            Edit(
                "return advantages,",
                "return (advantages - advantages.mean()) / advantages.std(),",
            ),
            "own response's surprises",
        ),
        "targets of one step": (
            Edit(
                "advantages, advantages + values",
                "advantages, rewards + discount * np.append(values[1:], 0.0)",
            ),
            "advantage plus value",
        ),
        "targets are returns": (
            Edit(
                "return advantages, advantages + values",
                "togo = np.zeros(len(values))\n    for start, end in bounds:\n"
                "        run = 0.0\n"
                "        for t in range(end - 1, start - 1, -1):\n"
                "            run = rewards[t] + discount * run\n"
                "            togo[t] = run\n    return advantages, togo",
            ),
            "returns to go",
        ),
        "last response forgotten": (
            Edit("in bounds:", "in bounds[:-1]:"),
            "own response's surprises",
        ),
        "no values at the start": (
            Edit("- values[t] +", "- values[t] * (t > start) +"),
            "own response's surprises",
        ),
        "lambda of one step": (
            Edit("discount * lam * running", "0.0 * running"),
            "one-step surprise",
        ),
        "last token without a surprise": (
            Edit("range(end - 1, start - 1, -1)", "range(end - 2, start - 1, -1)"),
            "own response's surprises",
        ),
        "next response's value": (
            Edit(
                "following = values[t + 1] if t + 1 < end else 0.0",
                "following = values[t + 1] if t + 1 < len(values) else 0.0",
            ),
            "that of the next response",
        ),
        "sum runs on": (
            (
                Edit("        running = 0.0\n        for t", "        for t"),
                Edit(
                    "    advantages = np.zeros(len(values))\n",
                    "    advantages = np.zeros(len(values))\n    running = 0.0\n",
                ),
                Edit("for start, end in bounds:", "for start, end in reversed(bounds):"),
            ),
            "over the end of a response",
        ),
        "one long response": (
            Edit(
                "bounds = list(zip(ends - lengths, ends, strict=True))",
                "bounds = [(0, len(values))]",
            ),
            "not told apart",
        ),
        "no lambda": (
            Edit("discount * lam * running", "discount * running"),
            "lambda is missing",
        ),
        "no discount in the sum": (
            Edit("discount * lam * running", "lam * running"),
            "missing from the sum",
        ),
        "no discount in the surprise": (
            Edit("discount * following", "following"),
            "missing from the surprise",
        ),
        "returns to go": (
            Edit(
                "rewards[t] + discount * following - values[t] + discount * lam * running",
                "rewards[t] + discount * running",
            ),
            "returns to go",
        ),
        "forwards": (
            Edit("range(end - 1, start - 1, -1)", "range(start, end)"),
            "forwards in time",
        ),
        "targets are advantages": (
            Edit(
                "return advantages, advantages + values",
                "return advantages, advantages + 0 * values",
            ),
            "these are the advantages",
        ),
        "targets minus values": (
            Edit("advantages, advantages + values", "advantages, advantages - values"),
            "taken off",
        ),
        "lambda kept below one": (
            Edit("    running = 0.0", "    running, lam = 0.0, min(lam, 0.95)"),
            "whatever the values say",
        ),
    },
    "13.6": {
        "first part only": (
            Edit("in micro_batches:", "in micro_batches[:1]:"),
            "counts the same",
        ),
        "last part lost": (
            Edit("in micro_batches:", "in micro_batches[: max(1, len(micro_batches) - 1)]:"),
            "counts the same",
        ),
        "mean length for the constant": (
            Edit("(responses * constant)", "(responses * tokens / responses)"),
            "number of tokens",
        ),
        "longest for the constant": (
            Edit("(responses * constant)", "(responses * max(max(n) for _, n in micro_batches))"),
            "responses times constant",
        ),
        "divided by the parts, too": (
            Edit("return total / tokens", "return total / tokens / len(micro_batches)"),
            "tokens of the whole batch",
        ),
        "constant by the parts": (
            Edit("(responses * constant)", "(len(micro_batches) * constant)"),
            "responses times constant",
        ),
        "padded to the longest of a part": (
            Edit("        tokens += len(losses)", "        tokens += len(lengths) * max(lengths)"),
            "tokens of the whole batch",
        ),
        "sequence with the first part's lengths": (
            Edit("starts) / lengths)", "starts) / lengths.mean())"),
            "each of the responses",
        ),
        "one rule for all": (
            Edit('if normalisation == "sequence":', "if True:"),
            "tokens of the whole batch",
        ),
        "mean of parts, sequence": (
            Edit(
                "return means / responses",
                "return np.mean([(np.add.reduceat(x, n.cumsum() - n) / n).mean() "
                "for x, n in micro_batches])",
            ),
            "response in a small part",
        ),
        "mean of parts, token": (
            Edit("return total / tokens", "return np.mean([x.mean() for x, _ in micro_batches])"),
            "token in a small part",
        ),
        "mean of parts, constant": (
            Edit(
                "return total / (responses * constant)",
                "return np.mean([x.sum() / (len(n) * constant) for x, n in micro_batches])",
            ),
            "response in a small part",
        ),
        "sum of parts, constant": (
            Edit(
                "return total / (responses * constant)",
                "return sum(x.sum() / (len(n) * constant) for x, n in micro_batches)",
            ),
            "own responses",
        ),
        "sequence by token": (
            Edit("return means / responses", "return total / tokens"),
            "rule 'token'",
        ),
        "token by sequence": (
            Edit("return total / tokens", "return means / responses"),
            "rule 'sequence'",
        ),
        "no mean over tokens": (
            Edit("return means / responses", "return total / responses"),
            "summed, not averaged",
        ),
        "token by responses": (
            Edit("return total / tokens", "return total / responses"),
            "number of responses",
        ),
        "constant alone": (
            Edit("total / (responses * constant)", "total / constant"),
            "number of responses is missing",
        ),
        "no constant": (
            Edit("total / (responses * constant)", "total / responses"),
            "constant is missing",
        ),
        "divided by parts": (
            Edit("return means / responses", "return means / len(micro_batches)"),
            "number of parts",
        ),
        "three parts at most": (
            Edit("in micro_batches:", "in micro_batches[:3]:"),
            "cut into parts",
        ),
    },
    "13.7": {
        "three left": (
            (
                Edit("logits / temperature, dim=2", "logits, dim=2"),
                Edit("kl.detach()", "kl"),
                Edit("(score.sum(dim=1, keepdim=True) - score)", "score.sum(dim=1, keepdim=True)"),
            ),
            "temperature 1; a gradient.*; the baseline",
        ),
        "padding counted": (
            Edit(
                "mask = torch.arange(ids.shape[1]) < lengths[:, None]",
                "mask = torch.ones_like(ids, dtype=torch.bool)",
            ),
            "the step is RLOO's",
        ),
        "temperature multiplies": (
            Edit("logits / temperature", "logits * temperature"),
            "the step is RLOO's",
        ),
        "sum over responses": (
            Edit("* total).mean()", "* total).sum()"),
            "summed, not averaged",
        ),
        "standardised": (
            Edit("(score - baseline)", "((score - baseline) / score.std(dim=1, keepdim=True))"),
            "the step is RLOO's",
        ),
        "KL per token": (
            Edit("kl.detach()", "kl.detach() / mask.sum(dim=1).view_as(rewards)"),
            "the step is RLOO's",
        ),
        "KL of the first response for all": (
            Edit("kl.detach()", "kl.detach()[:, :1]"),
            "the step is RLOO's",
        ),
        "mean with the own": (
            Edit(
                "(score.sum(dim=1, keepdim=True) - score) / (k - 1)",
                "score.mean(dim=1, keepdim=True)",
            ),
            "group's mean, the own reward in it",
        ),
        "best response only": (
            Edit(
                "(score - baseline)",
                "((score - baseline) * (score == score.max(dim=1, keepdim=True).values))",
            ),
            "the step is RLOO's",
        ),
        "end token alone left out": (
            Edit(
                "mask = torch.arange(ids.shape[1]) < lengths[:, None]",
                "mask = torch.arange(ids.shape[1]) < lengths[:, None] - 1",
            ),
            "end token is not counted",
        ),
        "KL missing": (
            Edit("score = rewards - beta * kl.detach()", "score = rewards - 0 * kl.detach()"),
            "KL is missing",
        ),
        "the bugs": (
            (
                Edit("logits / temperature, dim=2", "logits, dim=2"),
                Edit(
                    "mask = torch.arange(ids.shape[1]) < lengths[:, None]",
                    "mask = ids != end_id",
                ),
                Edit("kl.detach()", "kl"),
                Edit("(score.sum(dim=1, keepdim=True) - score)", "score.sum(dim=1, keepdim=True)"),
            ),
            "temperature 1; the end token.*; a gradient.*; the baseline",
        ),
        "temperature left": (
            Edit("logits / temperature, dim=2", "logits, dim=2"),
            r"as if the log-probabilities are scored at temperature 1\n",
        ),
        "end token left": (
            Edit("mask = torch.arange(ids.shape[1]) < lengths[:, None]", "mask = ids != end_id"),
            "as if the end token is not counted",
        ),
        "detach left": (Edit("kl.detach()", "kl"), "as if a gradient flows"),
        "baseline left": (
            Edit("(score.sum(dim=1, keepdim=True) - score)", "score.sum(dim=1, keepdim=True)"),
            "as if the baseline holds",
        ),
        "two left": (
            (Edit("kl.detach()", "kl"), Edit("logits / temperature, dim=2", "logits, dim=2")),
            "temperature 1; a gradient",
        ),
        "sign": (Edit("loss = -(", "loss = ("), "sign is turned"),
        "KL added": (Edit("rewards - beta * kl", "rewards + beta * kl"), "added to the reward"),
        "token mean": (
            Edit("* total).mean()", "* total / mask.sum(dim=1)).mean()"),
            "averaged over its tokens",
        ),
        "leak over prompts": (
            Edit("(score.sum(dim=1, keepdim=True) - score) / (k - 1)", "score.mean()"),
            "mixes the prompts",
        ),
    },
}
