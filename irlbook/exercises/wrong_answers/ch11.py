"""Wrong answers to the exercises of chapter 11, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "11.1": {
        "gradient overflows": (
            Edit("-np.exp(-np.logaddexp(0.0, d))", "np.exp(d) / (1 + np.exp(d)) - 1"),
            "finite|overflow",
        ),
        "differences cut at 500": (
            Edit("    loss =", "    d = d.clip(-500.0, 500.0)\n    loss ="),
            "overflows nor gives infinity",
        ),
        "hinge, not a logarithm": (
            Edit("np.logaddexp(0.0, -d)", "np.maximum(0.0, -d)"),
            "minus the log-probability",
        ),
        "sum over the pairs": (Edit("return loss,", "return loss.sum(),"), "shape"),
        "gradient of the mean": (Edit("axis=1)", "axis=1) / len(d)"), "number of pairs"),
        "gradient transposed": (
            Edit("[pull, -pull], axis=1", "[pull, -pull], axis=0"),
            "shape|the gradient",
        ),
        "bits": (Edit("return loss,", "return loss / np.log(2),"), "in bits"),
        "gradient weighed by both": (
            Edit(
                "pull = -np.exp(-np.logaddexp(0.0, d))",
                "pull = -np.exp(-loss) * (1 - np.exp(-loss))",
            ),
            "probability minus label",
        ),
        "no minus": (Edit("loss = np", "loss = -np"), "minus sign is missing"),
        "wrong way round": (
            Edit("rewards[:, 0] - rewards[:, 1]", "rewards[:, 1] - rewards[:, 0]"),
            "rejected answer is in front",
        ),
        "no label": (
            Edit("pull = -np.exp(-np.logaddexp(0.0, d))", "pull = np.exp(-loss)"),
            "subtract the label",
        ),
        "one column": (Edit("[pull, -pull]", "[pull, 0 * pull]"), "only the chosen"),
        "same way": (Edit("[pull, -pull]", "[pull, pull]"), "same way"),
        "sign of the gradient": (Edit("[pull, -pull]", "[-pull, pull]"), "sign is turned"),
        "naive": (
            Edit("loss = np.logaddexp(0.0, -d)", "loss = np.log(1 + np.exp(-d))"),
            "finite|overflow",
        ),
        "mean": (
            Edit("return loss,", "return np.full(len(loss), loss.mean()),"),
            "averaged over the pairs",
        ),
    },
    "11.2": {
        "pairs that never met are a tie": (
            Edit(
                "counts = wins + wins.T",
                "never = (wins + wins.T == 0) & ~np.eye(len(wins), dtype=bool)\n"
                "    wins = wins + 0.5 * never\n    counts = wins + wins.T",
            ),
            "counted as a tie",
        ),
        "a tie added to every pair": (
            Edit(
                "counts = wins + wins.T",
                "wins = wins + 0.5 * ~np.eye(len(wins), dtype=bool)\n    counts = wins + wins.T",
            ),
            "a tie was added",
        ),
        "whole wins": (
            Edit("counts = wins + wins.T", "wins = np.floor(wins)\n    counts = wins + wins.T"),
            "give back",
        ),
        "majorities only": (
            Edit(
                "counts = wins + wins.T",
                "wins = 1.0 * (wins > wins.T) + 0.01 * (wins > 0)\n    counts = wins + wins.T",
            ),
            "give back",
        ),
        "shares, not counts": (
            Edit(
                "    rewards = np.zeros(len(wins))",
                "    wins = wins / np.where(counts > 0, counts, 1)\n"
                "    counts = wins + wins.T\n    rewards = np.zeros(len(wins))",
            ),
            "likelihood",
        ),
        "first is zero": (Edit("- rewards.mean()", "- rewards.min()"), "give back"),
        "a hundred steps of descent": (
            Edit("np.linalg.pinv(hessian) @ gradient", "gradient / counts.sum()"),
            "give back|likelihood|never met",
        ),
        "log-odds of neighbours only": (
            "def rewards_from_wins(wins):\n"
            "    steps = [np.log(wins[i, i + 1] / wins[i + 1, i]) for i in range(len(wins) "
            "- 1)]\n"
            "    rewards = -np.append(0.0, np.cumsum(steps))\n"
            "    return rewards - rewards.mean()",
            "likelihood",
        ),
        "win rates": (
            "import numpy as np\n\n\ndef rewards_from_wins(wins):\n"
            "    odds = np.log(wins.sum(axis=1) / wins.sum(axis=0))\n"
            "    return odds - odds.mean()",
            "own share of wins",
        ),
        "transposed": (
            Edit("counts = wins + wins.T", "wins = wins.T\n    counts = wins + wins.T"),
            "losers get the higher",
        ),
        "not centred": (Edit("- rewards.mean()", "- rewards[0]"), "not centred"),
        "one step": (Edit("range(100)", "range(1)"), "one Newton step"),
        "small gradient steps": (
            Edit("np.linalg.pinv(hessian) @ gradient", "0.001 * gradient"),
            "give back|likelihood|never met",
        ),
        "shrunk": (
            Edit("- wins).sum(axis=1)", "- wins).sum(axis=1) + rewards"),
            "give back",
        ),
        "halved": (Edit("return rewards -", "return 0.5 * rewards -"), "give back"),
    },
    "11.3": {
        "taken for sorted": (Edit("np.argsort(rewards)", "range(k)"), "all subsets"),
        "factorials in floating point": (
            Edit(
                "math.comb(j, n - 1) / math.comb(k, n)",
                "math.comb(j, n - 1) * float(math.factorial(n)) * float(math.factorial(k - n))"
                " / float(math.factorial(k))",
            ),
            "runs without an error",
        ),
        "a thousand draws": (
            "def best_of_n(rewards, gold, n):\n"
            "    rng = np.random.default_rng(0)\n"
            "    draws = [rng.permutation(len(rewards))[:n] for _ in range(1000)]\n"
            "    return float(np.mean([gold[d[np.argmax(rewards[d])]] for d in draws]))",
            "all subsets",
        ),
        "one more than n": (
            Edit("    k = len", "    n = min(n + 1, len(rewards))\n    k = len"),
            "all subsets",
        ),
        "mean of gold for one, best for more": (
            Edit(
                "    k = len",
                "    if n > 1:\n        return float(gold[np.argmax(rewards)])\n    k = len",
            ),
            "all subsets",
        ),
        "weights do not sum to one": (
            Edit("/ math.comb(k, n)", "/ math.comb(k, n - 1)"),
            "all subsets",
        ),
        "the best never counted": (
            Edit("enumerate(np.argsort(rewards))", "enumerate(np.argsort(rewards)[:-1])"),
            "all subsets",
        ),
        "chain of blocks": (
            "def best_of_n(rewards, gold, n):\n"
            "    blocks = [range(i, i + n) for i in range(0, len(rewards) - n + 1, n)]\n"
            "    return float(np.mean([gold[max(b, key=lambda i: rewards[i])] for b in "
            "blocks]))",
            "all subsets",
        ),
        "by gold": (Edit("np.argsort(rewards)", "np.argsort(gold)"), "chose by gold"),
        "reward of the winner": (Edit("gold[i]", "rewards[i]"), "reward of the winner"),
        "with replacement": (
            Edit(
                "math.comb(j, n - 1) / math.comb(k, n)",
                "(((j + 1) / k) ** n - (j / k) ** n)",
            ),
            "with replacement",
        ),
        "worst of n": (Edit("np.argsort(rewards)", "np.argsort(-rewards)"), "worst of n"),
        "mean of the top n": (
            "import numpy as np\n\n\ndef best_of_n(rewards, gold, n):\n"
            "    return float(gold[np.argsort(rewards)[-n:]].mean())",
            "averaged the n best|n = 1",
        ),
        "first n": (
            "import numpy as np\n\n\ndef best_of_n(rewards, gold, n):\n"
            "    return float(gold[np.argmax(rewards[:n])])",
            "first n responses|n = 1",
        ),
        "off by one": (Edit("math.comb(j, n - 1)", "math.comb(j + 1, n - 1)"), "all subsets"),
    },
    "11.4": {
        "bins from 0 to 1": (
            Edit("(2 * (confidence - 0.5) * bins)", "(confidence * bins)"),
            "mean gap|range from 1/2",
        ),
        "confidence 1 lost": (
            Edit(
                "np.minimum((2 * (confidence - 0.5) * bins).astype(int), bins - 1)",
                "(2 * (confidence - 0.5) * bins).astype(int)",
            ),
            "confidence exactly 1",
        ),
        "confidence 1/2 lost": (
            Edit("inside = bin_of == b", "inside = (bin_of == b) & (d != 0)"),
            "equal rewards",
        ),
        "a tie is right": (Edit("right = d > 0", "right = d >= 0"), "tie counts as right"),
        "a tie is half right": (
            Edit("right = d > 0", "right = np.where(d == 0, 0.5, d > 0)"),
            "tie counts as half right",
        ),
        "bins of equal numbers": (
            Edit(
                "np.minimum((2 * (confidence - 0.5) * bins).astype(int), bins - 1)",
                "np.argsort(np.argsort(confidence)) * bins // len(d)",
            ),
            "mean gap",
        ),
        "one bin more": (
            Edit("    d = rewards", "    bins = bins + 1\n    d = rewards"),
            "mean gap|range from 1/2",
        ),
        "ten bins": (
            Edit("    d = rewards", "    bins = 10\n    d = rewards"),
            "mean gap|range from 1/2",
        ),
        "middle of the bin for the confidence": (
            Edit("confidence[inside].mean()", "(0.5 + (b + 0.5) / (2 * bins))"),
            "mean gap",
        ),
        "everybody right": (Edit("right[inside].mean()", "1.0"), "mean gap"),
        "unweighted": (
            Edit("inside.sum() / len(d) * gap", "gap / bins"),
            "count the same",
        ),
        "signed": (
            Edit(
                "abs(confidence[inside].mean() - right[inside].mean())",
                "(confidence[inside].mean() - right[inside].mean())",
            ),
            "opposite sign",
        ),
        "largest": (
            Edit("error += inside.sum() / len(d) * gap", "error = max(error, gap)"),
            "largest gap",
        ),
        "one bin": (
            Edit("for b in range(bins):", "bins = 1\n    for b in range(bins):"),
            "one bin|mean gap",
        ),
        "squared": (Edit("len(d) * gap", "len(d) * gap**2"), "squared"),
        "confidence of the chosen": (Edit("-np.abs(d)", "-d"), "mean gap|chosen answer"),
        "empty bins": (
            Edit("if inside.any():", "if True:"),
            "finite|empty bins|numbers",
        ),
    },
    "11.5": {
        "side guessed from the last column": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = np.where(mask[:, -1].all(), mask.shape[1] - 1, mask.sum(axis=1) - 1)",
            ),
            "on either side",
        ),
        "side guessed from the first row": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "shortest = mask[np.argmin(mask.sum(axis=1))]\n"
                "    last = mask.sum(axis=1) - 1 if shortest[0] else np.full(len(ids), -1)",
            ),
            "either side",
        ),
        "first end token": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = np.argmax((ids == 2) & (mask > 0), axis=1)",
            ),
            "last real token",
        ),
        "last end token": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = ids.shape[1] - 1 - np.argmax((ids == 2)[:, ::-1], axis=1)",
            ),
            "last real token",
        ),
        "largest output": (
            Edit(
                "scores[np.arange(len(ids)), last]",
                "np.where(mask > 0, scores, -np.inf).max(axis=1)",
            ),
            "last real token",
        ),
        "sum": (
            Edit("return scores[np.arange(len(ids)), last]", "return (scores * mask).sum(axis=1)"),
            "added the tokens up",
        ),
        "as long as the first": (
            Edit("scores[np.arange(len(ids)), last]", "scores[:, last[0]]"),
            "last real token",
        ),
        "one token after": (
            Edit("mask.shape[1] - 1 - np", "mask.shape[1] - np"),
            "last real token|IndexError",
        ),
        "unchanged": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = (ids != pad_id).sum(axis=1) - 1",
            ),
            "padding on the left is taken|one token before",
        ),
        "mask, right only": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = mask.sum(axis=1) - 1",
            ),
            "padding on the left is taken",
        ),
        "last that is no pad": (
            Edit("mask[:, ::-1]", "(ids != pad_id)[:, ::-1]"),
            "one token before",
        ),
        "last column": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = np.full(len(ids), -1)",
            ),
            "from the padding",
        ),
        "first token": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "last = np.argmax(mask, axis=1)",
            ),
            "first token",
        ),
        "off by one": (Edit("- 1 - np.argmax", "- 2 - np.argmax"), "one token before"),
        "mean": (
            Edit(
                "return scores[np.arange(len(ids)), last]",
                "return (scores * mask).sum(axis=1) / mask.sum(axis=1)",
            ),
            "averaged",
        ),
        "where the mask falls": (
            Edit(
                "last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)",
                "falls = np.argmax(np.diff(mask, axis=1) < 0, axis=1)\n"
                "    left = (mask[:, 0] == 0) & (mask[:, -1] == 1)\n"
                "    last = np.where(left, mask.shape[1] - 1, falls)",
            ),
            "a text alone",
        ),
    },
}
