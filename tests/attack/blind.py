"""Wrong answers to 28 exercises, written from the tasks' text before looking at the checks.

The exercises were drawn: one of each chapter from 1 to 22 and six more, by
`np.random.default_rng(20261130)`. Each answer keeps all that the task demands but one thing, which
stands first: {exercise: {name: (what it breaks, an edit of the solution or whole source)}}.
"""

from irlbook.exercises.model import Edit

Answer = str | Edit | tuple[Edit, ...]

BLIND: dict[str, dict[str, tuple[str, Answer]]] = {
    "01.5": {
        "not in place": (
            "updates the values in place",
            Edit("transitions[s] @ values)", "transitions[s] @ old)"),
        ),
        "mean change": (
            "until no value changes by more than `tolerance`",
            Edit("np.abs(values - old).max()", "np.abs(values - old).mean()"),
        ),
        "only falls count": (
            "until no value *changes* (up or down)",
            Edit("np.abs(values - old).max()", "(values - old).max()"),
        ),
        "relative tolerance": (
            "changes by more than `tolerance`",
            Edit("<= tolerance", "<= tolerance * np.abs(values).max()"),
        ),
    },
    "02.4": {
        "never clipped for bad actions": (
            "the gradient vanishes below the interval where the advantage is negative",
            Edit("silent = good | bad", "silent = good"),
        ),
        "silent outside, whatever the sign": (
            "the minimum keeps the gradient where the ratio has gone the wrong way",
            Edit("silent = good | bad", "silent = (ratio > 1 + clip) | (ratio < 1 - clip)"),
        ),
        "interval in logs": (
            "clip is the half-width of the interval of the ratio",
            Edit(
                "clipped = np.clip(ratio, 1 - clip, 1 + clip)",
                "clipped = np.exp(np.clip(log_probs - old_log_probs, -clip, clip))",
            ),
        ),
        "gradient without the ratio": (
            "its gradient by the log-probabilities",
            Edit("-ratio * advantages / len", "-advantages / len"),
        ),
    },
    "03.3": {
        "a small number in the logarithm": (
            "KL to the reference",
            Edit("np.log(reference))).sum", "np.log(reference + 1e-3))).sum"),
        ),
        "reversed KL": (
            "KL(policy || reference)",
            Edit(
                "nats = (policy * (log_policy - np.log(reference))).sum(axis=1)",
                "nats = (reference * (np.log(reference) - log_policy)).sum(axis=1)",
            ),
        ),
        "gain over the reference": (
            "the expected reward of the optimum",
            Edit("gains = policy @ reward", "gains = policy @ reward - reference @ reward"),
        ),
        "prices sorted": (
            "for each beta, in the order given",
            Edit("    x = reward", "    betas = np.sort(betas)\n    x = reward"),
        ),
    },
    "04.2": {
        "an error may be corrected at once": (
            "a learner *off the road* comes back with probability `back`",
            Edit("(1.0 - off) * error", "(1.0 - off) * error * (1.0 - back)"),
        ),
        "cost of the start of a step": (
            "each step that *ends* off the road costs 1",
            (
                Edit(
                    "        off = off * (1.0 - back) + (1.0 - off) * error\n        total += off",
                    "        total += off\n        off = off * (1.0 - back) + (1.0 - off) * error",
                ),
            ),
        ),
        "the stationary share": (
            "it starts on the road",
            "def stumble_cost(error, back, horizon):\n"
            "    both = error + back\n"
            "    return horizon * error / both if both else 0.0\n",
        ),
        "formula divides by zero": (
            "error and back in [0, 1], 0 and 0 among them",
            "def stumble_cost(error, back, horizon):\n"
            "    share = error / (error + back)\n"
            "    keep = 1 - error - back\n"
            "    return share * sum(1 - keep ** (t + 1) for t in range(horizon))\n",
        ),
    },
    "05.5": {
        "all as long as the first": (
            "with the length of each",
            Edit(
                "step = np.arange(len(states)) - np.repeat(begins, lengths)",
                "step = np.arange(len(states)) % lengths[0]",
            ),
        ),
        "mean over steps": (
            "mean over demonstrations",
            Edit("/ len(lengths)", "/ len(states)"),
        ),
        "discounted from one": (
            "discount to the power t, from t = 0",
            Edit("weight = discount**step", "weight = discount ** (step + 1)"),
        ),
        "demonstrations of one step do not count": (
            "the mean over *all* demonstrations",
            Edit("/ len(lengths)", "/ np.count_nonzero(lengths > 1)"),
        ),
    },
    "06.3": {
        "ends one step too late": (
            "in terminal states nothing is done any more, so they count zero",
            Edit("        here[terminal] = 0.0\n", ""),
        ),
        "starts at the end": (
            "a start in a terminal state counts zero",
            Edit("here = np.where(terminal, 0.0, start)", "here = start"),
        ),
        "zeroed when all is over": (
            "who has reached the end stays there and does nothing",
            (
                Edit("        here[terminal] = 0.0\n", ""),
                Edit("    return visits", "    visits[terminal] = 0.0\n    return visits"),
            ),
        ),
        "the last policy for all times": (
            "policy (T, S, A): one for each time",
            Edit("doing = here[:, None] * pi", "doing = here[:, None] * policy[-1]"),
        ),
    },
    "07.5": {
        "the prior is forgotten": (
            "the posterior has the prior's precision, too",
            Edit(" + np.eye(len(mode)) / prior_deviation**2", ""),
        ),
        "the prior counts for each demonstration": (
            "the Fisher information is *of one demonstration*; there is one prior",
            Edit(
                "n_demonstrations * fisher + np.eye(len(mode)) / prior_deviation**2",
                "n_demonstrations * (fisher + np.eye(len(mode)) / prior_deviation**2)",
            ),
        ),
        "deviation for precision": (
            "prior_deviation is a standard deviation",
            Edit("/ prior_deviation**2", "/ prior_deviation"),
        ),
        "one-sided": (
            "*central* intervals at the level",
            Edit("norm.ppf(0.5 + 0.5 * level)", "norm.ppf(level)"),
        ),
    },
    "08.1": {
        "learner on top": (
            "the best discriminator (8.3) is the expert's share",
            Edit("expert / safe, 0.5)", "policy / safe, 0.5)"),
        ),
        "nobody's pairs are the learner's": (
            "set D = 1/2 where nobody goes",
            Edit("expert / safe, 0.5)", "expert / safe, 0.0)"),
        ),
        "clipped logarithms": (
            "let what has no weight add nothing; D is exact elsewhere",
            Edit(
                "d = np.where(total > 0, expert / safe, 0.5)",
                "d = np.clip(np.where(total > 0, expert / safe, 0.5), 1e-3, 1 - 1e-3)",
            ),
        ),
        "half the cross-entropy": (
            "its cross-entropy (8.4) is the sum of both parts",
            Edit("loss = -(", "loss = -0.5 * ("),
        ),
    },
    "09.4": {
        "neighbours in rank only": (
            "over *all* pairs of walks of different rank",
            "def trex_loss(walks, ranks, reward, discount):\n"
            "    returns = np.array([\n"
            "        discount ** np.arange(len(a)) @ reward[s[:-1]] for s, a in walks\n"
            "    ])\n"
            "    levels = np.unique(ranks)\n"
            "    losses = [\n"
            "        np.logaddexp(0.0, returns[j] - returns[i])\n"
            "        for low, high in zip(levels, levels[1:])\n"
            "        for i in np.flatnonzero(ranks == high)\n"
            "        for j in np.flatnonzero(ranks == low)\n"
            "    ]\n"
            "    return np.mean(losses)\n",
        ),
        "ties count": (
            "pairs of *different* rank",
            Edit("if ranks[i] > ranks[j]", "if i != j and ranks[i] >= ranks[j]"),
        ),
        "the end pays": (
            "no reward is collected in the last state",
            Edit(
                "discount ** np.arange(len(actions)) @ reward[states[:-1]]",
                "discount ** np.arange(len(states)) @ reward[states]",
            ),
        ),
        "rank 1 is best": (
            "a higher rank is better",
            Edit("if ranks[i] > ranks[j]", "if ranks[i] < ranks[j]"),
        ),
    },
    "09.5": {
        "ties left out": (
            "a tie should count as half a win for each",
            (
                Edit("        wins[a, b] += label", "        wins[a, b] += label == 1"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label == 0"),
            ),
        ),
        "a tie is a win for both": (
            "*half* a win for each",
            (
                Edit("        wins[a, b] += label", "        wins[a, b] += label >= 0.5"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label <= 0.5"),
            ),
        ),
        "too few rounds": (
            "rewards fitted by (9.6), to the end",
            Edit("range(2000)", "range(5)"),
        ),
        "first item at zero": (
            "rewards that add up to 0",
            Edit("return np.log(s) - np.log(s).mean()", "return np.log(s) - np.log(s)[0]"),
        ),
    },
    "10.3": {
        "the model's own prefixes": (
            "SFT trains on prefixes of the expert",
            Edit("reach[s] * expert[s]", "reach[s] * policy[s]"),
        ),
        "ascent": (
            "the gradient of the *loss*",
            Edit("(policy - expert)", "(expert - policy)"),
        ),
        "finished responses count": (
            "rows of finished responses must come out as zero",
            Edit("    reach = np.where(children[:, 0] >= 0, reach, 0.0)\n", ""),
        ),
        "gradient by probabilities": (
            "in the *logits* z(s, a)",
            Edit("(policy - expert)", "(-expert / policy)"),
        ),
    },
    "11.3": {
        "with replacement": (
            "the mean over all *subsets* of n",
            Edit(
                "math.comb(j, n - 1) / math.comb(k, n) * gold[i]",
                "((j + 1) ** n - j**n) / k**n * gold[i]",
            ),
        ),
        "the best by gold": (
            "the best *by reward*, worth by gold",
            Edit("np.argsort(rewards)", "np.argsort(gold)"),
        ),
        "worth by reward": (
            "worth *by gold*",
            Edit("* gold[i]", "* rewards[i]"),
        ),
        "disjoint groups": (
            "*all* subsets",
            "def best_of_n(rewards, gold, n):\n"
            "    groups = [slice(i, i + n) for i in range(0, len(rewards) - n + 1, n)]\n"
            "    return float(np.mean([gold[g][np.argmax(rewards[g])] for g in groups]))\n",
        ),
    },
    "12.3": {
        "the first of equals wins": (
            "responses of equal reward share what they win",
            Edit(
                "u, b = int((r <= r[j]).sum()), int((r < r[j]).sum())",
                "u, b = int((r < r[j]).sum() + (r[j:] == r[j]).sum()), 0\n            b = u - 1",
            ),
        ),
        "deviation with K": (
            "how far would it move with *other prompts*",
            Edit("np.sqrt(len(values))", "np.sqrt(rewards.size)"),
        ),
        "deviation of the population": (
            "the standard error of the estimate",
            Edit("values.std(ddof=1)", "values.std()"),
        ),
        "with replacement": (
            "the mean over all *subsets* of n",
            Edit("(math.comb(u, n) - math.comb(b, n)) / math.comb(k, n)", "(u**n - b**n) / k**n"),
        ),
    },
    "13.1": {
        "mean of all": (
            "the mean reward of the *other* responses",
            Edit(
                "others = (rewards.sum(axis=1, keepdims=True) - rewards) / (k - 1)",
                "others = rewards.mean(axis=1, keepdims=True)",
            ),
        ),
        "mean of all prompts": (
            "to the *same* prompt",
            Edit(
                "others = (rewards.sum(axis=1, keepdims=True) - rewards) / (k - 1)",
                "others = (rewards.sum() - rewards) / (rewards.size - 1)",
            ),
        ),
        "the next one only": (
            "the *mean* of the others",
            Edit(
                "others = (rewards.sum(axis=1, keepdims=True) - rewards) / (k - 1)",
                "others = np.roll(rewards, 1, axis=1)",
            ),
        ),
        "divided by the deviation": (
            "reward minus mean, nothing else",
            Edit(
                "return rewards - others",
                "return (rewards - others) / (rewards.std(axis=1, keepdims=True) + 1e-8)",
            ),
        ),
    },
    "13.3": {
        "one clip for both sides": (
            "kept within 1 - clip_low and 1 + clip_high",
            Edit("    ratio = np", "    clip_high = clip_low\n    ratio = np"),
        ),
        "sides exchanged": (
            "clip_low is below and clip_high above",
            Edit("    ratio = np", "    clip_low, clip_high = clip_high, clip_low\n    ratio = np"),
        ),
        "slope in the ratio": (
            "the derivative in the token's own *log-probability*",
            Edit("np.where(stopped, 0.0, -ratio * a)", "np.where(stopped, 0.0, -a)"),
        ),
        "mean over the response": (
            "the loss of each token",
            Edit(
                "return losses, np.where(stopped, 0.0, -ratio * a)",
                "n = np.repeat(lengths, lengths)\n"
                "    return losses / n, np.where(stopped, 0.0, -ratio * a) / n",
            ),
        ),
    },
    "13.5": {
        "leak from the next": (
            "nothing of the next response may enter",
            Edit("if t + 1 < end else", "if t + 1 < len(values) else"),
        ),
        "the trace runs on": (
            "nothing of the next response may enter",
            (
                Edit(
                    "    for start, end in bounds:\n        running = 0.0",
                    "    running = 0.0\n    for start, end in reversed(bounds):",
                ),
            ),
        ),
        "targets without values": (
            "the targets that the value head is trained towards",
            Edit("return advantages, advantages + values", "return advantages, advantages"),
        ),
        "one-step targets": (
            "targets are advantages plus values",
            Edit(
                "return advantages, advantages + values",
                "shifted = np.append(values[1:], 0.0)\n"
                "    shifted[ends - 1] = 0.0\n"
                "    return advantages, rewards + discount * shifted",
            ),
        ),
    },
    "14.3": {
        "robust is conservative": (
            "each loss of the family has its own h",
            Edit(
                "p = (p - epsilon) / (1 - 2 * epsilon)", "p = (1 - epsilon) * p + epsilon * (1 - p)"
            ),
        ),
        "robust keeps within": (
            "where the loss falls without end, infinite",
            Edit(
                "p = (p - epsilon) / (1 - 2 * epsilon)",
                "p = np.clip((p - epsilon) / (1 - 2 * epsilon), 1e-6, 1 - 1e-6)",
            ),
        ),
        "ipo uncentred": (
            "for IPO in units of h, (14.13)",
            Edit("return p - 0.5", "return p"),
        ),
        "infinite only for certainty": (
            "robust: infinite wherever p < epsilon, too",
            (
                Edit("if p >= 1:", "if p == 1:"),
                Edit("if p <= 0:", "if p == 0:"),
                Edit(
                    "return float(np.log(p) - np.log1p(-p))",
                    "return float(np.log(abs(p)) - np.log(abs(1 - p)))",
                ),
            ),
        ),
    },
    "15.5": {
        "no intercept": (
            "fitted by least squares *with an intercept*",
            Edit("centred = length - length.mean()", "centred = length"),
        ),
        "pay at the mean length": (
            "the gain that the line gives at equal lengths",
            Edit("raw - slope * length.mean()", "raw - slope * np.median(length)"),
        ),
        "gain of B": (
            "the gain of A over B",
            Edit("score = score_a - score_b", "score = score_b - score_a"),
        ),
        "equal lengths break it": (
            "if A and B always wrote equally long answers the pay is 0",
            Edit("if spread == 0:", "if spread < 0:"),
        ),
        "relative lengths": (
            "what the judge pays for a *token*",
            Edit(
                "    centred = length - length.mean()",
                "    length = length_a / length_b - 1\n    centred = length - length.mean()",
            ),
        ),
    },
    "16.3": {
        "total uncertainty": (
            "the information gain, and not the entropy of the answer",
            Edit("return total - noise", "return total"),
        ),
        "bits": (
            "in nats",
            Edit("return total - noise", "return (total - noise) / np.log(2)"),
        ),
        "certain draws are NaN": (
            "draws may be so certain that a chance is 0 or 1",
            Edit("return entr(p) + entr(1 - p)", "return -p * np.log(p) - (1 - p) * np.log(1 - p)"),
        ),
        "chance of the mean weights": (
            "with the mean over the *draws* in place of the expectation",
            Edit("total = h(p.mean(axis=0))", "total = h(expit(draws.mean(axis=0) @ d.T))"),
        ),
    },
    "16.4": {
        "above, not at": (
            "*at or above* the target",
            Edit("if value >= target else", "if value > target else"),
        ),
        "not in a row": (
            "`patience` rounds *in a row*",
            Edit("run + 1 if value >= target else 0", "run + (value >= target)"),
        ),
        "the set apart is free": (
            "return **all** labels, those kept apart included",
            Edit('return int(log["labels"][t]) + log["apart"]', 'return int(log["labels"][t])'),
        ),
        "paid from the first of the row": (
            "this round included: what has been paid for by then",
            Edit('int(log["labels"][t]) +', 'int(log["labels"][t - run + 1]) +'),
        ),
        "never stopped is free of the set apart": (
            "if that never happens, return what was paid for all rounds",
            Edit('return int(log["labels"][-1]) + log["apart"]', 'return int(log["labels"][-1])'),
        ),
    },
    "17.2": {
        "middle of the bin": (
            "inside a bin the mass is spread evenly",
            Edit("return (place + part)", "return (place + 0.5)"),
        ),
        "empty bins are left out": (
            "bins may be empty",
            "def low_quantile(chances, level):\n"
            "    found = []\n"
            "    for row in chances:\n"
            "        full = row[row > 0]\n"
            "        upto = np.concatenate([[0.0], np.cumsum(full)])\n"
            "        edges = np.arange(len(upto)) / len(row)\n"
            "        found.append(np.interp(level, upto, edges))\n"
            "    return np.array(found)\n",
        ),
        "one level for small ones": (
            "the level may be any number between 0 and 1",
            Edit("    upto", "    level = min(level, 0.5)\n    upto"),
        ),
        "edges interpolated between all": (
            "the utility below which exactly that share of the mass lies, bin by bin",
            "def low_quantile(chances, level):\n"
            "    b = chances.shape[1]\n"
            "    centres = (np.arange(b) + 0.5) / b\n"
            "    return np.array([np.interp(level, np.cumsum(row), centres) for row in chances])\n",
        ),
    },
    "17.3": {
        "in chunks of one user": (
            "labels come in any order",
            Edit(
                "logs = np.array([np.bincount(users, row) for row in log_p]).T",
                "begins = np.flatnonzero(np.diff(users, prepend=-1))\n"
                "    logs = np.add.reduceat(log_p, begins, axis=1).T[: users.max() + 1]",
            ),
        ),
        "products": (
            "users may have thousands of labels, without underflow",
            "def e_step(rewards, shares, users, pairs):\n"
            "    gap = rewards[:, pairs[:, 0]] - rewards[:, pairs[:, 1]]\n"
            "    chance = 1 / (1 + np.exp(-gap))\n"
            "    joint = np.tile(shares, (users.max() + 1, 1)).astype(float)\n"
            "    for u, c in zip(users, chance.T):\n"
            "        joint[u] *= c\n"
            "    return joint / joint.sum(axis=1, keepdims=True)\n",
        ),
        "shares forgotten": (
            "the chance of each type has its share in it",
            Edit("joint = logs + np.log(shares)", "joint = logs + 0 * np.log(shares + 1)"),
        ),
        "a share of 0 becomes a small one": (
            "a type may have the share 0",
            Edit("np.log(shares)", "np.log(np.maximum(shares, 1e-3))"),
        ),
        "means of logs": (
            "given *all* labels of the user",
            Edit(".T\n", ".T\n    logs = logs / np.bincount(users)[:, None]\n"),
        ),
    },
    "17.4": {
        "always equal": (
            "mind the case in which one group is better off whatever happens",
            Edit("low, high = 0.0, 1.0", "low, high = -50.0, 50.0"),
        ),
        "equal shares": (
            "one number has to be found",
            Edit("return tilted((low + high) / 2)", "return tilted(0.5)"),
        ),
        "unnormalised reference overflows": (
            "utilities and 1 / beta may be large",
            Edit("p = np.exp(scores - scores.max())", "p = np.exp(scores)"),
        ),
        "too coarse": (
            "the policy that maximises",
            Edit("range(60)", "range(6)"),
        ),
        "the better-off group": (
            "the minimum over groups",
            Edit("if first < second:", "if first > second:"),
        ),
    },
    "18.5": {
        "what the student wrote": (
            "the mean of the *teacher's* distributions",
            Edit("np.add.at(table, states, teacher)", "np.add.at(table, (states, written), 1.0)"),
        ),
        "no prior for the visited": (
            "half a visit was added to *each* state",
            Edit(
                "    return table",
                "    table[np.unique(states)] -= 0.5 / size\n    return table",
            ),
        ),
        "half a visit for each token": (
            "half a visit, *spread* over the tokens",
            Edit("0.5 / size", "0.5"),
        ),
        "each state once": (
            "the mean over the *visits* to the state",
            Edit("np.add.at(table, states, teacher)", "table[states] += teacher"),
        ),
    },
    "19.3": {
        "the majority": (
            "the largest sum of *weights*",
            Edit("0.0) + weight", "0.0) + 1"),
        ),
        "the largest weight": (
            "the largest *sum*",
            Edit("sums.get(answer, 0.0) + weight", "max(sums.get(answer, 0.0), weight)"),
        ),
        "the last of equals": (
            "of answers with equal sums the one that was given first wins",
            Edit("max(sums, key=sums.get)", "max(reversed(sums), key=sums.get)"),
        ),
        "weights of zero do not vote": (
            "samples without an answer do not vote; weights are at least 0",
            Edit("if answer is None:", "if answer is None or weight == 0:"),
        ),
        "an empty answer does not vote": (
            "an answer is a text; only None is none",
            Edit("if answer is None:", "if not answer:"),
        ),
    },
    "20.5": {
        "sign of the leaf": (
            "the value is of the player to move *at the leaf*, after the last move",
            Edit(
                "        value = -value if alternating else value\n"
                "        visits[state, move] += 1\n        totals[state, move] += value",
                "        visits[state, move] += 1\n        totals[state, move] += value\n"
                "        value = -value if alternating else value",
            ),
        ),
        "always alternates": (
            "a game for one player changes no sign",
            Edit("-value if alternating else value", "-value"),
        ),
        "writes into the arrays": (
            "the arrays that are given must stay as they are",
            Edit(
                "visits, totals = visits.copy(), totals.copy()", "visits, totals = visits, totals"
            ),
        ),
        "a state twice on the path once": (
            "a visit for *each* move on the path",
            Edit("reversed(path)", "reversed(list(dict.fromkeys(path)))"),
        ),
    },
    "21.3": {
        "bits before the step": (
            "0 where the bits *after* the step are the goal",
            Edit("reached[1:] == goals", "reached[:-1] == goals"),
        ),
        "the end for all": (
            "the new goals are the bits at the drawn time",
            Edit("goals = reached[later]", "goals = reached[np.full(len(later), len(later))]"),
        ),
        "one bit is enough": (
            "the bits (all of them) are the new goal",
            Edit(".all(axis=1)", ".any(axis=1)"),
        ),
        "by time and not by bits": (
            "where the *bits* after the step are the goal, also when the time is another",
            Edit("(reached[1:] == goals).all(axis=1)", "later == np.arange(1, len(later) + 1)"),
        ),
    },
    "22.5": {
        "share of the pairs": (
            "round(share * m) of the m different *prompts*",
            Edit("round(share * len(different))", "round(share * len(prompts))"),
        ),
        "rounded down": (
            "`round(share * m)`",
            Edit("round(share * len(different))", "int(share * len(different))"),
        ),
        "perhaps none": (
            "at least one",
            Edit("max(1, round(share * len(different)))", "round(share * len(different))"),
        ),
        "the first prompts": (
            "drawn with `rng`",
            Edit("rng.permutation(len(different))[:n]", "range(n)"),
        ),
        "the common prompts": (
            "drawn from the *different* prompts, each alike",
            Edit(
                "held = {different[i] for i in rng.permutation(len(different))[:n]}",
                "held = set()\n"
                "    for i in rng.permutation(len(prompts)):\n"
                "        if len(held) < n:\n"
                "            held.add(prompts[i])",
            ),
        ),
    },
}
