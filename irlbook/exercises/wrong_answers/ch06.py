"""Wrong answers to the exercises of chapter 6, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "06.1": {
        "mean over different demonstrations": (
            Edit("/ len(demonstrations)", "/ len({tuple(states) for states, _ in demonstrations})"),
            "twice changes nothing",
        ),
        "all as long as the first": (
            (
                Edit("    for states", "    n = len(demonstrations[0][1])\n    for states"),
                Edit(
                    "weight @ features[states[: len(actions)]]",
                    "weight[:n] @ features[states[: len(actions)]][:n]",
                ),
            ),
            "mean over demonstrations",
        ),
        "the first demonstration only": (
            Edit("in demonstrations:", "in demonstrations[:1]:"),
            "mean over demonstrations",
        ),
        "the last demonstration forgotten": (
            Edit("in demonstrations:", "in demonstrations[:-1]:"),
            "mean over demonstrations",
        ),
        "last action forgotten": (
            (
                Edit("np.arange(len(actions))", "np.arange(len(actions) - 1)"),
                Edit("states[: len(actions)]", "states[: len(actions) - 1]"),
            ),
            "mean over demonstrations",
        ),
        "scaled by 1 - discount": (
            Edit("return total", "return (1 - discount) * total"),
            "scaled by 1 - discount",
        ),
        "time runs on": (
            (
                Edit("    for states", "    seen = 0\n    for states"),
                Edit(
                    "discount ** np.arange(len(actions))",
                    "discount ** (seen + np.arange(len(actions)))\n        seen += len(actions)",
                ),
            ),
            "time runs on",
        ),
        "only where it ended": (
            Edit("weight @ features[states[: len(actions)]]", "weight[-1] * features[states[-1]]"),
            "mean over demonstrations",
        ),
        "no discount": (Edit("discount ** np.arange", "1.0 ** np.arange"), "discount is miss"),
        "discounted at once": (
            Edit(
                "discount ** np.arange(len(actions))",
                "discount ** (1 + np.arange(len(actions)))",
            ),
            "first step is discounted",
        ),
        "last state counted": (
            (
                Edit("np.arange(len(actions))", "np.arange(len(states))"),
                Edit("states[: len(actions)]", "states"),
            ),
            "state in which a demonstration ended",
        ),
        "mean over steps": (
            Edit("/ len(demonstrations)", "/ sum(len(a) for _, a in demonstrations)"),
            "number of steps",
        ),
        "no mean": (Edit("/ len(demonstrations)", ""), "took no mean"),
        "cut to the shortest": (
            (
                Edit(
                    "for states, actions in demonstrations:",
                    "n = min(len(a) for _, a in demonstrations)\n"
                    "    for states, actions in demonstrations:",
                ),
                Edit("np.arange(len(actions))", "np.arange(n)"),
                Edit("[: len(actions)]", "[:n]"),
            ),
            "cut all demonstrations",
        ),
        "normalised weights": (
            Edit("total += weight @", "total += weight / weight.sum() @"),
            "discounted mean of each",
        ),
        "features of the next state": (
            Edit("states[: len(actions)]", "states[1:]"),
            "mean over demonstrations",
        ),
    },
    "06.2": {
        "the last state is the end": (
            Edit("np.where(terminal,", "np.where(np.arange(len(terminal)) == len(terminal) - 1,"),
            "from the end",
        ),
        "one end only": (
            Edit("np.where(terminal,", "np.where(np.arange(len(terminal)) == terminal.argmax(),"),
            "from the end",
        ),
        "the reward of the end stays": (
            Edit("np.where(terminal, 0.0,", "np.where(terminal, reward.max(axis=1),"),
            "from the end",
        ),
        "rewards at the horizon": (
            Edit(
                "    for t in",
                "    values[horizon] = np.where(terminal, 0, reward.max(axis=1))\n    for t in",
            ),
            "from the end",
        ),
        "one maximum for all states": (
            Edit("q.max(axis=1, keepdims=True)", "q.max(keepdims=True)"),
            "overflow|finite",
        ),
        "policy overflows": (
            Edit("np.exp(q - log_z)", "np.exp(q) / np.exp(q).sum(axis=1, keepdims=True)"),
            "overflow|finite",
        ),
        "temperature at most one": (
            Edit("    values = np", "    beta = min(beta, 1.0)\n    values = np"),
            "temperature above 1",
        ),
        "policy without the temperature": (
            Edit(
                "policy[t] = np.exp(q - log_z)",
                "policy[t] = np.exp(beta * (q - top))\n"
                "        policy[t] /= policy[t].sum(axis=1, keepdims=True)",
            ),
            "of its own time",
        ),
        "one policy for all times": (
            Edit("return values, policy", "return values, np.repeat(policy[:1], horizon, axis=0)"),
            "of its own time",
        ),
        "greedy policy": (
            Edit(
                "return values, policy",
                "return values, np.eye(reward.shape[1])[policy.argmax(2)]",
            ),
            "of its own time",
        ),
        "mean over actions": (
            Edit("np.log(np.exp(q - top).sum(", "np.log(np.exp(q - top).mean("),
            "from the end",
        ),
        "one decision fewer": (
            Edit("reversed(range(horizon))", "reversed(range(horizon - 1))"),
            "from the end",
        ),
        "hard max": (
            Edit("beta * log_z[:, 0]", "beta * top[:, 0]"),
            "hard maximum",
        ),
        "discount dropped": (Edit("discount * transitions", "transitions"), "discount is miss"),
        "temperature dropped": (
            (Edit(") / beta", ")"), Edit("beta * log_z", "log_z")),
            "temperature is missing",
        ),
        "no beta in front": (Edit("beta * log_z", "log_z"), "beta in front"),
        "terminal states keep a value": (
            Edit("np.where(terminal, 0.0, beta * log_z[:, 0])", "beta * log_z[:, 0]"),
            "terminal states have a value",
        ),
        "overflow": (
            Edit("top = q.max(axis=1, keepdims=True)", "top = np.zeros((len(q), 1))"),
            "overflow|finite",
        ),
        "forwards in time": (
            Edit("return values, policy", "return values[::-1].copy(), policy[::-1].copy()"),
            "time runs forwards",
        ),
        "path model": (
            Edit(
                "discount * transitions @ values[t + 1]",
                "discount * beta * np.log(transitions @ np.exp(values[t + 1] / beta))",
            ),
            "path model",
        ),
        "policy not normalised": (
            Edit("np.exp(q - log_z)", "np.exp(q - top)"),
            "sum to one",
        ),
        "policy one step late": (
            Edit("return values, policy", "return values, np.roll(policy, 1, axis=0)"),
            "of its own time",
        ),
    },
    "06.3": {
        "the last state is the end where none is said to be": (
            Edit(
                "    here = ",
                "    if not terminal.any():\n"
                "        terminal = np.arange(len(start)) == len(start) - 1\n"
                "    here = ",
            ),
            "without terminal states",
        ),
        "terminal states of the start act": (
            Edit("here = np.where(terminal, 0.0, start)", "here = start"),
            "begins in a terminal state",
        ),
        "terminal states emptied only in the result": (
            (
                Edit("here = np.where(terminal, 0.0, start)", "here = start"),
                Edit("here[terminal] = 0.0", "pass"),
                Edit("return visits", "visits[terminal] = 0.0\n    return visits"),
            ),
            "times the policy",
        ),
        "the last state is the end": (
            Edit(
                "    here = ",
                "    terminal = np.arange(len(start)) == len(start) - 1\n    here = ",
            ),
            "times the policy",
        ),
        "one end only": (
            Edit(
                "    here = ",
                "    terminal = np.arange(len(start)) == terminal.argmax()\n    here = ",
            ),
            "times the policy",
        ),
        "start made to sum to one again": (
            Edit("    for pi", "    here = here / here.sum()\n    for pi"),
            "times the policy",
        ),
        "last step forgotten": (Edit("in policy:", "in policy[:-1]:"), "times the policy"),
        "starts anywhere": (
            Edit(
                "    here = np.where(terminal, 0.0, start)",
                "    here = np.where(terminal, 0.0, 1 / len(start))",
            ),
            "times the policy",
        ),
        "survivors made to sum to one": (
            Edit(
                "        here[terminal] = 0.0",
                "        here[terminal] = 0.0\n        here *= discount / max(here.sum(), 1e-12)",
            ),
            "times the policy",
        ),
        "discount of the step, not of all steps": (
            Edit(
                "        visits += doing",
                "        visits += doing if pi is policy[0] else doing / doing.sum()",
            ),
            "times the policy",
        ),
        "loops in the wrong order": (
            "def expected_visits(transitions, policy, start, terminal, discount):\n"
            "    horizon, n_states, _ = policy.shape\n"
            "    here = np.zeros((horizon + 1, n_states))\n"
            "    here[0] = np.where(terminal, 0.0, start)\n"
            "    for s in range(n_states):\n"
            "        for t in range(horizon):\n"
            "            flow = policy[t, s] @ transitions[s]\n"
            "            here[t + 1] += discount * here[t, s] * flow * ~terminal\n"
            "    return np.einsum('ts,tsa->sa', here[:-1], policy)",
            "wrong order",
        ),
        "discount dropped": (Edit("discount * np.einsum", "np.einsum"), "discount is missing"),
        "terminal states act": (Edit("here[terminal] = 0.0", "pass"), "go on acting"),
        "first policy always": (
            Edit("for pi in policy:", "for pi in [policy[0]] * len(policy):"),
            "first policy",
        ),
        "policy backwards": (
            Edit("for pi in policy:", "for pi in policy[::-1]:"),
            "time runs backwards",
        ),
        "first step missing": (
            Edit(
                "return visits",
                "return visits - np.where(terminal, 0, start)[:, None] * policy[0]",
            ),
            "first step is missing",
        ),
        "discounted at once": (
            Edit("return visits", "return discount * visits"),
            "discounted already",
        ),
        "transitions transposed": (Edit('"sa,sap->p"', '"sa,pas->p"'), "read backwards"),
        "uniform actions": (
            Edit("here[:, None] * pi", "here[:, None] * np.full(pi.shape, 1 / pi.shape[1])"),
            "times the policy",
        ),
    },
    "06.4": {
        "penalty with the wrong sign": (
            (
                Edit("+ 0.5 * l2 * w @ w", "- 0.5 * l2 * w @ w"),
                Edit("- target + l2 * w", "- target - l2 * w"),
                Edit('"maxiter": 1000', '"maxiter": 30'),
            ),
            "its largest entry there is|finite",
        ),
        "penalty half": (
            (Edit("0.5 * l2", "0.25 * l2"), Edit("+ l2 * w\n", "+ 0.5 * l2 * w\n")),
            "counts half",
        ),
        "one step long": (
            Edit("never = np.zeros", "horizon = horizon + 1\n    never = np.zeros"),
            "its largest entry there is",
        ),
        "a hundred small steps": (
            Edit(
                'return minimize(penalised_dual, guess, jac=True, method="L-BFGS-B", '
                "options=options).x",
                "for _ in range(100):\n"
                "        guess = guess - 0.01 * penalised_dual(guess)[1]\n"
                "    return guess",
            ),
            "its largest entry there is",
        ),
        "content too early": (
            Edit('"gtol": 1e-8, "ftol": 1e-15', '"gtol": 3e-2, "ftol": 1e-15'),
            "its largest entry there is",
        ),
        "penalty not in the gradient": (
            (Edit("- target + l2 * w", "- target"), Edit("+ 0.5 * l2 * w @ w", "")),
            "penalty is missing",
        ),
        "a penalty of its own": (
            Edit("never = np.zeros", "l2 = 0.01\n    never = np.zeros"),
            "its largest entry there is",
        ),
        "hard policy": (
            Edit(
                "policy = backward_pass(transitions, reward, never, horizon, discount, 1.0)",
                "policy = backward_pass(transitions, reward, never, horizon, discount, 0.05)",
            ),
            "its largest entry there is|finite",
        ),
        "weights made to have length one": (
            Edit(
                "options=options).x",
                "options=options).x * 1.0 / np.linalg.norm("
                "minimize(penalised_dual, guess, jac=True).x)",
            ),
            "its largest entry there is",
        ),
        "no penalty": (
            (Edit("+ 0.5 * l2 * w @ w", ""), Edit("- target + l2 * w", "- target")),
            "penalty is missing",
        ),
        "penalty twice": (
            (Edit("0.5 * l2", "l2"), Edit("+ l2 * w\n", "+ 2 * l2 * w\n")),
            "counts twice",
        ),
        "discount dropped": (
            (
                Edit("never, horizon, discount, 1.0", "never, horizon, 1.0, 1.0"),
                Edit("start, never, discount", "start, never, 1.0"),
            ),
            "discount is missing",
        ),
        "start ignored": (
            Edit(
                "never = np.zeros",
                "start = np.full(len(start), 1 / len(start))\n    never = np.zeros",
            ),
            "start distribution is not used",
        ),
        "one step short": (
            Edit("never = np.zeros", "horizon = horizon - 1\n    never = np.zeros"),
            "one step short",
        ),
        "sign turned": (Edit("return minimize(", "return -minimize("), "run from the expert"),
        "one gradient step": (
            Edit(
                'return minimize(penalised_dual, guess, jac=True, method="L-BFGS-B", '
                "options=options).x",
                "return -penalised_dual(guess)[1]",
            ),
            "one gradient step",
        ),
        "stopped early": (
            (Edit('"maxiter": 1000', '"maxiter": 2'),),
            "penalised gradient",
        ),
        "the reward, not the weights": (
            Edit("options=options).x", "options=options).x @ features.T"),
            "shape",
        ),
    },
    "06.5": {
        "discount on the whole of Q": (
            Edit(
                "reward[:, None] + discount * transitions @ values",
                "discount * (reward[:, None] + transitions @ values)",
            ),
            "in every direction",
        ),
        "starts anywhere": (
            Edit(
                "model, here = np.zeros(len(target)), start",
                "model, here = np.zeros(len(target)), np.full(len(start), 1 / len(start))",
            ),
            "in every direction",
        ),
        "one step short": (
            Edit("for _ in range(horizon)", "for _ in range(horizon - 1)"),
            "in every direction",
        ),
        "one policy for all times": (
            Edit("for pi in reversed(policies)", "for pi in [policies[-1]] * horizon"),
            "in every direction",
        ),
        "features of the next state": (
            Edit(
                "model = model + here @ features\n        here = discount * "
                'np.einsum("s,sa,sap->p", here, pi, transitions)',
                'here = discount * np.einsum("s,sa,sap->p", here, pi, transitions)\n'
                "        model = model + here @ features",
            ),
            "in every direction",
        ),
        "the target discounted": (
            Edit("return model - target", "return model - discount * target"),
            "in every direction",
        ),
        "scaled by 1 - discount": (
            Edit("return model - target", "return (1 - discount) * model - target"),
            "in every direction",
        ),
        "the first feature only": (
            Edit(
                "return model - target",
                "return np.append((model - target)[:1], np.zeros(len(target) - 1))",
            ),
            "in every direction",
        ),
        "unchanged": (Edit("discount * transitions", "transitions"), "missing from planning"),
        "no discount at all": (
            (
                Edit("discount * transitions", "transitions"),
                Edit("discount * np.einsum", "np.einsum"),
            ),
            "missing everywhere",
        ),
        "moved instead of added": (
            Edit("discount * np.einsum", "np.einsum"),
            "missing from the visits",
        ),
        "squared": (Edit("discount * transitions", "discount**2 * transitions"), "twice"),
        "hard max": (
            (
                Edit(
                    "values = (top + np.log(np.exp(q - top).sum(axis=1, keepdims=True)))[:, 0]",
                    "soft = top + np.log(np.exp(q - top).sum(axis=1, keepdims=True))\n"
                    "        values = top[:, 0]",
                ),
                Edit("np.exp(q - values[:, None])", "np.exp(q - soft)"),
            ),
            "hard maximum",
        ),
        "sign": (Edit("return model - target", "return target - model"), "sign is turned"),
        "no target": (Edit("return model - target", "return model"), "target is missing"),
        "policies in the wrong order": (
            Edit("for pi in reversed(policies):", "for pi in policies:"),
            "in every direction",
        ),
    },
}
