"""Wrong answers to the exercises of chapter 9, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "09.1": {
        "gradient overflows": (
            Edit(
                "surprise = np.exp(-np.logaddexp(0.0, z)) / beta",
                "surprise = (1 - np.exp(z) / (1 + np.exp(z))) / beta",
            ),
            "finite|overflow",
        ),
        "differences cut at 30": (
            Edit("    loss =", "    z = z.clip(-30.0, 30.0)\n    loss ="),
            "foregone conclusion",
        ),
        "items without a row left out": (
            Edit("np.zeros(len(rewards))", "np.zeros(int(pairs.max()) + 1)"),
            "shape",
        ),
        "each pair counts once": (
            Edit("winner, loser = pairs.T", "winner, loser = np.unique(pairs, axis=0).T"),
            "of all comparisons",
        ),
        "temperature at most one": (
            Edit("winner, loser", "beta = min(beta, 1.0)\n    winner, loser"),
            "beta above 1",
        ),
        "mean in the gradient": (
            Edit("return loss, gradient", "return loss, gradient / len(pairs)"),
            "mean over comparisons",
        ),
        "winners forgotten": (
            Edit("np.add.at(gradient, winner, -surprise)", "pass"),
            "only the losers",
        ),
        "chance of the choice, not the surprise": (
            Edit("np.exp(-np.logaddexp(0.0, z))", "np.exp(-np.logaddexp(0.0, -z))"),
            "gradient is that of the loss",
        ),
        "last comparison forgotten": (Edit("pairs.T", "pairs[:-1].T"), "of all comparisons"),
        "no minus": (
            Edit("np.logaddexp(0.0, -z).sum()", "-np.logaddexp(0.0, -z).sum()"),
            "min",
        ),
        "columns exchanged": (
            Edit("winner, loser = pairs.T", "loser, winner = pairs.T"),
            "columns are exchanged",
        ),
        "no temperature": (Edit("/ beta\n    loss", "\n    loss"), "temperature is missing"),
        "beta multiplies": (Edit("/ beta\n    loss", "* beta\n    loss"), "beta multiplies"),
        "mean": (Edit("-z).sum()", "-z).mean()"), "the mean over comparisons"),
        "no logarithm": (
            Edit("np.logaddexp(0.0, -z).sum()", "-(1 / (1 + np.exp(-z))).sum()"),
            "logarithm is missing",
        ),
        "gradient of the likelihood": (
            Edit("return loss, gradient", "return loss, -gradient"),
            "of the log-likelihood",
        ),
        "lost rows": (
            (
                Edit("np.add.at(gradient, winner, -surprise)", "gradient[winner] -= surprise"),
                Edit("np.add.at(gradient, loser, surprise)", "gradient[loser] += surprise"),
            ),
            "last row only",
        ),
        "no inner factor": (
            Edit("np.exp(-np.logaddexp(0.0, z)) / beta", "np.exp(-np.logaddexp(0.0, z))"),
            "1 / beta is missing",
        ),
        "losers forgotten": (
            Edit("np.add.at(gradient, loser, surprise)", "pass"),
            "only the winners",
        ),
        "overflow": (
            "def bradley_terry_loss(rewards, pairs, beta):\n"
            "    winner, loser = pairs.T\n"
            "    z = (rewards[winner] - rewards[loser]) / beta\n"
            "    gradient = np.zeros(len(rewards))\n"
            "    with np.errstate(all='ignore'):\n"
            "        p = 1 / (1 + np.exp(-z))\n"
            "        np.add.at(gradient, winner, -(1 - p) / beta)\n"
            "        np.add.at(gradient, loser, (1 - p) / beta)\n"
            "        return -np.log(p).sum(), gradient",
            "finite|overflow",
        ),
    },
    "09.2": {
        "never lost only": (
            "def diagnose(pairs, n_items):\n"
            "    pairs = np.asarray(pairs)\n"
            "    group = np.arange(n_items)\n"
            "    for _ in range(n_items):\n"
            "        for a, b in pairs:\n"
            "            group[group == group[b]] = group[a]\n"
            "    if len(set(group)) > 1:\n"
            "        return 'islands'\n"
            "    return 'finite' if set(pairs[:, 1]) == set(range(n_items)) else 'infinite'",
            "never won|one group never lost",
        ),
        "islands are single items only": (
            Edit(
                "if reach(wins + losses, first) != everybody",
                "if {i for w in wins for i in w} != everybody",
            ),
            "two groups never met|groups never met",
        ),
        "few rows are islands": (
            Edit("if reach(wins + losses, first) != everybody", "if len(wins) < n_items - 1"),
            "never compared|never met",
        ),
        "two steps of wins": (
            Edit(
                "if reach(wins, first) != everybody or reach(losses, first) != everybody",
                "two = {(a, c) for a, b in wins for d, c in wins if b == d} | set(wins)\n"
                "    if len({a for a, _ in two if a != _}) < n_items "
                "or any(len({b for a, b in two if a == i} - {i}) < n_items - 1 "
                "for i in everybody)",
            ),
            "a chain of wins",
        ),
        "losers only": (
            Edit("reach(wins, first) != everybody or ", ""),
            "never lost|never won|one group",
        ),
        "every island looked at by itself": (
            Edit('return "islands"', "everybody = reach(wins + losses, first)"),
            "never met|never compared",
        ),
        "as many items as the largest number says": (
            Edit("set(range(n_items))", "set(range(int(np.max(pairs)) + 1))"),
            "never compared",
        ),
        "item 0 overlooked": (
            Edit(
                "if reach(wins + losses, first) != everybody",
                "if not reach(wins + losses, first) >= everybody - {0}",
            ),
            "never compared",
        ),
        "always finite": (
            "def diagnose(pairs, n_items):\n    return 'finite'",
            "two groups never met",
        ),
        "islands only": (
            Edit('return "infinite"', 'return "finite"'),
            "never lost",
        ),
        "missing items overlooked": (
            Edit("everybody = set(range(n_items))", "everybody = set(np.ravel(pairs).tolist())"),
            "never compared",
        ),
        "direction forgotten": (
            Edit(
                "reach(wins, first) != everybody or reach(losses, first) != everybody",
                "reach(wins + losses, first) != everybody",
            ),
            "never lost|never won",
        ),
        "one way only": (
            Edit(" or reach(losses, first) != everybody", ""),
            "never lost|never won",
        ),
        "wins and losses of each item only": (
            "def diagnose(pairs, n_items):\n"
            "    pairs = np.asarray(pairs)\n"
            "    group = np.arange(n_items)\n"
            "    for _ in range(n_items):\n"
            "        for a, b in pairs:\n"
            "            group[a] = group[b] = min(group[a], group[b])\n"
            "    if len(set(group.tolist())) > 1:\n"
            "        return 'islands'\n"
            "    won = set(pairs[:, 0].tolist())\n"
            "    lost = set(pairs[:, 1].tolist())\n"
            "    return 'finite' if len(won) == len(lost) == n_items else 'infinite'",
            "one group never lost",
        ),
        "infinite before islands": (
            Edit(
                'if reach(wins + losses, first) != everybody:\n        return "islands"\n    ',
                "",
            ),
            "two groups never met",
        ),
        "beaten both ways asked of each pair": (
            "def diagnose(pairs, n_items):\n"
            "    rows = {(int(a), int(b)) for a, b in pairs}\n"
            "    met = {i for row in rows for i in row}\n"
            "    if len(met) < n_items:\n"
            "        return 'islands'\n"
            "    return 'finite' if all((b, a) in rows for a, b in rows) else 'infinite'",
            "a chain of wins|two groups",
        ),
    },
    "09.3": {
        "temperature ignored": (
            (Edit("d @ weights / beta", "d @ weights"), Edit(" / beta**2", "")),
            "ignored everywhere",
        ),
        "sum for difference": (
            Edit("features[i] - features[j]", "features[i] + features[j]"),
            "root of c",
        ),
        "features taken for independent": (
            Edit(
                "c = features[i]",
                "information = np.diag(np.diag(information))\n    c = features[i]",
            ),
            "apart from the diagonal",
        ),
        "a penalty inside": (
            Edit(
                "c = features[i]",
                "information = information + np.eye(len(information))\n    c = features[i]",
            ),
            "root of c",
        ),
        "only comparisons of the two": (
            Edit(
                "weight = p * (1 - p) / beta**2",
                "weight = p * (1 - p) / beta**2 * "
                "(1e-6 + ((pairs == i) | (pairs == j)).any(axis=1))",
            ),
            "root of c",
        ),
        "winner's features": (
            Edit("- features[pairs[:, 1]]", ""),
            "root of c",
        ),
        "each pair once": (
            Edit(
                "d = features[pairs",
                "pairs = np.unique(np.sort(pairs, axis=1), axis=0)\n    d = features[pairs",
            ),
            "root of c",
        ),
        "a 95 % interval": (Edit("return np.sqrt(", "return 1.96 * np.sqrt("), "root of c"),
        "survey's slip": (
            Edit("features[pairs[:, 1]]", "features[pairs[:, 0]]"),
            "fails|singular|error",
        ),
        "not inverted": (
            Edit("np.linalg.solve(information, c)", "information @ c"),
            "inverted",
        ),
        "variance": (Edit("np.sqrt(c @", "(c @"), "root is missing"),
        "p only": (Edit("p * (1 - p)", "p"), "counts p, not"),
        "one minus p only": (Edit("p * (1 - p)", "(1 - p)"), r"counts \(1 - p\)"),
        "equal weights": (Edit("p * (1 - p)", "(0.25 + 0 * p)"), "counts the same"),
        "no beta squared": (Edit(" / beta**2", ""), "missing in front"),
        "beta once": (Edit("/ beta**2", "/ beta"), "once, not twice"),
        "mean": (
            Edit("d.T @ (weight[:, None] * d)", "d.T @ (weight[:, None] * d) / len(d)"),
            "mean over pairs",
        ),
        "one item": (Edit("c = features[i] - features[j]", "c = features[i]"), "first of the"),
        "temperature inside": (
            Edit("d @ weights / beta", "d @ weights"),
            "inside sigma",
        ),
    },
    "09.4": {
        "all as long as the first": (
            Edit(
                "    losses = [",
                "    n = len(next(iter(walks))[1])\n"
                "    returns = [\n"
                "        discount ** np.arange(len(actions[:n])) @ reward[states[:-1]][:n]\n"
                "        for states, actions in walks\n"
                "    ]\n"
                "    losses = [",
            ),
            "return of the better",
        ),
        "pairs in the order of the list only": (
            Edit("for j in range(len(ranks))", "for j in range(i)"),
            "return of the better",
        ),
        "neighbours only": (
            Edit(
                "if ranks[i] > ranks[j]",
                "if ranks[i] > ranks[j] and not any(ranks[j] < r < ranks[i] for r in ranks)",
            ),
            "neighbours in rank",
        ),
        "best against the others only": (
            Edit("if ranks[i] > ranks[j]", "if ranks[i] > ranks[j] and ranks[i] == max(ranks)"),
            "return of the better",
        ),
        "weighed by the difference of ranks": (
            Edit("np.logaddexp(0.0,", "(ranks[i] - ranks[j]) * np.logaddexp(0.0,"),
            "return of the better",
        ),
        "mean over all ordered pairs": (
            Edit("np.mean(losses)", "np.sum(losses) / len(ranks) ** 2"),
            "return of the better",
        ),
        "mean over walks": (
            Edit("np.mean(losses)", "np.sum(losses) / len(ranks)"),
            "return of the better",
        ),
        "undiscounted by length": (
            Edit(
                "discount ** np.arange(len(actions)) @",
                "discount ** len(actions) * np.ones(len(actions)) @",
            ),
            "return of the better",
        ),
        "share of wrong pairs": (
            Edit("np.logaddexp(0.0, returns[j] - returns[i])", "float(returns[j] > returns[i])"),
            "return of the better",
        ),
        "log forgotten": (
            Edit(
                "np.logaddexp(0.0, returns[j] - returns[i])",
                "-1 / (1 + np.exp(returns[j] - returns[i]))",
            ),
            "return of the better",
        ),
        "last state": (
            Edit("reward[states[:-1]]", "reward[states]"),
            "runs without an error",
        ),
        "last state counted": (
            (
                Edit("discount ** np.arange(len(actions))", "discount ** np.arange(len(states))"),
                Edit("reward[states[:-1]]", "reward[states]"),
            ),
            "last state is counted",
        ),
        "next states": (Edit("states[:-1]", "states[1:]"), "next states"),
        "late discount": (
            Edit("np.arange(len(actions))", "(1 + np.arange(len(actions)))"),
            "too high",
        ),
        "no discount": (Edit("discount ** np", "1.0 ** np"), "discount is missing"),
        "mean return": (
            Edit("@ reward[states[:-1]]", "@ reward[states[:-1]] / len(actions)"),
            "means over steps",
        ),
        "ties": (
            Edit("if ranks[i] > ranks[j]", "if i != j and ranks[i] >= ranks[j]"),
            "equal rank",
        ),
        "upside down": (Edit("ranks[i] > ranks[j]", "ranks[i] < ranks[j]"), "low ranks"),
        "sum": (Edit("np.mean(", "np.sum("), "sum over pairs"),
    },
    "09.5": {
        "a tie for nobody on the right": (
            Edit("wins[b, a] += 1 - label", "wins[b, a] += label == 0"),
            "tie as half a win",
        ),
        "a tie weighs a quarter": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += label * (0.5 if label == 0.5 else 1)"),
                Edit(
                    "wins[b, a] += 1 - label",
                    "wins[b, a] += (1 - label) * (0.5 if label == 0.5 else 1)",
                ),
            ),
            "tie as half a win",
        ),
        "three rounds": (Edit("range(2000)", "range(3)"), "tie as half a win"),
        "shares of wins without the opponents": (
            Edit(
                "    for _ in range(2000):\n"
                "        s = wins.sum(axis=1) / (n / (s[:, None] + s[None, :])).sum(axis=1)",
                "    for _ in range(1):\n        s = wins.sum(axis=1) / wins.sum(axis=0)",
            ),
            "tie as half a win",
        ),
        "item 0 is zero": (
            Edit("np.log(s) - np.log(s).mean()", "np.log(s) - np.log(s[0])"),
            "item 0",
        ),
        "largest is zero": (
            Edit("np.log(s) - np.log(s).mean()", "np.log(s) - np.log(s).max()"),
            "add up to 0",
        ),
        "positions averaged out": (
            Edit("    n, s =", "    wins = (wins + wins.T[::-1, ::-1]) / 2\n    n, s ="),
            "tie as half a win",
        ),
        "the last label forgotten": (
            Edit("zip(left, right, labels, strict=True)", "list(zip(left, right, labels))[:-1]"),
            "tie as half a win",
        ),
        "each pair counts once": (
            Edit("    n, s =", "    wins = np.sign(wins)\n    n, s ="),
            "tie as half a win",
        ),
        "unchanged": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += label >= 0.5"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label < 0.5"),
            ),
            "item on the left",
        ),
        "bug turned round": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += label > 0.5"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label <= 0.5"),
            ),
            "item on the right",
        ),
        "ties dropped": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += label == 1"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label == 0"),
            ),
            "thrown away",
        ),
        "both win": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += label >= 0.5"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label <= 0.5"),
            ),
            "whole win for both",
        ),
        "labels turned": (
            (
                Edit("wins[a, b] += label", "wins[a, b] += 1 - label"),
                Edit("wins[b, a] += 1 - label", "wins[b, a] += label"),
            ),
            "turned round",
        ),
        "no gauge": (
            Edit("np.log(s) - np.log(s).mean()", "1.0 + np.log(s) - np.log(s).mean()"),
            "add",
        ),
        "strengths, not rewards": (
            Edit("return np.log(s) - np.log(s).mean()", "return s"),
            "add",
        ),
    },
}
