"""Wrong answers to the exercises of chapter 17, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "17.1": {
        "counts for shares": (
            "def borda(wins, opponents):\n    return wins @ opponents",
            "not divided",
        ),
        "uniform opponents": (
            Edit("share @ opponents", "share.mean(axis=1)"),
            "count alike",
        ),
        "diagonal one": (
            Edit("np.fill_diagonal(share, 0.5)", "np.fill_diagonal(share, 1.0)"),
            "itself",
        ),
        "diagonal zero": (
            Edit("np.fill_diagonal(share, 0.5)", "np.fill_diagonal(share, 0.0)"),
            "itself is missing",
        ),
        "losses": (
            Edit("total = wins + wins.T", "wins = wins.T\n    total = wins + wins.T"),
            "lose",
        ),
        "pooled": (
            Edit("return share @ opponents", "return wins.sum(axis=1) / total.sum(axis=1)"),
            "pooled",
        ),
        "never asked is lost": (
            Edit("np.maximum(total, 1), 0.5)", "np.maximum(total, 1), 0.0)"),
            "counts as lost",
        ),
        "never asked is won": (
            Edit("np.maximum(total, 1), 0.5)", "np.maximum(total, 1), 1.0)"),
            "counts as won",
        ),
        "never asked is nan": (
            Edit("np.where(total > 0, wins / np.maximum(total, 1), 0.5)", "wins / total"),
            "finite|nan|NaN",
        ),
    },
    "17.2": {
        "wrong tail": (Edit("upto = ", "level = 1 - level\n    upto = "), "upper tail"),
        "lower edge": (Edit("(place + part)", "place"), "lower edge"),
        "upper edge": (Edit("(place + part)", "(place + 1)"), "upper edge"),
        "middle": (Edit("(place + part)", "(place + 0.5)"), "middle of the bin"),
        "bins for utilities": (Edit(" / chances.shape[1]", ""), "does not end at 1"),
        "levels as atoms": (Edit("/ chances.shape[1]", "/ (chances.shape[1] - 1)"), "same width"),
        "level inside": (Edit("(level - below) / chances[row, place]", "level"), "level itself"),
        "mean": (
            "def low_quantile(chances, level):\n"
            "    n = chances.shape[1]\n"
            "    return chances @ ((np.arange(n) + 0.5) / n)",
            "it is the mean",
        ),
        "first bin only": (
            Edit("np.argmax(upto >= level, axis=1)", "np.zeros(len(chances), dtype=int)"),
            "share `level`|finite",
        ),
        "level at most a half": (
            Edit("upto = ", "level = min(level, 0.5)\n    upto = "),
            "high levels",
        ),
        "below forgotten": (Edit("(level - below)", "level"), "share `level`"),
        "empty bins left out": (
            Edit(
                "    return (place + part)",
                "    place = place - ((chances == 0).cumsum(axis=1))[row, place]\n"
                "    return (place + part)",
            ),
            "empty bins at the bottom",
        ),
    },
    "17.3": {
        "no shares": (Edit("logs + np.log(shares)", "logs + 0 * shares"), "shares are missing"),
        "over users": (
            Edit(
                "joint / joint.sum(axis=1, keepdims=True)",
                "np.exp(logs) * shares / (np.exp(logs) * shares).sum(axis=0)",
            ),
            "over users",
        ),
        "not normalised": (
            Edit("return joint / joint.sum(axis=1, keepdims=True)", "return np.exp(logs) * shares"),
            "does not add up",
        ),
        "hard": (
            Edit("return joint / joint.sum(axis=1, keepdims=True)", "return (joint == 1.0) * 1.0"),
            "hard version",
        ),
        "averaged": (
            Edit("joint = logs + ", "joint = logs / np.bincount(users)[:, None] + "),
            "averaged",
        ),
        "columns exchanged": (
            Edit("gap = rewards", "pairs = pairs[:, ::-1]\n    gap = rewards"),
            "exchanged",
        ),
        "shares for each label": (
            Edit("+ np.log(shares)", "+ np.log(shares) * np.bincount(users)[:, None]"),
            "once for each label",
        ),
        "sums of chances": (
            "def e_step(rewards, shares, users, pairs):\n"
            "    gap = rewards[:, pairs[:, 0]] - rewards[:, pairs[:, 1]]\n"
            "    p = 1 / (1 + np.exp(-gap))\n"
            "    total = np.array([np.bincount(users, row) for row in p]).T * shares\n"
            "    return total / total.sum(axis=1, keepdims=True)",
            "added, not multiplied",
        ),
        "underflow": (
            "def e_step(rewards, shares, users, pairs):\n"
            "    gap = rewards[:, pairs[:, 0]] - rewards[:, pairs[:, 1]]\n"
            "    p = 1 / (1 + np.exp(-gap))\n"
            "    joint = np.tile(shares, (users.max() + 1, 1))\n"
            "    np.multiply.at(joint, users, p.T)\n"
            "    with np.errstate(all='ignore'):\n"
            "        return joint / joint.sum(axis=1, keepdims=True)",
            "underflow|finite|nan|NaN",
        ),
        "every type has users": (
            Edit("np.log(shares)", "np.log(np.maximum(shares, 0.01))"),
            "share 0|given all labels",
        ),
        "first label only": (
            Edit(
                "logs = np.array([np.bincount(users, row) for row in log_p]).T",
                "first = [list(users).index(u) for u in range(users.max() + 1)]\n"
                "    logs = log_p[:, first].T",
            ),
            "given all labels",
        ),
        "users in a row": (
            Edit(
                "np.bincount(users, row)",
                "np.bincount(np.sort(users), row)",
            ),
            "given all labels",
        ),
    },
    "17.4": {
        "average": (
            Edit("return tilted((low + high) / 2)", "return tilted(0.5)"),
            "that is the average",
        ),
        "first group": (
            Edit("return tilted((low + high) / 2)", "return tilted(1.0)"),
            "first group",
        ),
        "second group": (
            Edit("return tilted((low + high) / 2)", "return tilted(0.0)"),
            "second group",
        ),
        "price multiplies": (Edit(" / beta\n", " * beta\n"), "price multiplies"),
        "no reference": (
            Edit("scores = log_reference + ", "scores = "),
            "reference is missing",
        ),
        "search upside down": (
            Edit("if first < second", "if first > second"),
            "group counts|higher minimum",
        ),
        "never a corner": (
            Edit("low, high = 0.0, 1.0", "low, high = 0.05, 0.95"),
            "better off|higher minimum",
        ),
        "corner of one side only": (
            Edit("low, high = 0.0, 1.0", "low, high = 0.0, 0.9"),
            "better off|higher minimum",
        ),
        "overflow": (
            Edit("np.exp(scores - scores.max())", "np.exp(scores)"),
            "overflow|finite|better off|sum|add",
        ),
        "logarithms": (
            Edit("return tilted((low + high) / 2)", "return np.log(tilted((low + high) / 2))"),
            "policy",
        ),
        "three halvings": (Edit("range(60)", "range(3)"), "higher minimum"),
        "pure response": (
            "def maxmin_policy(utilities, log_reference, beta):\n"
            "    return np.eye(len(log_reference))[utilities.min(axis=0).argmax()]",
            "higher minimum",
        ),
        "not tilted at a small price": (
            Edit(
                "    low, high = 0.0, 1.0",
                "    if 1 / beta > 500:\n"
                "        return np.exp(log_reference) / np.exp(log_reference).sum()\n"
                "    low, high = 0.0, 1.0",
            ),
            "has no less",
        ),
    },
    "17.5": {
        "largest entry": (
            Edit(
                "return first if agrees > 0.5 else -first",
                "return first * np.sign(first[np.abs(first).argmax()])",
            ),
            "other one",
        ),
        "everybody's labels": (
            Edit("(mine @ first > 0)", "(gaps @ first > 0)"),
            "other one",
        ),
        "sizes count": (
            Edit("agrees = (mine @ first > 0).mean()", "agrees = 0.5 + (mine @ first).sum()"),
            "other one",
        ),
        "against the labels": (Edit("agrees > 0.5", "agrees < 0.5"), "other one"),
        "not centred": (Edit("gaps - gaps.mean(axis=0)", "gaps"), "not subtracted"),
        "last component": (Edit("vectors[:, -1]", "vectors[:, 0]"), "most of this user's"),
        "row for column": (Edit("vectors[:, -1]", "vectors[-1]"), "most of this user's"),
        "not of length one": (
            Edit("first = vectors[:, -1]", "first = 2 * vectors[:, -1]"),
            "has the length 1",
        ),
        "the user's own component": (
            Edit("centred = gaps", "gaps = mine\n    centred = gaps"),
            "most of this user's",
        ),
        "as it comes": (
            Edit("return first if agrees > 0.5 else -first", "return first"),
            "other one",
        ),
        "very clear comparisons decide": (
            Edit(
                "    agrees = (mine @ first > 0).mean()",
                "    along = mine @ first\n"
                "    clear = np.abs(along) > 40\n"
                "    agrees = ((along[clear] if clear.any() else along) > 0).mean()",
            ),
            "only the signs",
        ),
    },
}
