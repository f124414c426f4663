"""Wrong answers to the exercises of chapter 1, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "01.1": {
        "never below zero": (
            "import numpy as np\n"
            "def optimal_backup(transitions, reward, values, discount):\n"
            "    new = np.zeros(len(values))\n"
            "    for s in range(len(values)):\n"
            "        for a in range(reward.shape[1]):\n"
            "            q = reward[s, a] + discount * transitions[s, a] @ values\n"
            "            new[s] = max(new[s], q)\n"
            "    return new\n",
            "maximum began at zero",
        ),
        "last state forgotten": (
            Edit("return q.max(axis=1)", "return np.append(q.max(axis=1)[:-1], values[-1])"),
            "the best, over actions",
        ),
        "first action only": (Edit("q.max(axis=1)", "q[:, 0]"), "the best, over actions"),
        "worst action": (Edit("q.max(axis=1)", "q.min(axis=1)"), "the worst action"),
        "discount 0 read as none": (
            Edit("q = ", "discount = discount or 1.0\n    q = "),
            "discount is missing",
        ),
        "mean over actions": (Edit("q.max(axis=1)", "q.mean(axis=1)"), "mean over actions"),
        "no discount": (Edit("discount * transitions", "transitions"), "discount is missing"),
        "reward discounted": (
            Edit(
                "reward + discount * transitions @ values",
                "discount * (reward + transitions @ values)",
            ),
            "reward was discounted too",
        ),
        "in place": (
            "import numpy as np\n"
            "def optimal_backup(transitions, reward, values, discount):\n"
            "    values = values.copy()\n"
            "    for s in range(len(values)):\n"
            "        values[s] = (reward[s] + discount * transitions[s] @ values).max()\n"
            "    return values\n",
            "new values of this sweep",
        ),
        "best next state": (
            "import numpy as np\n"
            "def optimal_backup(transitions, reward, values, discount):\n"
            "    best = np.where(transitions > 0, values, -np.inf).max(axis=2)\n"
            "    return (reward + discount * best).max(axis=1)\n",
            "best next state instead",
        ),
        "no reward": (
            Edit("reward + discount * transitions @ values", "discount * transitions @ values"),
            "reward is missing",
        ),
        "returns the table": (Edit("return q.max(axis=1)", "return q"), "shape"),
        "changes its argument": (
            Edit("q = ", "values *= discount; q = "),
            "in place|argument|chang",
        ),
    },
    "01.2": {
        "returns the values before the last sweep": (
            (
                Edit("values = updated\n", "before, values = values, updated\n"),
                Edit("return values", "return before"),
            ),
            "single state is slow|within `tolerance`",
        ),
        "first state decides": (
            Edit("np.abs(updated - values).max()", "np.abs(updated - values)[0]"),
            "single state is slow|within `tolerance`",
        ),
        "last state decides": (
            Edit("np.abs(updated - values).max()", "np.abs(updated - values)[-1]"),
            "single state is slow|within `tolerance`",
        ),
        "a tolerance of its own": (Edit("<= tolerance", "<= 0.05"), "within `tolerance`"),
        "sweeps until discount**n is small": (
            "import numpy as np\n"
            "def plan_to_within(transitions, reward, discount, tolerance):\n"
            "    values = np.zeros(len(reward))\n"
            "    for _ in range(int(np.ceil(np.log(tolerance) / np.log(discount)))):\n"
            "        values = (reward + discount * transitions @ values).max(axis=1)\n"
            "    return values\n",
            "within `tolerance`",
        ),
        "spread of the changes": (
            Edit("np.abs(updated - values).max()", "np.ptp(updated - values)"),
            "within `tolerance`",
        ),
        "discount of 0.9 built in": (
            Edit("discount / (1 - discount)", "0.9 / (1 - 0.9)"),
            "within `tolerance`",
        ),
        "change alone": (
            Edit("discount / (1 - discount) * change", "change"),
            "within `tolerance`",
        ),
        "factor turned over": (
            Edit("discount / (1 - discount) * change", "(1 - discount) / discount * change"),
            "within `tolerance`",
        ),
        "mean change": (
            Edit("np.abs(updated - values).max()", "np.abs(updated - values).mean()"),
            "single state is slow|within `tolerance`",
        ),
        "signed change": (
            Edit("np.abs(updated - values).max()", "(updated - values).max()"),
            "within `tolerance`",
        ),
        "a hundred sweeps": (
            "import numpy as np\n"
            "def plan_to_within(transitions, reward, discount, tolerance):\n"
            "    values = np.zeros(len(reward))\n"
            "    for _ in range(100):\n"
            "        values = (reward + discount * transitions @ values).max(axis=1)\n"
            "    return values\n",
            "within `tolerance`",
        ),
        "half of the factor": (
            Edit("discount / (1 - discount) * change", "discount * change"),
            "within `tolerance`",
        ),
    },
    "01.3": {
        "five hundred steps": (
            Edit(
                "d = np.linalg.solve(np.eye(len(start)) - discount * P_pi.T, start)",
                "d = start\n    for _ in range(500):\n        d = start + discount * P_pi.T @ d",
            ),
            "where no episode ends",
        ),
        "the last state is the end where none is said to be": (
            Edit(
                "    P_pi[terminal]",
                "    if not terminal.any():\n"
                "        terminal = np.arange(len(start)) == len(start) - 1\n"
                "    P_pi[terminal]",
            ),
            "where no episode ends",
        ),
        "one terminal state only": (
            Edit(
                "P_pi[terminal]",
                "terminal = np.arange(len(start)) == np.argmax(terminal)\n    P_pi[terminal]",
            ),
            "obey the law of flow",
        ),
        "the last state is the end": (
            Edit(
                "P_pi[terminal]",
                "terminal = np.arange(len(start)) == len(start) - 1\n    P_pi[terminal]",
            ),
            "obey the law of flow",
        ),
        "equal chances of the actions": (
            Edit("return d[:, None] * policy", "return d[:, None] / policy.shape[1] + 0 * policy"),
            "obey the law of flow",
        ),
        "starts anywhere": (
            Edit("P_pi.T, start)", "P_pi.T, ~terminal / (~terminal).sum())"),
            "obey the law of flow",
        ),
        "starts in the first state": (
            Edit("P_pi.T, start)", "P_pi.T, np.eye(len(start))[0])"),
            "obey the law of flow",
        ),
        "fifty steps": (
            Edit(
                "d = np.linalg.solve(np.eye(len(start)) - discount * P_pi.T, start)",
                "d = sum(discount**t * start @ np.linalg.matrix_power(P_pi, t) for t in range(50))",
            ),
            "obey the law of flow",
        ),
        "last step of an episode lost": (
            Edit(
                "P_pi[terminal] = 0.0",
                "P_pi[:, terminal] = 0.0; "
                "d = P_pi.sum(axis=1, keepdims=True); P_pi = P_pi / np.where(d > 0, d, 1.0)",
            ),
            "obey the law of flow",
        ),
        "sums to one": (
            Edit("return d[:, None] * policy", "return d[:, None] * policy / d.sum()"),
            "obey the law of flow",
        ),
        "terminals act": (
            (Edit("P_pi[terminal] = 0.0", "pass"), Edit("d[terminal] = 0.0", "pass")),
            "terminal states go on acting",
        ),
        "no transpose": (Edit("P_pi.T", "P_pi"), "transpose is missing"),
        "normalised": (
            Edit("return d[:, None] * policy", "return (1 - discount) * d[:, None] * policy"),
            "scaled by 1 - discount",
        ),
        "no discount": (Edit("discount * P_pi.T", "P_pi.T"), "discount is missing"),
        "first step lost": (
            Edit(
                "return d[:, None] * policy",
                "return (d - np.where(terminal, 0, start))[:, None] * policy",
            ),
            "first step is not counted",
        ),
        "states only": (Edit("return d[:, None] * policy", "return d"), "shape"),
        "ends counted": (
            Edit("d[terminal] = 0.0", "pass"),
            "nobody acts after the end",
        ),
    },
    "01.4": {
        "an empty row made to stay": (
            Edit(
                "    return P, r",
                "    stays = np.arange(n_states)\n"
                "    P[stays, :, stays] += P.sum(axis=2) == 0.0\n"
                "    return P, r",
            ),
            "right value of CliffWalking",
        ),
        "pay on entering an end left to the end": (
            (
                Edit(
                    "    for s in",
                    "    moves = {s: [m for a in table[s].values() for m in a] for s in table}\n"
                    "    ends = {s for s in table if all(ended for *_, ended in moves[s])}\n"
                    "    for s in",
                ),
                Edit("p * paid", "p * paid * (s2 not in ends)"),
            ),
            "right value of FrozenLake",
        ),
        "stops reading at an end": (
            Edit(
                "if not ended:",
                "if ended:\n                    break\n                if True:",
            ),
            "chance to land in s' and go on|mean of what the action pays",
        ),
        "rows made to sum to one": (
            Edit(
                "return P, r",
                "total = P.sum(axis=2, keepdims=True)\n"
                "    return P / np.where(total > 0, total, 1.0), r",
            ),
            "land in s' and go on",
        ),
        "the end belongs to the state": (
            Edit(
                "return P, r",
                "for s in table:\n        for a in table[s]:\n"
                "            for _, s2, _, ended in table[s][a]:\n"
                "                if ended:\n                    P[:, :, s2] = 0.0\n"
                "    return P, r",
            ),
            "land in s' and go on",
        ),
        "pay belongs to the state": (
            Edit(
                "return P, r",
                "return P, np.repeat(r.mean(axis=1, keepdims=True), n_actions, 1)",
            ),
            "mean of what the action pays",
        ),
        "a pay ends the episode": (
            Edit("if not ended:", "if not (ended or paid > 0):"),
            "land in s' and go on",
        ),
        "pay of the moves that go on, made a mean of its own": (
            Edit("return P, r", "return P, r / np.where(P.sum(axis=2) > 0, P.sum(axis=2), 1.0)"),
            "mean of what the action pays",
        ),
        "four actions taken for granted": (
            Edit("len(table[0])", "4"),
            "shape",
        ),
        "overwrites": (Edit("P[s, a, s2] += p", "P[s, a, s2] = p"), "overwrote the first one"),
        "ignores the end": (Edit("if not ended:", "if True:"), "counted as going on"),
        "unweighted": (Edit("r[s, a] += p * paid", "r[s, a] += paid"), "without their chances"),
        "last payment lost": (
            Edit("r[s, a] += p * paid", "r[s, a] += p * paid * (not ended)"),
            "last move was lost",
        ),
        "reward overwritten": (
            Edit("r[s, a] += p * paid", "r[s, a] = p * paid"),
            "mean of what the action pays",
        ),
        "only the ends": (Edit("if not ended:", "if ended:"), "land in s' and go on"),
        "one array": (Edit("return P, r", "return P"), "2 values|two arrays"),
    },
    "01.5": {
        "not in place": (Edit("@ values).max()", "@ old).max()"), "used at once"),
        "the last state decides": (
            Edit("np.abs(values - old).max()", "np.abs(values - old)[-1]"),
            "reaches the other end|until the values stop changing",
        ),
        "the first state decides": (
            Edit("np.abs(values - old).max()", "np.abs(values - old)[0]"),
            "reaches the other end|until the values stop changing",
        ),
        "mean change": (
            Edit("np.abs(values - old).max()", "np.abs(values - old).mean()"),
            "no value changes by more than `tolerance`",
        ),
        "a tolerance of its own, too wide": (
            Edit("<= tolerance", "<= 1e-3"),
            "until the values stop changing",
        ),
        "a tolerance of its own, too narrow": (
            Edit("<= tolerance", "<= 1e-10"),
            "it stops when no value changes by more",
        ),
        "total change since the beginning": (
            (
                Edit("        old = values.copy()\n", ""),
                Edit("    while True:", "    old = values.copy()\n    while True:"),
                Edit(
                    "return values",
                    "return values\n        if np.abs(values - old).max() > 1:\n"
                    "            return values",
                ),
            ),
            "until the values stop changing",
        ),
        "no discount": (
            Edit("discount * transitions", "0.9 * transitions"),
            "until the values stop changing",
        ),
        "unchanged": (Edit("old = values.copy()", "old = values"), "single sweep"),
        "a view": (Edit("old = values.copy()", "old = values[:]"), "single sweep"),
        "signed change": (
            Edit("np.abs(values - old).max()", "(values - old).max()"),
            "until the values stop changing|reaches the other end|by more than `tolerance`",
        ),
        "smallest change": (
            Edit("np.abs(values - old).max()", "np.abs(values - old).min()"),
            "until the values stop changing|reaches the other end",
        ),
        "ten sweeps": (
            (Edit("while True:", "for _ in range(10):"), Edit("return values", "break")),
            "None|until the values stop changing",
        ),
        "copies too late": (
            (
                Edit("old = values.copy()", "pass"),
                Edit("if np.abs", "old = values.copy()\n        if np.abs"),
            ),
            "single sweep",
        ),
    },
}
