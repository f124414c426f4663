"""Wrong answers to the lab of chapter 21, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_COST = "return chance, length / chance"
_ERROR = "np.abs(rows @ potential - wanted).max()"
_FIT = "potential = np.linalg.lstsq(rows, wanted, rcond=None)[0]"
_LARGEST = "largest = np.flatnonzero(q[state] == q[state].max())"
_AFTER = "after = int(np.searchsorted(chances, rng.random() * chances[-1], side="
_BONUS = 'settings["scale"] / np.sqrt(visits[state, action])'
_AGAIN = 'if ends[after] or clock == settings["horizon"]:'
_RAISED = "np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))"
_SIDES = "np.where(corrected < level, np.sign(more - fewer), 0)"
_P = "binomtest(a, a + b).pvalue if a + b else 1.0"
_SHARE = "(found[:, None] <= steps).mean(axis=0)"
_PRICE = "price = length * (length - looked) / looked / (length - 1)"
_LATER = "range(t + 1, length + 1)"
_PAID = "float(cell[path[t + 1]] == goal)"
_ROW = "rows.append((path[t], chosen[t], path[t + 1], goal))"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "21L.1": {
        "ends pay": (Edit("here[paid > 0].sum()", "here[ends].sum()"), "each end counts"),
        "expected reward": (
            Edit("chance += here[paid > 0].sum()", "chance += here @ paid"),
            "expected reward",
        ),
        "through the ends": (Edit("        here[ends] = 0.0\n", ""), "behind their end"),
        "through the pits": (
            Edit("here[ends] = 0.0", "here[paid > 0] = 0.0"),
            "arrives at a state that pays",
        ),
        "a step too many": (Edit("range(horizon)", "range(horizon + 1)"), "one step too many"),
        "a step too few": (Edit("range(horizon)", "range(horizon - 1)"), "one step too few"),
        "no horizon": (Edit("range(horizon)", "range(1000)"), "within the horizon"),
        "one action": (Edit("moves.mean(axis=1)", "moves[:, 0]"), "one action"),
        "full episodes": (Edit(_COST, "return chance, horizon / chance"), "long as the horizon"),
        "episodes": (Edit(_COST, "return chance, 1 / chance"), "number of episodes"),
        "one episode": (Edit(_COST, "return chance, length"), "length of one episode"),
        "the paid step is not counted": (
            (
                Edit("        length += here.sum()\n", ""),
                Edit(
                    "        here[ends] = 0.0\n",
                    "        here[ends] = 0.0\n        length += here.sum()\n",
                ),
            ),
            "expected steps until",
        ),
        "the last is left out": (
            (
                Edit("chance = length = 0.0", "chance = length = last = 0.0"),
                Edit("for _ in range(horizon)", "for clock in range(horizon)"),
                Edit(
                    "        chance += here[paid > 0].sum()\n",
                    "        chance += here[paid > 0].sum()\n"
                    "        last += (clock + 1) * here[paid > 0].sum()\n",
                ),
                Edit(_COST, "return chance, (length - last) / chance"),
            ),
            "last episode is left out",
        ),
        "exchanged": (Edit(_COST, "return length / chance, chance"), "first result|the chance"),
        "simulated": (
            "import numpy as np\n\n\n"
            "def search_cost(moves, ends, paid, start, horizon):\n"
            "    rng, hits, steps = np.random.default_rng(0), 0, 0\n"
            "    for _ in range(300):\n"
            "        state = start\n"
            "        for _ in range(horizon):\n"
            "            row = moves[state].mean(axis=0)\n"
            "            state, steps = int(rng.choice(len(row), p=row / row.sum())), steps + 1\n"
            "            if ends[state]:\n"
            "                hits += paid[state] > 0\n"
            "                break\n"
            "    return hits / 300, steps / max(hits, 1)\n",
            "the chance",
        ),
        "from state 0": (Edit("here[start] = 1.0", "here[0] = 1.0"), "the chance"),
        "borrowed": (
            Edit("    step = ", "    import irlbook.rl.exploration\n    step = "),
            "irlbook.rl",
        ),
    },
    "21L.2": {
        "ends are free": (
            Edit("    rows[:, ends] = 0.0", "    rows[:, ends] += 0.0"),
            "any potential",
        ),
        "no gamma": (
            Edit("(number, after), discount)", "(number, after), 1.0)"),
            "gamma is missing",
        ),
        "sign": (
            Edit("return potential,", "return -potential,"),
            "sign is turned",
        ),
        "impossible moves": (
            Edit("np.nonzero(moves * ~ends", "np.nonzero((moves + 1) * ~ends"),
            "impossible moves",
        ),
        "moves from ends": (
            Edit("np.nonzero(moves * ~ends[:, None, None])", "np.nonzero(moves)"),
            "begin at an end",
        ),
        "weighted": (
            Edit(
                _FIT,
                "w = np.sqrt(moves[state, action, after])\n"
                "    potential = np.linalg.lstsq(rows * w[:, None], wanted * w, rcond=None)[0]",
            ),
            "weighted by their chances",
        ),
        "moves to itself overwritten": (
            Edit("np.add.at(rows, (number, state), -1.0)", "rows[number, state] = -1.0"),
            "fits the possible moves",
        ),
        "mean error": (
            Edit(_ERROR, "np.abs(rows @ potential - wanted).mean()"),
            "mean error",
        ),
        "root mean square": (
            Edit(_ERROR, "np.sqrt(((rows @ potential - wanted) ** 2).mean())"),
            "root mean square",
        ),
        "sum of squares": (
            Edit(_ERROR, "((rows @ potential - wanted) ** 2).sum()"),
            "sum of squares",
        ),
        "signed error": (Edit(_ERROR, "(rows @ potential - wanted).max()"), "one direction|other"),
        "signed the other way": (
            Edit(_ERROR, "(wanted - rows @ potential).max()"),
            "one direction|other",
        ),
        "error everywhere": (
            Edit(
                _ERROR,
                "np.abs(discount * potential - potential[:, None, None] - extra)[~ends].max()",
            ),
            "impossible moves",
        ),
        "the first move of each state": (
            Edit(
                "    rows, number =",
                "    state, one = np.unique(state, return_index=True)\n"
                "    action, after = action[one], after[one]\n    rows, number =",
            ),
            "fits the possible moves|largest absolute",
        ),
        "yes or no": (
            Edit(_ERROR, "float(np.abs(rows @ potential - wanted).max() > 1e-9)"),
            "largest absolute error",
        ),
        "borrowed": (
            Edit("    state, action,", "    import irlbook.irl.shaping\n    state, action,"),
            "irlbook.irl",
        ),
    },
    "21L.3": {
        "first of the largest": (
            Edit("largest[rng.integers(len(largest))]", "largest[0]"),
            "equally likely",
        ),
        "a random action now and then": (
            Edit(
                _LARGEST,
                _LARGEST + "\n        if rng.random() < 0.2:\n"
                "            largest = np.arange(q.shape[1])",
            ),
            "the largest Q of its state",
        ),
        "the smallest": (Edit("== q[state].max())", "== q[state].min())"), "the largest Q of its"),
        "visit not counted": (
            Edit(_BONUS, 'settings["scale"] / np.sqrt(max(visits[state, action] - 1, 1))'),
            "present visit is not counted",
        ),
        "a visit too many": (
            Edit(_BONUS, 'settings["scale"] / np.sqrt(visits[state, action] + 1)'),
            "one visit too many",
        ),
        "visits of the state": (
            Edit(_BONUS, 'settings["scale"] / np.sqrt(visits[state].sum())'),
            "those of the pair",
        ),
        "N anew": (
            Edit(
                "            state, clock = start, 0\n",
                "            state, clock = start, 0\n            visits[:] = 0\n",
            ),
            "anew in each episode",
        ),
        "from state 0": (
            Edit("    state, clock = start, 0\n    while", "    state, clock = 0, 0\n    while"),
            "a new episode begins",
        ),
        "back to state 0": (
            Edit("            state, clock = start, 0\n", "            state, clock = 0, 0\n"),
            "a new episode begins",
        ),
        "no root": (
            Edit("np.sqrt(visits[state, action])", "visits[state, action]"),
            "the update makes",
        ),
        "no bonus": (Edit("target += " + _BONUS, "target += 0.0"), "bonus is missing"),
        "no extra": (Edit(" + extra[state, action, after]", ""), "extra reward is missing"),
        "no payment": (Edit("paid[after] + extra", "0.0 + extra"), "paid for arriving is missing"),
        "no gamma": (Edit('settings["discount"] * q', "q"), "gamma is missing"),
        "no alpha": (Edit('settings["alpha"] * (target', "(target"), "alpha is missing"),
        "mean of the row": (Edit("* q[after].max()", "* q[after].mean()"), "the mean of the next"),
        "through the ends": (
            Edit("if not ends[after]:", "if True:"),
            "value of an end is added",
        ),
        "the clock is an end": (
            Edit(
                "if not ends[after]:",
                'if not ends[after] and clock + 1 < settings["horizon"]:',
            ),
            "clock cuts counts as an end",
        ),
        "no clock": (Edit(_AGAIN, "if ends[after]:"), "a new episode begins"),
        "no end": (
            Edit(_AGAIN, 'if clock == settings["horizon"]:'),
            "a new episode begins",
        ),
        "clock not reset": (
            Edit(
                "            state, clock = start, 0\n",
                '            state, clock = start, clock % settings["horizon"]\n',
            ),
            "a new episode begins",
        ),
        "goes on when paid": (
            Edit("        if paid[after] > 0:\n            break\n", ""),
            "first step that is paid",
        ),
        "stops at any end": (Edit("if paid[after] > 0:", "if ends[after]:"), "goes on until"),
        "a step too few": (
            Edit('< settings["limit"]', '< settings["limit"] - 1'),
            "goes on until",
        ),
        "a step too many": (
            Edit('< settings["limit"]', '<= settings["limit"]'),
            "goes on until|no more",
        ),
        "paid step not recorded": (
            (
                Edit("        steps.append((state, action, after))\n", ""),
                Edit(
                    "            break\n",
                    "            break\n        steps.append((state, action, after))\n",
                ),
            ),
            "paid step is|steps are recorded",
        ),
        "paid step not learned": (
            (
                Edit(
                    '        q[state, action] += settings["alpha"] * (target - q[state, action])\n',
                    "",
                ),
                Edit(
                    "            break\n",
                    "            break\n"
                    '        q[state, action] += settings["alpha"] * (target - q[state, action])\n',
                ),
            ),
            "the update makes",
        ),
        "table of zeros": (
            Edit("np.array(initial, dtype=float)", "np.zeros(np.shape(initial))"),
            "the update makes|first table",
        ),
        "uniform moves": (
            Edit(
                _AFTER,
                "after = int(np.searchsorted(np.cumsum(chances * 0 + (np.diff(chances, "
                "prepend=0) > 0)), rng.random() * (np.diff(chances, prepend=0) > 0).sum(), side=",
            ),
            "chances of `moves`",
        ),
        "any state": (
            Edit(_AFTER + '"right"))', "after = int(rng.integers(len(ends)))"),
            "possible move",
        ),
        "no seed": (Edit("default_rng(seed)", "default_rng()"), "same seed"),
        "always the same seed": (Edit("default_rng(seed)", "default_rng(0)"), "another seed"),
        "borrowed": (
            Edit("    rng, cumulated", "    import irlbook.rl.exploration\n    rng, cumulated"),
            "irlbook.rl",
        ),
        "steps alone": (Edit("return np.array(steps), q", "return np.array(steps)"), "2 values"),
        "action behind the next state": (
            Edit("steps.append((state, action, after))", "steps.append((state, after, action))"),
            "each row is a state",
        ),
    },
    "21L.4": {
        "no correction": (Edit(_RAISED, "p[order]"), "nothing is corrected"),
        "Bonferroni": (Edit(_RAISED, "p[order] * len(p)"), "Bonferroni"),
        "not raised": (
            Edit(_RAISED, "p[order] * np.arange(len(p), 0, -1)"),
            "none is raised",
        ),
        "wrong order of factors": (
            Edit("np.arange(len(p), 0, -1)", "np.arange(1, len(p) + 1)"),
            "corrected by Holm",
        ),
        "sorted": (Edit("corrected[order] =", "corrected[:] ="), "sorted order"),
        "one-sided": (
            Edit("binomtest(a, a + b)", 'binomtest(a, a + b, alternative="greater")'),
            "one-sided",
        ),
        "the other side": (
            Edit("binomtest(a, a + b)", 'binomtest(a, a + b, alternative="less")'),
            "one-sided",
        ),
        "ties are counted": (
            Edit(_P, "binomtest(a, len(first[pairs[0][0]])).pvalue"),
            "say nothing are counted",
        ),
        "ties go to the second": (
            Edit("(first[one] < first[other])", "(first[one] <= first[other])"),
            "two-sided sign tests",
        ),
        "the unlucky are left out": (
            (
                Edit(
                    "(first[one] > first[other])",
                    "(np.where(np.isfinite(first[other]), "
                    "np.where(np.isfinite(first[one]), first[one], 0), np.inf) > first[other])",
                ),
                Edit(
                    "(first[one] < first[other])",
                    "(np.where(np.isfinite(first[other]), first[one], np.inf) < first[other])",
                ),
            ),
            "never found it are left out",
        ),
        "nothing seen is a proof": (
            Edit(_P, "binomtest(a, a + b).pvalue if a + b else 0.0"),
            "two-sided sign tests",
        ),
        "above 1": (Edit("np.minimum(corrected, 1.0)", "corrected"), "above 1"),
        "uncorrected verdict": (
            Edit("corrected < level", "p < level"),
            "corrected p-value is below",
        ),
        "a level of 0.05": (Edit("corrected < level", "corrected < 0.05"), "below all p-values"),
        "other direction": (Edit("np.sign(more - fewer)", "np.sign(fewer - more)"), "1 or -1"),
        "no direction": (Edit("np.sign(more - fewer)", "1"), "1 or -1"),
        "always a verdict": (Edit(_SIDES, "np.sign(more - fewer)"), "below the level"),
        "t-test": (
            "import numpy as np\nfrom scipy.stats import ttest_rel\n\n\n"
            "def verdicts(first, pairs, level):\n"
            "    x = {name: np.minimum(v, 4000) for name, v in first.items()}\n"
            "    p = [ttest_rel(x[a], x[b]).pvalue if a != b else 1.0 for a, b in pairs]\n"
            "    p = np.minimum(np.array(p) * len(p), 1)\n"
            "    return p, np.where(p < level, 1, 0)\n",
            "sign tests",
        ),
        "borrowed": (
            Edit("    more = ", "    import irlbook.claims\n    more = "),
            "irlbook.claims",
        ),
    },
    "21L.5": {
        "before": (Edit(_SHARE, _SHARE.replace("<=", "<")), "not those at it"),
        "finite only": (
            Edit(_SHARE, "(found[np.isfinite(found)][:, None] <= steps).mean(axis=0)"),
            "never found it are left out",
        ),
        "counts": (Edit(_SHARE, "(found[:, None] <= steps).sum(axis=0)"), "not their share"),
        "still looking": (Edit(_SHARE, "(found[:, None] > steps).mean(axis=0)"), "still looking"),
        "by number": (
            Edit("ax.plot(steps, (found", "ax.plot(np.arange(len(steps)), (found"),
            "share",
        ),
        "no chance": (
            Edit('    ax.plot(steps, chance, "--", color="0.4", label="chance, exactly")\n', ""),
            "curve of chance",
        ),
        "chance without a name": (Edit(', label="chance, exactly"', ""), "legend"),
        "chance by another name": (Edit('label="chance, exactly"', 'label="luck"'), "chance"),
        "no legend": (Edit("    ax.legend(fontsize=8)\n", ""), "legend"),
        "other names": (Edit("label=name", 'label=name + "!"'), "keep their names"),
        "one name": (Edit("label=name", 'label="learner"'), "legend"),
        "linear": (Edit('xscale="log", ', ""), "logarithmic"),
        "no steps": (Edit("steps in the world", "time"), "steps and the share"),
        "no share": (Edit("share of seeds that found the reward", "found"), "steps and the share"),
        "borrowed": (
            Edit("    fig, ax = ", "    import irlbook.claims\n    fig, ax = "),
            "irlbook.claims",
        ),
    },
    "21L.6": {
        "no second term": (
            Edit("            square += price", "            square += 0 * price"),
            "second term is missing",
        ),
        "population variance": (Edit("/ (length - 1)", "/ length"), "by T, and not"),
        "no T": (Edit(_PRICE, "price = (length - looked) / looked / (length - 1)"), "factor T"),
        "K is not cut": (
            (
                Edit("looked = min(subset, length)", "looked = subset"),
                Edit("if length > looked", "if length > 1"),
            ),
            "minimise the summed loss",
        ),
        "once in an episode": (
            Edit(
                "np.bincount(row[row >= 0], minlength=n_pairs)",
                "np.minimum(1, np.bincount(row[row >= 0], minlength=n_pairs))",
            ),
            "counts once",
        ),
        "padding": (
            Edit(
                "np.bincount(row[row >= 0], minlength=n_pairs)",
                "np.bincount(row % n_pairs, minlength=n_pairs)",
            ),
            "padding counts",
        ),
        "an average": (
            (
                Edit(
                    "square = counts.T @ counts",
                    "mean = counts / counts.sum(axis=1, keepdims=True)\n    square = mean.T @ mean",
                ),
                Edit("counts.T @ totals", "mean.T @ totals"),
            ),
            "average over the steps",
        ),
        "no mean": (
            Edit(" - np.outer(visits, visits) / length", ""),
            "minimise the summed loss",
        ),
        "ridge": (
            Edit(
                "np.linalg.lstsq(square, counts.T @ totals, rcond=1e-12)[0]",
                "np.linalg.solve(square + np.eye(n_pairs), counts.T @ totals)",
            ),
            "minimise the summed loss",
        ),
        "the unseen": (
            Edit(
                "    return np.linalg",
                "    never = counts.sum(axis=0) == 0\n    return 1.0 * never + np.linalg",
            ),
            "gets 0",
        ),
        "share alike": (
            "import numpy as np\n\n\n"
            "def decompose(pairs, totals, n_pairs, subset):\n"
            "    sums, seen = np.zeros(n_pairs), np.zeros(n_pairs)\n"
            "    for row, total in zip(pairs, totals):\n"
            "        row = row[row >= 0]\n"
            "        np.add.at(sums, row, total / len(row))\n"
            "        np.add.at(seen, row, 1)\n"
            "    return sums / np.maximum(seen, 1)\n",
            "minimise the summed loss",
        ),
        "a step alone is priced": (Edit("if length > looked:", "if True:"), "of one step"),
        "only one minimum": (
            Edit(
                "    return np.linalg.lstsq(square, counts.T @ totals, rcond=1e-12)[0]",
                "    found, seen = np.zeros(n_pairs), counts.any(axis=0)\n"
                "    right = counts.T[seen] @ totals\n"
                "    found[seen] = np.linalg.solve(square[np.ix_(seen, seen)], right)\n"
                "    return found",
            ),
            "the shortest",
        ),
        "the minimum nearest to 1": (
            Edit(
                "    return np.linalg.lstsq(square, counts.T @ totals, rcond=1e-12)[0]",
                "    ones = 1.0 * counts.any(axis=0)\n"
                "    left = counts.T @ totals - square @ ones\n"
                "    return ones + np.linalg.lstsq(square, left, rcond=1e-12)[0]",
            ),
            "the shortest",
        ),
        "K upside down": (
            Edit("(length - looked) / looked", "(length - looked) * looked"),
            "minimise the summed loss",
        ),
        "borrowed": (
            Edit("    counts = ", "    import irlbook.rl.redistribution\n    counts = "),
            "irlbook.rl",
        ),
    },
    "21L.7": {
        "the state before": (Edit(_LATER, "range(t, length + 1)"), "state before the step"),
        "beyond the step": (
            Edit(_LATER, "range(t + 2, length + 1)"),
            "end of the step is left out",
        ),
        "the end of the walk": (Edit(_LATER, "[length]"), "only the end of the walk"),
        "the end of the step": (Edit(_LATER, "[t + 1]"), "only the end of the step"),
        "without the end of the walk": (Edit(_LATER, "range(t + 1, length)"), "one row for each"),
        "all times": (Edit(_LATER, "range(length + 1)"), "earlier times"),
        "states": (
            (
                Edit("goal = cell[path[later]]", "goal = path[later]"),
                Edit("float(cell[path[t + 1]] == goal)", "float(path[t + 1] == goal)"),
            ),
            "not its cell",
        ),
        "padding": (
            Edit("length = int((chosen >= 0).sum())", "length = len(chosen)"),
            "one row for each",
        ),
        "another walk": (
            Edit("zip(states, actions, strict=True)", "zip(states, actions[::-1], strict=True)"),
            "one row for each",
        ),
        "each goal once": (
            Edit(
                "                " + _ROW,
                "                if goal in cell[path[t + 1 : later]]:\n"
                "                    continue\n                " + _ROW,
            ),
            "one row for each",
        ),
        "all are paid": (Edit(_PAID, "1.0"), "every row is paid"),
        "none is paid": (Edit(_PAID, "0.0"), "nothing is paid"),
        "costs": (Edit(_PAID, "float(cell[path[t + 1]] == goal) - 1.0"), "costs 1"),
        "paid where it begins": (
            Edit(_PAID, "float(cell[path[t]] == goal)"),
            "beginning in the goal",
        ),
        "the key must agree": (Edit(_PAID, "float(path[t + 1] == path[later])"), "key must agree"),
        "paid at the time of the goal alone": (
            Edit(_PAID, "float(later == t + 1)"),
            "its own step",
        ),
        "borrowed": (
            Edit("    rows, rewards = ", "    import irlbook.rl.exploration\n    rows, rewards = "),
            "irlbook.rl",
        ),
        "not together": (
            Edit(
                "return np.array(rows), np.array(rewards)",
                "return np.array(rows)[::-1], np.array(rewards)",
            ),
            "its own step",
        ),
    },
    "21L.8": {
        "hindsight alone": (
            (
                Edit(
                    "    policy = []\n",
                    "    cells, policy = np.where(states >= 0, cell[states], -1), []\n",
                ),
                Edit(
                    "        there, best =",
                    "        ahead = np.cumsum((cells == goal)[:, ::-1], axis=1)[:, ::-1]\n"
                    "        seen = np.zeros(seen.shape)\n"
                    "        rows = states[walked, t], actions[walked, t], states[walked, t + 1]\n"
                    "        np.add.at(seen, rows, ahead[walked, t + 1])\n"
                    "        chances = seen / np.maximum(seen.sum(axis=2, keepdims=True), 1.0)\n"
                    "        there, best =",
                ),
            ),
            "95 ?%",
        ),
        "falls are left out": (
            Edit(
                "    walked, t = np.nonzero(actions >= 0)",
                "    fell = (actions < 0).any(axis=1)\n"
                "    walked, t = np.nonzero((actions >= 0) & ~fell[:, None])",
            ),
            "95 ?%",
        ),
        "falls cost nothing": (
            Edit(
                "np.where(there, 1.0, best)",
                "np.where(there, 1.0, np.where(best > 0, best, best.max()))",
            ),
            "95 ?%",
        ),
        "only without the key": (
            Edit("there, best = cell == goal,", "there, best = np.arange(len(cell)) == goal,"),
            "95 ?%",
        ),
        "no hurry": (Edit("q = discount * chances", "q = chances"), "95 ?%"),
        "one policy": (
            Edit("return np.array(policy)", "return np.array(policy[:1] * len(policy))"),
            "95 ?%",
        ),
        "few sweeps": (Edit("range(200)", "range(3)"), "95 ?%"),
        "values": (
            Edit("policy.append(q.argmax(axis=1))", "policy.append(q.max(axis=1))"),
            "numbers of actions",
        ),
        "the worst": (Edit("q.argmax(axis=1)", "q.argmin(axis=1)"), "95 ?%"),
        "transposed": (Edit("return np.array(policy)", "return np.array(policy).T"), "shape"),
        "borrowed": (
            Edit("    walked, t =", "    import irlbook.planning\n    walked, t ="),
            "irlbook.planning",
        ),
    },
}
