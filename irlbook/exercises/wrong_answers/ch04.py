"""Wrong answers to the exercises of chapter 4, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "04.1": {
        "all as long as the first": (
            Edit(
                "zip(states[:-1], actions, strict=True)",
                "list(zip(states[:-1], actions))[: len(demonstrations[0][1])]",
            ),
            "smoothed share",
        ),
        "the last demonstration forgotten": (
            Edit("in demonstrations:", "in demonstrations[:-1]:"),
            "smoothed share",
        ),
        "the last action forgotten": (
            Edit("zip(states[:-1], actions, strict=True)", "zip(states[:-2], actions[:-1])"),
            "smoothed share",
        ),
        "one for every count": (Edit("counts + smoothing", "counts + 1.0"), "smoothed share"),
        "smoothing shared by the actions": (
            Edit("counts + smoothing", "counts + smoothing / n_actions"),
            "smoothed share",
        ),
        "smoothing where seen only": (
            Edit("counts + smoothing", "counts + smoothing * (counts > 0)"),
            "smoothed share",
        ),
        "uniform over states": (
            Edit("1.0 / n_actions)", "1.0 / n_states)"),
            "sum to one|without a label",
        ),
        "first action where nothing was seen": (
            Edit("1.0 / n_actions)", "np.eye(n_actions)[0])"),
            "without a label",
        ),
        "a little smoothing always": (
            Edit("counts + smoothing", "counts + max(smoothing, 0.01)"),
            "plain share",
        ),
        "divided by the number of labels in all": (
            Edit(
                "total = smooth.sum(axis=1, keepdims=True)",
                "total = np.full((n_states, 1), smooth.sum())",
            ),
            "smoothed share",
        ),
        "shifted by one": (Edit("states[:-1]", "states[1:]"), "state that came after"),
        "no smoothing": (Edit("counts + smoothing", "counts + 0.0"), "smoothing is missing"),
        "normalised over states": (
            Edit("smooth.sum(axis=1, keepdims=True)", "smooth.sum(axis=0, keepdims=True)"),
            "normalised over states",
        ),
        "each pair once": (Edit("+= 1.0", "= 1.0"), "counted once"),
        "0 / 0": (
            (
                Edit("np.where(total > 0, smooth /", "(smooth /"),
                Edit(", 1.0 / n_actions)", ")"),
            ),
            "without a label|sum|distribution",
        ),
        "hard labels": (
            Edit(
                "return np.where",
                "smooth = 1.0 * (smooth == smooth.max(axis=1, keepdims=True))\n"
                "    total = smooth.sum(axis=1, keepdims=True)\n    return np.where",
            ),
            "smoothed share",
        ),
        "first demonstration only": (
            Edit("in demonstrations:", "in demonstrations[:1]:"),
            "smoothed share",
        ),
    },
    "04.2": {
        "without a way back each error costs one step": (
            Edit(
                "    off, total",
                "    if back == 0:\n        return error * horizon\n    off, total",
            ),
            "law of one error",
        ),
        "an error rate kept above zero": (
            Edit("    off, total", "    error = max(error, 1e-6 * (back > 0))\n    off, total"),
            "without errors nothing is paid",
        ),
        "who errs for certain is always off the road": (
            Edit("    off, total", "    if error == 1:\n        return horizon\n    off, total"),
            "a certain error",
        ),
        "a single step is free": (
            Edit("    off, total", "    if horizon == 1:\n        return 0.0\n    off, total"),
            "one step costs",
        ),
        "with a certain way back each step can err": (
            Edit(
                "    off, total",
                "    if back == 1:\n        return error * horizon\n    off, total",
            ),
            "a certain way back",
        ),
        "starts off the road": (
            Edit("off, total = 0.0, 0.0", "off, total = 1.0, 0.0"),
            "expected number of steps",
        ),
        "comes back in the step of the error": (
            Edit(
                "off = off * (1.0 - back) + (1.0 - off) * error",
                "off = (off + (1.0 - off) * error) * (1.0 - back)",
            ),
            "expected number of steps",
        ),
        "errs also off the road": (
            Edit("(1.0 - off) * error", "error"),
            "expected number of steps",
        ),
        "long-run share": (
            "def stumble_cost(error, back, horizon):\n"
            "    return horizon * error / (error + back) if error else 0.0",
            "expected number of steps",
        ),
        "formula that divides by a sum": (
            "def stumble_cost(error, back, horizon):\n"
            "    error, back = np.float64(error), np.float64(back)\n"
            "    s = error + back\n"
            "    return error / s * (horizon - (1 - s) * (1 - (1 - s) ** horizon) / s)",
            "without a way back nothing is paid|finite",
        ),
        "last step not counted": (
            Edit("range(horizon)", "range(horizon - 1)"),
            "expected number of steps",
        ),
        "mean over the steps": (
            Edit("return total", "return total / horizon"),
            "expected number of steps",
        ),
        "one walk, by dice": (
            "def stumble_cost(error, back, horizon):\n"
            "    rng, off, total = np.random.default_rng(0), False, 0.0\n"
            "    for _ in range(horizon):\n"
            "        off = rng.random() >= back if off else rng.random() < error\n"
            "        total += off\n"
            "    return total",
            "expected number of steps",
        ),
        "absorbing": (Edit("(1.0 - back)", "1.0"), "nobody ever comes back"),
        "counted before": (
            (
                Edit("        total += off\n", ""),
                Edit("        off = off", "        total += off\n        off = off"),
            ),
            "before each step",
        ),
        "swapped": (
            Edit("off, total = 0.0, 0.0", "off, total = 0.0, 0.0\n    error, back = back, error"),
            "swapped",
        ),
        "e times T": (
            "def stumble_cost(error, back, horizon):\n    return error * horizon",
            "costs one step",
        ),
        "one step too many": (
            Edit("range(horizon)", "range(horizon + 1)"),
            "one step too many",
        ),
        "last step only": (Edit("total += off", "total = off"), "chance at the end"),
        "law without return": (
            "def stumble_cost(error, back, horizon):\n"
            "    if error == 0:\n        return 0.0\n"
            "    e, T = error, horizon\n"
            "    return T - (1 - e) * (1 - (1 - e) ** T) / e",
            "nobody ever comes back",
        ),
    },
    "04.3": {
        "most frequent label": (
            Edit(
                "    return pile, policy",
                "    best = np.eye(pile.shape[1])[pile.argmax(axis=1)]\n"
                "    return pile, np.where(total > 0, best, 1.0 / pile.shape[1])",
            ),
            "most frequent label",
        ),
        "smoothed": (
            Edit(
                "    return pile, policy",
                "    return pile, (pile + 1) / (pile + 1).sum(axis=1, keepdims=True)",
            ),
            "it is smoothed",
        ),
        "nothing where there is no label": (
            Edit("1.0 / pile.shape[1])", "0.0)"),
            "has no distribution",
        ),
        "policy of the old pile": (
            (
                Edit("pile = pile.copy()", "old, pile = pile, pile.copy()"),
                Edit(
                    "    return pile, policy",
                    "    n = old.sum(axis=1, keepdims=True)\n"
                    "    return pile, np.where(n > 0, old / np.where(n > 0, n, 1.0), 1.0 / "
                    "pile.shape[1])",
                ),
            ),
            "from the old pile",
        ),
        "the first drive only": (Edit("in drives:", "in drives[:1]:"), "all old labels"),
        "the last drive forgotten": (Edit("in drives:", "in drives[:-1]:"), "all old labels"),
        "all drives as long as the first": (
            Edit("in states[:-1]:", "in states[:-1][: len(drives[0][1])]:"),
            "all old labels",
        ),
        "answer for the next state": (
            Edit(
                "pile[state, expert[state]] += 1.0",
                "pile[state, expert[(state + 1) % len(expert)]] += 1.0",
            ),
            "all old labels",
        ),
        "a label weighs more later": (Edit("+= 1.0", "+= 2.0"), "all old labels"),
        "the first state of a drive left out": (
            Edit("states[:-1]:", "states[1:-1]:"),
            "all old labels",
        ),
        "learner's actions": (
            (
                Edit("for state in states[:-1]:", "for state, a in zip(states, _actions):"),
                Edit("pile[state, expert[state]]", "pile[state, a]"),
            ),
            "what the learner did",
        ),
        "forgets": (
            Edit("pile = pile.copy()", "pile = np.zeros_like(pile)"),
            "old labels are gone",
        ),
        "labels the end": (Edit("states[:-1]", "states"), "in which a drive ended"),
        "in place": (Edit("pile = pile.copy()", "pile = pile"), "in place|left as it was"),
        "once a state": (
            (
                Edit("for states, _actions in drives:", "for states, _a in drives:"),
                Edit(
                    "for state in states[:-1]:",
                    "for state in set(np.concatenate([s[:-1] for s, _ in drives]).tolist())"
                    " if states is drives[0][0] else ():",
                ),
            ),
            "labelled once",
        ),
        "only mistakes": (
            (
                Edit("for state in states[:-1]:", "for state, a in zip(states, _actions):"),
                Edit("+= 1.0", "+= float(a != expert[state])"),
            ),
            "learner erred",
        ),
        "policy of the new labels": (
            (
                Edit("pile = pile.copy()", "old, pile = pile, pile.copy()"),
                Edit("total = pile.sum", "new = pile - old\n    total = new.sum"),
                Edit("np.where(total > 0, pile /", "np.where(total > 0, new /"),
            ),
            "new labels only",
        ),
    },
    "04.4": {
        "starts anywhere": (
            Edit("here, total = start, 0.0", "here, total = np.full(n_states, 1 / n_states), 0.0"),
            "errors along",
        ),
        "one step short": (
            Edit("    for t in range(horizon):", "    for t in range(horizon - 1):"),
            "errors along",
        ),
        "sizes of the errors": (
            Edit("here @ (values[t]", "here @ np.abs(values[t]"),
            "errors along",
        ),
        "value of the best action": (
            Edit(
                "values[t] - (learner * q[t]).sum(axis=1)",
                "q[t].max(axis=1) - (learner * q[t]).sum(axis=1)",
            ),
            "errors along",
        ),
        "greedy learner": (
            Edit(
                "    moves =",
                "    learner = np.eye(learner.shape[1])[learner.argmax(axis=1)]\n    moves =",
            ),
            "errors along",
        ),
        "greedy expert": (
            Edit(
                "    n_states =",
                "    expert = np.eye(expert.shape[1])[expert.argmax(axis=1)]\n    n_states =",
            ),
            "errors along|against itself",
        ),
        "moved before the error is counted": (
            (
                Edit(
                    "        total += here @",
                    "        here = here @ moves\n        total += here @",
                ),
                Edit("\n        here = here @ moves\n    return", "\n    return"),
            ),
            "errors along",
        ),
        "the expert's V one step late": (
            Edit("here @ (values[t] -", "here @ (values[t + 1] -"),
            "errors along",
        ),
        "discounted": (
            Edit("reward + transitions", "reward + 0.99 * transitions"),
            "errors along",
        ),
        "expert's states": (
            Edit(
                'np.einsum("sa,sap->sp", learner, transitions)',
                'np.einsum("sa,sap->sp", expert, transitions)',
            ),
            "states are the expert's",
        ),
        "sign": (Edit("return total", "return -total"), "sign is turned"),
        "stationary values": (
            Edit("values[t] - (learner * q[t])", "values[0] - (learner * q[0])"),
            "steps that are left",
        ),
        "swapped": (
            Edit(
                "n_states = len(start)",
                "n_states = len(start)\n    expert, learner = learner, expert",
            ),
            "sign is turned",
        ),
        "mean over time": (
            Edit("return total", "return total / horizon"),
            "divided by the horizon",
        ),
        "first step": (
            Edit("return total", "return start @ (values[0] - (learner * q[0]).sum(axis=1))"),
            "only the first step",
        ),
        "values of the learner": (
            Edit("values[t] = (expert * q[t])", "values[t] = (learner * q[t])"),
            "errors along the learner's way",
        ),
    },
    "04.5": {
        "starts anywhere": (
            Edit(
                "here, total = start, 0.0",
                "here, total = np.full(len(start), 1 / len(start)), 0.0",
            ),
            "states that the learner meets",
        ),
        "moved before the look": (
            Edit(
                "        total += here @ wrong\n        here = here @ moves",
                "        here = here @ moves\n        total += here @ wrong",
            ),
            "before each look",
        ),
        "one step more": (
            Edit("range(horizon)", "range(horizon + 1)"),
            "states that the learner meets",
        ),
        "last state only": (
            Edit("total += here @ wrong", "total = horizon * here @ wrong"),
            "only the last",
        ),
        "greedy examined": (
            Edit(
                "1.0 - learner[np.arange(len(start)), expert]",
                "1.0 * (learner.argmax(axis=1) != expert)",
            ),
            "states that the learner meets",
        ),
        "chance of any mistake": (
            Edit("return total / horizon", "return min(1.0, total)"),
            "sum over steps|states that the learner meets",
        ),
        "the expert's first action for all": (
            Edit("expert]", "expert[0]]"),
            "states that the learner meets",
        ),
        "the learner stops at the first mistake": (
            Edit("here = here @ moves", "here = here * (1 - wrong) @ moves"),
            "states that the learner meets",
        ),
        "mean of both drivers": (
            Edit(
                'np.einsum("sa,sap->sp", learner, transitions)',
                '0.5 * np.einsum("sa,sap->sp", learner + np.eye(learner.shape[1])[expert], '
                "transitions)",
            ),
            "states that the learner meets",
        ),
        "the bug": (
            Edit(
                '"sa,sap->sp", learner, transitions',
                '"sa,sap->sp", np.eye(learner.shape[1])[expert], transitions',
            ),
            "the expert drives",
        ),
        "all states alike": (
            Edit("total += here @ wrong", "total += wrong.mean()"),
            "count alike",
        ),
        "sum": (Edit("return total / horizon", "return total"), "sum over steps"),
        "first state": (Edit("here = here @ moves", "here = here"), "only the first"),
        "right answers": (
            Edit("return total / horizon", "return 1 - total / horizon"),
            "right answers",
        ),
        "greedy driver": (
            Edit(
                '"sa,sap->sp", learner, transitions',
                '"sa,sap->sp", np.eye(learner.shape[1])[learner.argmax(axis=1)], transitions',
            ),
            "states that the learner meets",
        ),
    },
}
