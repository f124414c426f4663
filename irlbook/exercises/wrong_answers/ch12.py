"""Wrong answers to the exercises of chapter 12, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "12.1": {
        "ties shared by head": (
            Edit(
                "pmf = p / mass * (upto**n - below**n)",
                "size = np.array([((scores == s) & (p > 0)).sum() for s in scores])\n"
                "    pmf = (p > 0) / np.maximum(size, 1) * (upto**n - below**n)",
            ),
            "share their chance equally",
        ),
        "one draw more": (
            Edit("    upto =", "    n = n + 1\n    upto ="),
            "has the probabilities of",
        ),
        "one draw fewer": (
            Edit("    upto =", "    n = max(n - 1, 1)\n    upto ="),
            "has the probabilities of",
        ),
        "responses of probability 0 left out": (
            Edit("    upto =", "    scores, p = scores[p > 0], p[p > 0]\n    upto ="),
            "shape",
        ),
        "the highest score counts, drawn or not": (
            Edit(
                "return pmf,",
                "pmf = np.where(p[scores.argmax()] > 0, pmf, scores == scores.max())\n"
                "    return pmf,",
            ),
            "never gives",
        ),
        "only alone between others is nothing": (
            Edit(
                "mass = np.where(upto > below, upto - below, 1.0)",
                "mass = np.where(scores < 9, upto - below, 1.0)",
            ),
            "never gives|finite|NaN|nan",
        ),
        "KL of the scores' levels": (
            Edit(
                "kl = (pmf[some] * np.log(pmf[some] / p[some])).sum()",
                "kl = sum(pmf[scores == s].sum() * np.log(pmf[scores == s].sum()) "
                "for s in set(scores) if pmf[scores == s].sum() > 0)",
            ),
            "summed over the responses",
        ),
        "entropy": (
            Edit("np.log(pmf[some] / p[some])", "-np.log(pmf[some])"),
            "summed over the responses",
        ),
        "KL under p": (
            Edit(
                "pmf[some] * np.log(pmf[some] / p[some])",
                "p[some] * np.log(pmf[some] / p[some])",
            ),
            "expectation is taken under p",
        ),
        "bound for the KL": (
            Edit(
                "kl = (pmf[some] * np.log(pmf[some] / p[some])).sum()",
                "kl = np.log(n) - (n - 1) / n",
            ),
            "returned the bound",
        ),
        "shared equally": (
            Edit("p / mass *", "1 / (scores[:, None] == scores).sum(axis=1) *"),
            "share their chance equally",
        ),
        "ties ignored": (
            "import numpy as np\n\n\ndef best_of_n(p, scores, n):\n"
            "    order = np.argsort(scores, kind='stable')\n"
            "    upto = np.cumsum(p[order])\n"
            "    pmf = np.empty_like(p)\n"
            "    pmf[order] = upto**n - (upto - p[order]) ** n\n"
            "    return pmf, float((pmf * np.log(pmf / p)).sum())",
            "one takes it all",
        ),
        "each the whole": (Edit("p / mass * (", "(p > 0) * ("), "whole chance of its score"),
        "worst of n": (
            (Edit("scores <= s", "scores >= s"), Edit("scores < s", "scores > s")),
            "worst of n",
        ),
        "density": (
            Edit("p / mass * (upto**n - below**n)", "n * p * upto ** (n - 1)"),
            "density of the continuous case",
        ),
        "not subtracted": (Edit("upto**n - below**n", "upto**n"), "forgot to subtract"),
        "other direction": (
            Edit(
                "pmf[some] * np.log(pmf[some] / p[some])",
                "p[some] * np.log(p[some] / pmf[some])",
            ),
            "other direction",
        ),
        "bits": (Edit("np.log(pmf", "np.log2(pmf"), "in bits"),
        "zero over zero": (
            (
                Edit("mass = np.where(upto > below, upto - below, 1.0)", "mass = upto - below"),
                Edit("some = pmf > 0", "some = pmf > -1"),
            ),
            "never gives|finite|NaN|nan",
        ),
        "the bound where n is large": (
            Edit("return pmf,", "kl = np.log(n) - (n - 1) / n if n > 10 else kl\n    return pmf,"),
            "fair coin",
        ),
        "probabilities of 0 smoothed in the KL": (
            Edit(
                "    some = pmf > 0",
                "    if (p == 0).any():\n"
                "        p = (p + 1e-3) / (p + 1e-3).sum()\n"
                "    some = pmf > 0",
            ),
            "add nothing to the KL",
        ),
    },
    "12.2": {
        "all draws alike": (
            Edit("    names, level", "    p = np.full_like(p, 1 / len(p))\n    names, level"),
            "counts a tie half",
        ),
        "ties a third": (
            Edit("(upto + below) / 2", "(upto + 2 * below) / 3"),
            "counts a tie half",
        ),
        "at least a half": (
            Edit("return float(wins", "return 0.6 + 0 * float(wins"),
            "counts a tie half",
        ),
        "ten thousand draws": (
            "def win_rate(p, scores, n):\n"
            "    rng = np.random.default_rng(0)\n"
            "    best = scores[rng.choice(len(p), (10000, n), p=p / p.sum())].max(axis=1)\n"
            "    one = scores[rng.choice(len(p), 10000, p=p / p.sum())]\n"
            "    return float((best > one).mean() + (best == one).mean() / 2)",
            "counts a tie half",
        ),
        "ties only among the highest": (
            Edit(
                "(upto + below) / 2",
                "np.where(np.arange(len(mass)) < len(mass) - 1, below, (upto + below) / 2)",
            ),
            "counts a tie half",
        ),
        "best of n minus one": (
            Edit("upto**n - below**n", "upto ** max(n - 1, 1) - below ** max(n - 1, 1)"),
            "counts a tie half",
        ),
        "scores for levels": (
            "def win_rate(p, scores, n):\n"
            "    upto = np.array([p[scores <= s].sum() for s in scores])\n"
            "    below = np.array([p[scores < s].sum() for s in scores])\n"
            "    return float((upto**n - below**n) @ (upto + below) / 2)",
            "counts a tie half",
        ),
        "bound": (
            "def win_rate(p, scores, n):\n    return n / (n + 1)",
            "bound n/\\(n \\+ 1\\)|n = 1|counts a tie half|all responses tie",
        ),
        "ties won": (Edit("(upto + below) / 2", "upto"), "ties count as won|counts a tie half"),
        "ties lost": (
            Edit("(upto + below) / 2", "below"),
            "counts as lost|ties count as lost|counts a tie half",
        ),
        "ties left out": (
            Edit(
                "float(wins @ (upto + below) / 2)",
                "float(wins @ below / (1 - wins @ mass))",
            ),
            "ties are left out|counts a tie half",
        ),
        "worst of n": (
            Edit("wins = upto**n - below**n", "wins = (1 - below) ** n - (1 - upto) ** n"),
            "worst of n plays",
        ),
        "both best of n": (
            Edit("(upto + below) / 2", "(upto**n + below**n) / 2"),
            "nobody is better",
        ),
        "one too many": (
            Edit("upto**n - below**n", "upto ** (n + 1) - below ** (n + 1)"),
            "too many|counts a tie half",
        ),
        "ties forgotten in F": (
            "import numpy as np\n\n\ndef win_rate(p, scores, n):\n"
            "    upto = np.cumsum(p[np.argsort(scores)])\n"
            "    below = np.append(0, upto[:-1])\n"
            "    return float((upto**n - below**n) @ (upto + below) / 2)",
            "counts a tie half|all responses tie",
        ),
        "fifty bins": (
            Edit(
                "names, level = np.unique(scores, return_inverse=True)",
                "level = np.digitize(scores, np.linspace(scores.min(), scores.max(), 50))",
            ),
            "with many responses",
        ),
    },
    "12.3": {
        "ties to the first": (
            Edit(
                "u, b = int((r <= r[j]).sum()), int((r < r[j]).sum())",
                "b = int((r < r[j]).sum()) + int((r[j + 1 :] == r[j]).sum())\n"
                "            u = b + 1",
            ),
            "ties shared",
        ),
        "ties each the whole": (Edit("/ (u - b) * g[j]", "* g[j]"), "ties shared"),
        "ties dropped": (Edit("/ (u - b) * g[j]", "* (u - b == 1) * g[j]"), "ties shared"),
        "one subset": (
            "def best_of_n_estimate(rewards, gold, n):\n"
            "    rng = np.random.default_rng(0)\n"
            "    pick = np.array([rng.permutation(rewards.shape[1])[:n] for _ in rewards])\n"
            "    rows = np.arange(len(rewards))\n"
            "    best = pick[rows, np.take_along_axis(rewards, pick, 1).argmax(axis=1)]\n"
            "    values = gold[rows, best]\n"
            "    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))",
            "ties shared",
        ),
        "variance of the mean": (
            Edit("values.std(ddof=1) / np.sqrt(len(values))", "values.var(ddof=1) / len(values)"),
            "another draw of prompts",
        ),
        "a 95 % interval": (
            Edit("return values.mean(), ", "return values.mean(), 1.96 * "),
            "another draw of prompts",
        ),
        "error of the plain mean of gold": (
            Edit("values.std(ddof=1)", "gold.mean(axis=1).std(ddof=1)"),
            "another draw of prompts",
        ),
        "median over prompts": (
            Edit("return values.mean(),", "return np.median(values),"),
            "ties shared",
        ),
        "the first prompt only": (
            Edit("return values.mean(),", "return values[0],"),
            "ties shared",
        ),
        "n at most K - 1": (
            Edit("    values = []", "    n = min(n, k - 1)\n    values = []"),
            "ties shared",
        ),
        "with replacement": (
            Edit(
                "(math.comb(u, n) - math.comb(b, n)) / math.comb(k, n)",
                "((u / k) ** n - (b / k) ** n)",
            ),
            "drawn twice",
        ),
        "by gold": (
            Edit("for r, g in zip(rewards, gold, strict=True):", "for r, g in zip(gold, gold):"),
            "chose by gold",
        ),
        "reward of the chosen": (
            Edit(
                "for r, g in zip(rewards, gold, strict=True):",
                "for r, g in zip(rewards, rewards):",
            ),
            "reward of the chosen",
        ),
        "worst of n": (
            Edit(
                "for r, g in zip(rewards, gold, strict=True):",
                "for r, g in zip(-rewards, gold):",
            ),
            "worst of n",
        ),
        "ties to the last": (
            "import math\n\nimport numpy as np\n\n\ndef best_of_n_estimate(rewards, gold, n):\n"
            "    k = rewards.shape[1]\n"
            "    w = [math.comb(j, n - 1) / math.comb(k, n) for j in range(k)]\n"
            "    order = np.argsort(rewards, axis=1, kind='stable')\n"
            "    values = np.take_along_axis(gold, order, axis=1) @ np.array(w)\n"
            "    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))",
            "last takes it all",
        ),
        "first n": (
            "import numpy as np\n\n\ndef best_of_n_estimate(rewards, gold, n):\n"
            "    best = rewards[:, :n].argmax(axis=1)\n"
            "    values = gold[np.arange(len(gold)), best]\n"
            "    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))",
            "first n responses",
        ),
        "one pot": (
            (
                Edit(
                    "k = rewards.shape[1]",
                    "rewards, gold = rewards.reshape(1, -1), gold.reshape(1, -1)\n"
                    "    k = rewards.shape[1]",
                ),
                Edit("std(ddof=1)", "std()"),
            ),
            "one pot",
        ),
        "responses as independent": (
            Edit(
                "values.std(ddof=1) / np.sqrt(len(values))",
                "gold.std(ddof=1) / np.sqrt(gold.size)",
            ),
            "responses to be independent",
        ),
        "divided by all": (
            Edit("np.sqrt(len(values))", "np.sqrt(gold.size)"),
            "number of responses, not of prompts",
        ),
        "spread": (Edit(" / np.sqrt(len(values))", ""), "not yet that of their mean"),
        "ddof": (Edit("std(ddof=1)", "std()"), "not P - 1"),
        "a table of 64-bit numbers": (
            (
                Edit(
                    "    values = []",
                    "    table = np.zeros((k + 1, k + 1), dtype=np.int64)\n"
                    "    table[:, 0] = 1\n"
                    "    for i in range(1, k + 1):\n"
                    "        table[i, 1:] = table[i - 1, 1:] + table[i - 1, :-1]\n"
                    "    values = []",
                ),
                Edit(
                    "(math.comb(u, n) - math.comb(b, n)) / math.comb(k, n)",
                    "(table[u, n] - table[b, n]) / table[k, n]",
                ),
            ),
            "120 responses",
        ),
    },
    "12.4": {
        "neighbours only": (
            Edit(
                "wrong = rewards[:, :, None] < rewards[:, None, :]",
                "wrong = (rewards[:, :, None] < rewards[:, None, :]) & "
                "~((rewards[:, :, None, None] < rewards[:, None, None, :]) & "
                "(rewards[:, None, None, :] < rewards[:, None, :, None])).any(axis=3)",
            ),
            "hinge over all pairs",
        ),
        "only pairs with the best": (
            Edit(
                "    ranking = ",
                "    wrong = wrong & (rewards == rewards.max(axis=1, keepdims=True))[:, "
                "None, :]\n"
                "    ranking = ",
            ),
            "hinge over all pairs",
        ),
        "a pair counts, not by how much": (
            Edit("excess * wrong", "(excess > 0) * wrong"),
            "hinge over all pairs",
        ),
        "a margin": (
            Edit(
                "np.maximum(p[:, :, None] - p[:, None, :], 0)",
                "np.maximum(p[:, :, None] - p[:, None, :] + 0.1, 0)",
            ),
            "hinge over all pairs",
        ),
        "best by the policy": (
            Edit("rewards.argmax(axis=1)", "logps.argmax(axis=1)"),
            "hinge over all pairs",
        ),
        "SFT on all": (Edit("logps[rows, best]", "logps.mean(axis=1)"), "hinge over all pairs"),
        "mean over prompts": (
            Edit(
                "return ranking - logps[rows, best]",
                "return (ranking - logps[rows, best]).mean()",
            ),
            "shape",
        ),
        "lengths of the first prompt": (
            Edit("logps / lengths", "logps / lengths[:1]"),
            "hinge over all pairs",
        ),
        "mean length": (
            Edit("logps / lengths", "logps / lengths.mean(axis=1, keepdims=True)"),
            "hinge over all pairs",
        ),
        "squared": (Edit("excess * wrong", "excess**2 * wrong"), "hinge over all pairs"),
        "sums": (Edit("p = logps / lengths", "p = logps"), "ranks lengths"),
        "argmin": (Edit("rewards.argmax", "rewards.argmin"), "on the worst"),
        "no SFT": (
            Edit("return ranking - logps[rows, best]", "return ranking"),
            "SFT on the best response is missing",
        ),
        "no ranking": (
            Edit("return ranking -", "return 0 * ranking -"),
            "the ranking is missing",
        ),
        "SFT per token": (
            Edit("logps[rows, best]", "p[rows, best]"),
            "SFT is divided by the length",
        ),
        "order": (
            Edit("rewards[:, :, None] < rewards", "rewards[:, :, None] > rewards"),
            "right order are punished",
        ),
        "ties": (
            Edit("rewards[:, :, None] < rewards", "rewards[:, :, None] <= rewards"),
            "tie count as a pair",
        ),
        "no hinge": (
            Edit("np.maximum(p[:, :, None] - p[:, None, :], 0)", "p[:, :, None] - p[:, None, :]"),
            "no hinge",
        ),
        "mean": (
            Edit(
                "(excess * wrong).sum(axis=(1, 2))",
                "(excess * wrong).sum(axis=(1, 2)) / wrong.sum(axis=(1, 2))",
            ),
            "mean over pairs",
        ),
        "sign": (Edit("ranking - logps", "ranking + logps"), "wrong sign"),
        "margins weighted": (
            Edit(
                "excess * wrong",
                "excess * np.maximum(rewards[:, None, :] - rewards[:, :, None], 0)",
            ),
            "hinge over all pairs",
        ),
        "negative rewards cut": (
            Edit("    p = logps", "    rewards = np.maximum(rewards, 0.0)\n    p = logps"),
            "only the order of the rewards",
        ),
    },
    "12.5": {
        "a tie is one response drawn k times": (
            Edit(
                "wins = (wins - mass**k) / (1 - (mass**k).sum())",
                "alone = np.bincount(level, weights=p**k)\n"
                "            wins = (wins - alone) / (1 - alone.sum())",
            ),
            "winners of the others",
        ),
        "skips ties at the top only": (
            Edit(
                "wins = (wins - mass**k) / (1 - (mass**k).sum())",
                "top = mass**k * (np.arange(len(mass)) == len(mass) - 1)\n"
                "            wins = (wins - top) / (1 - top.sum())",
            ),
            "winners of the others",
        ),
        "the highest score thrown away": (
            Edit(
                "wins = (wins - mass**k) / (1 - (mass**k).sum())",
                "wins = np.append(wins[:-1], 0.0) / wins[:-1].sum()",
            ),
            "winners of the others",
        ),
        "skips in the first round only": (
            (
                Edit("for _ in range(rounds)", "for round_ in range(rounds)"),
                Edit("if skip:", "if skip and round_ == 0:"),
            ),
            "second round",
        ),
        "greedy": (
            "def raft_rounds(p, scores, k, rounds, skip):\n"
            "    top = p * (scores == scores.max())\n"
            "    return top / top.sum()",
            "every group fitted",
        ),
        "ties broken by place": (
            Edit(
                "np.unique(scores, return_inverse=True)",
                "np.unique(scores + 1e-6 * np.arange(len(scores)), return_inverse=True)",
            ),
            "every group fitted",
        ),
        "k and rounds exchanged": (
            Edit("    for _ in", "    k, rounds = rounds, k\n    for _ in"),
            "every group fitted",
        ),
        "k times r": (
            "import numpy as np\n\n\ndef raft_rounds(p, scores, k, rounds, skip):\n"
            "    n = k * rounds\n"
            "    names, level = np.unique(scores, return_inverse=True)\n"
            "    mass = np.bincount(level, weights=p)\n"
            "    upto = np.cumsum(mass)\n"
            "    return p * ((upto**n - (upto - mass) ** n) / mass)[level]",
            "rounds are added",
        ),
        "one round": (Edit("range(rounds)", "range(1)"), "only one round"),
        "worst": (
            Edit("np.unique(scores,", "np.unique(-scores,"),
            "worst of k",
        ),
        "not skipped": (Edit("if skip:", "if False:"), "were not skipped"),
        "not renormalised": (
            Edit("(wins - mass**k) / (1 - (mass**k).sum())", "wins - mass**k"),
            "sum is below 1",
        ),
        "normalised by hand, not skipped": (
            Edit("(wins - mass**k) / (1 - (mass**k).sum())", "wins / wins.sum()"),
            "were not skipped",
        ),
        "always skipped": (Edit("if skip:", "if True:"), "every group fitted"),
        "shared equally": (
            Edit("p = p * share[level]", "p = (share * mass / np.bincount(level))[level]"),
            "every group fitted",
        ),
        "ties under the start": (
            (
                Edit(
                    "for _ in range(rounds):",
                    "start = np.unique(scores, return_inverse=True)[1]\n"
                    "    first = np.bincount(start, weights=p)\n    for _ in range(rounds):",
                ),
                Edit(
                    "(wins - mass**k) / (1 - (mass**k).sum())",
                    "(wins - first**k) / (1 - (first**k).sum())",
                ),
            ),
            "second round",
        ),
    },
    "12.6": {
        "all equal after the cut were lowered": (
            Edit(
                "    learns = ",
                "    rewards = np.where(ended, rewards, -np.inf)\n    learns = ",
            ),
            "also where one of them was cut",
        ),
        "all equal among the ended only": (
            Edit(
                "(rewards.max(axis=1) > rewards.min(axis=1))",
                "(np.where(ended, rewards, -np.inf).max(axis=1) > "
                "np.where(ended, rewards, np.inf).min(axis=1))",
            ),
            "single response ended",
        ),
        "equal after the cut count zero": (
            Edit("    learns = ", "    rewards = np.where(ended, rewards, 0.0)\n    learns = "),
            "the best of those that ended|also where one of them was cut",
        ),
        "by the variance": (
            Edit("rewards.max(axis=1) > rewards.min(axis=1)", "rewards.var(axis=1) > 0"),
            "all equal is skipped|very little do differ",
        ),
        "close is equal": (
            Edit(
                "rewards.max(axis=1) > rewards.min(axis=1)",
                "~np.isclose(rewards.max(axis=1), rewards.min(axis=1))",
            ),
            "very little do differ",
        ),
        "two different rewards are not enough": (
            Edit(
                "rewards.max(axis=1) > rewards.min(axis=1)",
                "np.array([len(set(r)) > 2 for r in rewards])",
            ),
            "very little do differ|only the cut",
        ),
        "places among the kept": (
            Edit("np.flatnonzero(learns)", "np.arange(learns.sum())"),
            "all equal is skipped",
        ),
        "response before prompt": (
            Edit("best[learns]], axis=1)", "best[learns]][::-1], axis=1)"),
            "in prompt order",
        ),
        "in the order of reward": (
            Edit(
                "    return np.stack([np.flatnonzero(learns), best[learns]], axis=1)",
                "    rows = np.stack([np.flatnonzero(learns), best[learns]], axis=1)\n"
                "    return rows[np.argsort(rewards[rows[:, 0], rows[:, 1]])]",
            ),
            "in prompt order|skipped|differ",
        ),
        "prompt dropped where most were cut": (
            Edit("ended.any(axis=1)", "(ended.mean(axis=1) > 0.5)"),
            "single response ended|the best of those that ended",
        ),
        "unchanged": (
            (
                Edit(
                    "(rewards.max(axis=1) > rewards.min(axis=1)) & ended.any(axis=1)",
                    "rewards.std(axis=1) > 0",
                ),
                Edit("np.where(ended, rewards, -np.inf)", "rewards"),
            ),
            "all equal is skipped",
        ),
        "threshold": (
            Edit("rewards.max(axis=1) > rewards.min(axis=1)", "rewards.std(axis=1) > 1e-6"),
            "very little do differ",
        ),
        "only the first fault": (
            Edit("np.where(ended, rewards, -np.inf)", "rewards"),
            "cut is never fitted",
        ),
        "only the second fault": (
            Edit("rewards.max(axis=1) > rewards.min(axis=1)", "rewards.std(axis=1) > 0"),
            "all equal is skipped",
        ),
        "prompt dropped where the best was cut": (
            (
                Edit(
                    "ended.any(axis=1)",
                    "ended[np.arange(len(rewards)), rewards.argmax(axis=1)]",
                ),
                Edit("np.where(ended, rewards, -np.inf)", "rewards"),
            ),
            "the best of those that ended",
        ),
        "prompt dropped where any was cut": (
            Edit("ended.any(axis=1)", "ended.all(axis=1)"),
            "the best of those that ended",
        ),
        "no ended at all": (Edit(" & ended.any(axis=1)", ""), "none of whose responses ended"),
        "worst": (
            Edit(
                "np.where(ended, rewards, -np.inf).argmax",
                "np.where(ended, rewards, np.inf).argmin",
            ),
            "the best response is kept",
        ),
        "cut scores zero": (
            Edit("np.where(ended, rewards, -np.inf)", "np.where(ended, rewards, 0.0)"),
            "the best of those that ended",
        ),
    },
}
