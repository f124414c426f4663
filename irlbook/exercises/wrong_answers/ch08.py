"""Wrong answers to the exercises of chapter 8, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "08.1": {
        "nobody is 0": (Edit("expert / safe, 0.5)", "expert / safe, 0.0)"), "nobody goes"),
        "a little added below": (
            Edit("d = np.where(total > 0, expert / safe, 0.5)", "d = expert / (total + 1e-3)"),
            "best discriminator",
        ),
        "tiny number added below": (
            Edit("d = np.where(total > 0, expert / safe, 0.5)", "d = expert / (total + 1e-12)"),
            "nobody goes",
        ),
        "learner only is 1/2": (
            Edit("return d, loss", "return np.where(expert > 0, d, 0.5), loss"),
            "nobody goes",
        ),
        "expert only is 1/2": (
            Edit("return d, loss", "return np.where(policy > 0, d, 0.5), loss"),
            "nobody goes",
        ),
        "learner's pairs only": (
            Edit("(expert * log(d, expert)).sum() +", "0.0 +"),
            "cross-entropy",
        ),
        "all pairs alike": (
            Edit(
                "loss = -((expert",
                "expert = policy = np.full_like(expert, 1.0)\n    loss = -((expert",
            ),
            "cross-entropy|finite",
        ),
        "bits": (Edit("return d, loss", "return d, loss / np.log(2)"), "cross-entropy"),
        "rows, not pairs": (
            Edit(
                "    total = ",
                "    expert, policy = (np.repeat(x.mean(axis=1, keepdims=True), x.shape[1], 1) "
                "for x in (expert, policy))\n    total = ",
            ),
            "best discriminator",
        ),
        "weights of the other kind": (
            Edit("(policy * log(1.0 - d, policy))", "(expert * log(1.0 - d, policy))"),
            "cross-entropy",
        ),
        "other convention": (Edit("expert / safe", "policy / safe"), "chance of the learner"),
        "ratio": (Edit("total = expert + policy", "total = policy"), "ratio u|0, 1 and 1/2"),
        "sign": (Edit("loss = -(", "loss = ("), "sign is turned"),
        "averaged": (Edit("return d, loss", "return d, loss / 2"), "averaged"),
        "expert only": (
            Edit("(policy * log(1.0 - d, policy)).sum()", "0.0"),
            "only the expert",
        ),
        "0 / 0": (Edit("np.where(total > 0, expert / safe, 0.5)", "expert / safe"), "1/2"),
        "logarithm of 0": (
            Edit("np.log(np.where(weight > 0, value, 1.0))", "np.log(value)"),
            "finite|NaN|nan",
        ),
    },
    "08.2": {
        "what FAIRL's paper pays": (
            Edit("reward = u\n", "reward = -u * np.log(u)\n"),
            "derivative of u is",
        ),
        "pay of GAIL with D": (
            Edit("np.log((1.0 + u) / 2.0)", "-np.log(1.0 - expert / (expert + policy))"),
            "constant",
        ),
        "half a constant for AIRL": (
            Edit("np.log(u) - 1.0", "np.log(u) - 0.5"),
            "reward of AIRL",
        ),
        "FAIRL plus one": (Edit("reward = u\n", "reward = u + 1.0\n"), "constant is wrong"),
        "log for FAIRL": (Edit("reward = u\n", "reward = 1.0 + np.log(u)\n"), "best T"),
        "GAIL for all": (
            Edit('elif method == "AIRL":', 'elif method == "none":'),
            "reward of AIRL",
        ),
        "mean taken off": (
            Edit("return reward", "return reward - reward.mean()"),
            "minus the derivative",
        ),
        "ratio of states": (
            Edit(
                "u = expert / policy",
                "u = (expert.sum(1) / policy.sum(1))[:, None] + 0 * expert",
            ),
            "minus the derivative",
        ),
        "per visit": (Edit("return reward", "return reward * policy"), "minus the derivative"),
        "sign": (Edit("return reward", "return -reward"), "sign is turned"),
        "upside down": (Edit("u = expert / policy", "u = policy / expert"), "upside down|GAIL"),
        "the best T": (
            Edit("reward = np.log((1.0 + u) / 2.0)", "reward = np.log(2.0 * u / (1.0 + u))"),
            "best T",
        ),
        "minus f": (Edit("reward = u\n", "reward = -u * np.log(u)\n"), "derivative of u is"),
        "constant of GAIL": (Edit("(1.0 + u) / 2.0", "1.0 + u"), "constant"),
        "constant of AIRL": (
            Edit("np.log(u) - 1.0", "np.log(u)"),
            "derivative of u is missing",
        ),
        "AIRL for all": (Edit('if method == "GAIL":', 'if method == "none":'), "GAIL"),
    },
    "08.3": {
        "its occupancy for the policy of the expert": (
            Edit(
                "    d = ",
                "    if np.allclose(expert, occupancy):\n        return expert\n    d = ",
            ),
            "when the policy is the expert",
        ),
        "step added": (
            Edit(
                "new = policy * np.exp(step * (q - values[:, None]))",
                "new = np.maximum(policy + step * (q - values[:, None]), 0.0)",
            ),
            "step was added",
        ),
        "step of one": (Edit("np.exp(step * ", "np.exp(1.0001 * "), "one round of the game"),
        "starts anywhere": (
            Edit("(1.0 - discount) * start", "(1.0 - discount) * np.full(n, 1 / n)"),
            "one round of the game",
        ),
        "D of the learner": (
            Edit("d = expert / (expert + occupancy)", "d = occupancy / (expert + occupancy)"),
            "one round of the game",
        ),
        "D of states": (
            Edit(
                "d = expert / (expert + occupancy)",
                "d = (expert.sum(1) / (expert.sum(1) + visits))[:, None] + 0 * expert",
            ),
            "one round of the game",
        ),
        "best reply": (
            Edit(
                "new = policy * np.exp(step * (q - values[:, None]))",
                "new = 1.0 * (q == q.max(axis=1, keepdims=True))",
            ),
            "one round of the game",
        ),
        "half a step": (
            Edit("np.exp(step * ", "np.exp(0.5 * step * "),
            "one round of the game",
        ),
        "expert's values": (
            Edit("(policy * reward).sum(axis=1)", "reward.mean(axis=1)"),
            "one round of the game",
        ),
        "values without discount rate": (
            Edit(
                "values = np.linalg.solve(np.eye(n) - discount * chain,",
                "values = np.linalg.solve(np.eye(n) - discount**2 * chain,",
            ),
            "one round of the game",
        ),
        "paid for leaving": (
            Edit("reward = -np.log(1.0 - d)", "reward = np.log(1.0 - d)"),
            "leaving the expert",
        ),
        "not normalised": (
            Edit("(1.0 - discount) * start", "start"),
            "not normalised",
        ),
        "one step only": (
            Edit("q = reward + discount * transitions @ values", "q = reward"),
            "one step counts",
        ),
        "old policy forgotten": (
            Edit("new = policy * np.exp(", "new = np.exp("),
            "forgotten",
        ),
        "log D": (
            Edit("reward = -np.log(1.0 - d)", "reward = np.log(d)"),
            "paid log D",
        ),
        "no discount in Q": (Edit("reward + discount *", "reward +"), "missing in Q"),
        "rows and columns": (
            Edit("np.eye(n) - discount * chain.T", "np.eye(n) - discount * chain"),
            "flow backwards",
        ),
    },
    "08.4": {
        "not trained where the learner never goes": (
            Edit("rate * (", "rate * (policy > 0) * ("),
            "only one of the two",
        ),
        "the best discriminator at once": (
            Edit(
                "    return -np.log(1.0 - d)",
                "    d = expert / (expert + policy)\n    return -np.log(1.0 - d)",
            ),
            "for `steps` steps|reward is",
        ),
        "a rate of its own": (Edit("scores -= rate", "scores -= 3.0"), "for `steps` steps"),
        "steps of its own": (Edit("range(steps)", "range(4000)"), "for `steps` steps"),
        "one step fewer": (Edit("range(steps)", "range(steps - 1)"), "for `steps` steps"),
        "scores from one": (
            Edit("np.zeros_like(expert)", "np.ones_like(expert)"),
            "for `steps` steps|log 2",
        ),
        "pay of the step before": (
            Edit(
                "        scores -= rate * ((expert + policy) * d - expert)\n"
                "    d = 1.0 / (1.0 + np.exp(-scores))",
                "        scores -= rate * ((expert + policy) * d - expert)",
            ),
            "for `steps` steps|reward is",
        ),
        "only the expert's pairs": (
            Edit("(expert + policy) * d - expert", "expert * d - expert"),
            "reward is|finite",
        ),
        "all pairs alike": (
            Edit("(expert + policy) * d - expert", "d - expert / expert.max()"),
            "reward is|finite",
        ),
        "double pay": (Edit("return -np.log", "return -2 * np.log"), "reward is"),
        "log(1 - D)": (Edit("return -np.log(1.0 - d)", "return np.log1p(-d)"), "this is log"),
        "the bug": (Edit("* d - expert)", "* d - policy)"), "chance of the learner"),
        "pay turned instead": (
            Edit("return -np.log(1.0 - d)", "return np.log(1.0 - d)"),
            "this is log",
        ),  # fmt: skip
        "log D": (Edit("return -np.log(1.0 - d)", "return np.log(d)"), "log D"),
        "logit": (Edit("return -np.log(1.0 - d)", "return scores"), "logit"),
        "climbing": (Edit("scores -= rate", "scores += rate"), "reward is|finite|NaN|nan"),
        "not trained": (Edit("range(steps)", "range(1)"), "reward is"),
    },
}
