"""Wrong answers to the exercises of chapter 3, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "03.1": {
        "reference made to sum to one": (
            Edit(
                "x = q",
                "reference = reference / reference.sum(axis=1, keepdims=True)\n        x = q",
            ),
            "made to sum to one",
        ),
        "one maximum for all states": (
            Edit("x.max(axis=1, keepdims=True)", "x.max(keepdims=True)"),
            "finite|overflow",
        ),
        "policy overflows": (
            Edit("np.exp(x - log_z)", "np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)"),
            "finite|overflow",
        ),
        "a little of everything": (
            Edit("np.log(reference)", "np.log(reference + 1e-8)"),
            "forbids",
        ),
        "zero of the reference passed over": (
            Edit("np.log(reference)", "np.log(np.where(reference > 0, reference, 1.0))"),
            "forbids",
        ),
        "price at most one": (
            Edit("x = q", "beta = min(beta, 1.0)\n        x = q"),
            "price above 1",
        ),
        "values clipped": (
            Edit("x.max(axis=1, keepdims=True)", "x.max(axis=1, keepdims=True).clip(-1e4, 1e4)"),
            "finite|overflow",
        ),
        "hard max": (
            "def soft_backup(q, beta, reference):\n"
            "    p = reference * np.exp(q / beta)\n"
            "    return q.max(axis=1), p / p.sum(axis=1, keepdims=True)",
            "hard maximum",
        ),
        "no reference": (
            Edit("+ np.log(reference)", "+ 0 * reference"),
            "reference is missing",
        ),
        "beta multiplies": (Edit("q / beta", "q * beta"), "beta multiplies inside"),
        "no inner temperature": (Edit("q / beta", "q"), "inside the exponential is missing"),
        "no outer temperature": (
            Edit("beta * log_z[:, 0]", "log_z[:, 0]"),
            "factor beta in front",
        ),
        "mean for sum": (Edit(".sum(", ".mean("), "the mean over actions"),
        "overflow": (
            Edit("x.max(axis=1, keepdims=True)", "np.zeros((len(q), 1))"),
            "finite|overflow",
        ),
        "policy not normalised": (Edit("np.exp(x - log_z)", "np.exp(x)"), "sum to one"),
        "policy without reference": (
            Edit(
                "np.exp(x - log_z)",
                "np.exp(q / beta - q.max(axis=1, keepdims=True) / beta) / "
                "np.exp(q / beta - q.max(axis=1, keepdims=True) / beta)"
                ".sum(axis=1, keepdims=True)",
            ),
            "missing from the policy",
        ),
        "shift by the wrong maximum": (
            "def soft_backup(q, beta, reference):\n"
            "    top = q.max(axis=1, keepdims=True)\n"
            "    w = reference * np.exp((q - top) / beta)\n"
            "    z = w.sum(axis=1, keepdims=True)\n"
            "    with np.errstate(all='ignore'):\n"
            "        return (top + beta * np.log(z))[:, 0], w / z",
            "forbids|finite",
        ),
        "values only": (
            Edit("return beta * log_z[:, 0], np.exp(x - log_z)", "return beta * log_z[:, 0]"),
            "2 values",
        ),
    },
    "03.2": {
        "the last state is the end": (
            Edit(
                "np.where(mdp.terminal,",
                "np.where(np.arange(mdp.n_states) == mdp.n_states - 1,",
            ),
            "soft Bellman equation",
        ),
        "one end only": (
            Edit(
                "np.where(mdp.terminal,",
                "np.where(np.arange(mdp.n_states) == np.argmax(mdp.terminal),",
            ),
            "soft Bellman equation",
        ),
        "reference made to sum to one": (
            Edit("np.log(reference)", "np.log(reference / reference.sum(axis=1, keepdims=True))"),
            "made to sum to one",
        ),
        "one decision fewer": (
            Edit("reversed(range(horizon))", "reversed(range(horizon - 1))"),
            "soft Bellman equation",
        ),
        "policy of the next time": (
            Edit("return values, policy", "return values, np.append(policy[1:], policy[-1:], 0)"),
            "policy at time t",
        ),
        "policy without reference": (
            Edit(
                "return values, policy",
                "policy = policy / reference\n"
                "    return values, policy / policy.sum(axis=2, keepdims=True)",
            ),
            "policy at time t",
        ),
        "begins with the reward at the end": (
            Edit("    for t in", "    values[horizon] = mdp.reward.max(axis=1)\n    for t in"),
            "soft Bellman equation",
        ),
        "discount counted from the start": (
            Edit("mdp.discount *", "mdp.discount**t *"),
            "soft Bellman equation",
        ),
        "expected value under the reference": (
            Edit("beta * log_z[:, 0]", "(reference * q).sum(axis=1)"),
            "soft Bellman equation",
        ),
        "hard max": (
            Edit("beta * log_z[:, 0]", "q.max(axis=1)"),
            "hard maximum",
        ),
        "no discount": (Edit("mdp.discount * ", ""), "discount is missing"),
        "no reference": (
            Edit("+ np.log(reference)", "+ 0 * reference"),
            "reference is missing",
        ),
        "dice inside": (
            Edit(
                "q = mdp.reward + mdp.discount * (dense @ values[t + 1])",
                "q = mdp.reward + beta * np.log(np.where(mdp.terminal[:, None], 1.0, "
                "dense @ np.exp(mdp.discount * values[t + 1] / beta)))",
            ),
            "dice stand inside",
        ),
        "value after the end": (
            Edit("np.where(mdp.terminal, 0.0, beta * log_z[:, 0])", "beta * log_z[:, 0]"),
            "terminal states have a value",
        ),
        "forwards": (Edit("reversed(range(horizon))", "range(horizon)"), "runs forwards"),
        "no last time": (
            Edit("np.zeros((horizon + 1, mdp.n_states))", "np.zeros((horizon, mdp.n_states))"),
            "IndexError|shape",
        ),
        "one policy for all times": (
            Edit("return values, policy", "return values, np.repeat(policy[:1], horizon, 0)"),
            "same at all times",
        ),
        "greedy policy": (
            Edit(
                "return values, policy",
                "return values, np.eye(mdp.n_actions)[policy.argmax(axis=2)]",
            ),
            "greedy",
        ),
    },
    "03.3": {
        "prices put in order": (
            Edit("    x = reward", "    betas = np.sort(betas)\n    x = reward"),
            "at each beta",
        ),
        "price added to a gain": (
            Edit("return gains, nats", "return gains - betas * nats, nats"),
            "the price taken off",
        ),
        "the two exchanged": (Edit("return gains, nats", "return nats, gains"), "gains are"),
        "uniform reference in the KL": (
            Edit("(log_policy - np.log(reference))", "(log_policy + np.log(len(reference)))"),
            "nats are KL",
        ),
        "exponent cut at 700": (
            Edit(
                "    x = reward / betas[:, None] + np.log(reference)\n",
                "    x = (reward / betas[:, None] + np.log(reference)).clip(-700, 700)\n",
            ),
            "overflow|costs no nats|finite",
        ),
        "large shifts only upwards": (
            Edit("x.max(axis=1, keepdims=True)", "x.max(axis=1, keepdims=True).clip(min=0.0)"),
            "overflow|costs no nats|finite",
        ),
        "mean price for all": (
            Edit("reward / betas[:, None]", "reward / np.full_like(betas, betas.mean())[:, None]"),
            "at each beta",
        ),
        "gain over the reference": (
            Edit("policy @ reward", "policy @ reward - reference @ reward"),
            "gain over the reference",
        ),
        "value for reward": (
            Edit("policy @ reward", "betas * log_z[:, 0]"),
            "the price taken off",
        ),
        "no reference": (
            Edit("+ np.log(reference)\n", "+ 0 * reference\n"),
            "reference is missing",
        ),
        "beta multiplies": (Edit("reward / betas", "reward * betas"), "beta multiplies"),
        "KL exchanged": (
            Edit(
                "(policy * (log_policy - np.log(reference)))",
                "(reference * (np.log(reference) - log_policy))",
            ),
            "exchanged",
        ),
        "sign": (
            Edit("(log_policy - np.log(reference))", "(np.log(reference) - log_policy)"),
            "sign is turned",
        ),
        "entropy": (
            Edit("(policy * (log_policy - np.log(reference)))", "(-policy * log_policy)"),
            "the entropy",
        ),
        "priced nats": (Edit("return gains, nats", "return gains, betas * nats"), "by beta"),
        "bits": (Edit("return gains, nats", "return gains, nats / np.log(2)"), "in bits"),
        "overflow": (
            "def frontier(reward, reference, betas):\n"
            "    with np.errstate(all='ignore'):\n"
            "        w = reference * np.exp(reward / betas[:, None])\n"
            "        p = w / w.sum(axis=1, keepdims=True)\n"
            "        return p @ reward, (p * np.log(p / reference)).sum(axis=1)",
            "finite|NaN|overflow",
        ),
        "zero times minus infinity": (
            "def frontier(reward, reference, betas):\n"
            "    x = reward / betas[:, None] + np.log(reference)\n"
            "    w = np.exp(x - x.max(axis=1, keepdims=True))\n"
            "    p = w / w.sum(axis=1, keepdims=True)\n"
            "    with np.errstate(all='ignore'):\n"
            "        return p @ reward, (p * np.log(p / reference)).sum(axis=1)",
            "underflows|costs no nats|finite",
        ),
    },
    "03.4": {
        "reduceat": (
            """
            def implicit_reward(policy_logp, reference_logp, mask, beta):
                lengths = mask.sum(axis=1)
                ratio = policy_logp[mask] - reference_logp[mask]
                return beta * np.add.reduceat(ratio, np.cumsum(lengths) - lengths)
            """,
            "without a token",
        ),
        "the first tokens": (
            "def implicit_reward(policy_logp, reference_logp, mask, beta):\n"
            "    return np.array([\n"
            "        beta * (p[: m.sum()] - r[: m.sum()]).sum()\n"
            "        for p, r, m in zip(policy_logp, reference_logp, mask)\n"
            "    ])",
            "from the left",
        ),
        "all as long as the first": (
            Edit("np.where(mask, policy_logp", "np.where(mask[:1], policy_logp"),
            "log-ratio of the whole response",
        ),
        "the last token forgotten": (
            Edit("ratio.sum(axis=1)", "ratio[:, :-1].sum(axis=1)"),
            "log-ratio of the whole response",
        ),
        "first token forgotten": (
            Edit("ratio.sum(axis=1)", "ratio[:, 1:].sum(axis=1)"),
            "log-ratio of the whole response",
        ),
        "only the policy's padding": (
            "def implicit_reward(policy_logp, reference_logp, mask, beta):\n"
            "    return beta * (np.where(mask, policy_logp, 0.0).sum(axis=1)\n"
            "                   - (reference_logp * mask).sum(axis=1))",
            "padded positions",
        ),
        "infinite means padding": (
            "def implicit_reward(policy_logp, reference_logp, mask, beta):\n"
            "    real = np.isfinite(policy_logp) & np.isfinite(reference_logp)\n"
            "    return beta * np.where(real, policy_logp - reference_logp, 0.0).sum(axis=1)",
            "padding is counted",
        ),
        "mean over tokens": (
            Edit(".sum(axis=1)", ".sum(axis=1) / mask.sum(axis=1)"),
            "averaged",
        ),
        "mean over positions": (Edit(".sum(axis=1)", ".mean(axis=1)"), "padding too"),
        "padding counted": (
            Edit(
                "np.where(mask, policy_logp - reference_logp, 0.0)",
                "(policy_logp - reference_logp)",
            ),
            "padding is counted",
        ),
        "no reference": (Edit("policy_logp - reference_logp", "policy_logp"), "reference is"),
        "exchanged": (
            Edit("policy_logp - reference_logp", "reference_logp - policy_logp"),
            "exchanged",
        ),
        "beta divides": (
            Edit("return beta * ratio.sum(axis=1)", "return ratio.sum(axis=1) / beta"),
            "beta divides",
        ),
        "no beta": (Edit("return beta * ", "return "), "beta is missing"),
        "ratio of probabilities": (
            Edit("beta * ratio.sum(axis=1)", "beta * np.exp(ratio.sum(axis=1))"),
            "not its logarithm",
        ),
        "mask multiplied": (
            "def implicit_reward(policy_logp, reference_logp, mask, beta):\n"
            "    with np.errstate(invalid='ignore'):\n"
            "        return beta * ((policy_logp - reference_logp) * mask).sum(axis=1)",
            "padded positions",
        ),
        "wrong axis": (Edit(".sum(axis=1)", ".sum(axis=0)"), "shape|over responses"),
    },
    "03.5": {
        "the last state is the end": (
            Edit(
                "np.where(mdp.terminal,",
                "np.where(np.arange(mdp.n_states) == mdp.n_states - 1,",
            ),
            "soft optimum for this reference",
        ),
        "reference counted twice": (
            Edit("np.log(reference)", "2 * np.log(reference)"),
            "soft optimum for this reference",
        ),
        "mean in place of the reference": (
            Edit("np.log(reference)", "np.log(1 / mdp.n_actions)"),
            "every reference for a drunkard",
        ),
        "policy without the price": (
            Edit("values[:, None]) / beta)", "values[:, None]))"),
            "soft optimum for this reference",
        ),
        "value without the price": (
            Edit("values = beta * (", "values = ("),
            "soft optimum for this reference|finite",
        ),
        "greedy policy": (
            Edit(
                "return policy / policy.sum(axis=1, keepdims=True)",
                "return np.eye(mdp.n_actions)[policy.argmax(axis=1)]",
            ),
            "soft optimum for this reference",
        ),
        "the reference itself": (
            Edit("return policy / policy.sum(axis=1, keepdims=True)", "return reference"),
            "soft optimum for this reference",
        ),
        "unchanged": (
            Edit("x = q / beta + np.log(reference)", "x = q / beta"),
            "values do not know the reference",
        ),
        "reference moved, not added": (
            Edit("policy = reference * np.exp(", "policy = np.exp("),
            "policy does not know the reference",
        ),
        "no reference at all": (
            (
                Edit("x = q / beta + np.log(reference)", "x = q / beta"),
                Edit("policy = reference * np.exp(", "policy = np.exp("),
            ),
            "neither values nor policy",
        ),
        "hard max": (
            Edit("beta * (top + np.log(np.exp(x - top[:, None]).sum(axis=1)))", "q.max(axis=1)"),
            "hard maximum",
        ),
        "no discount": (Edit("mdp.discount * ", ""), "discount is missing"),
        "one sweep": (Edit("for _ in range(500)", "for _ in range(1)"), "one sweep"),
        "not normalised": (
            Edit("return policy / policy.sum(axis=1, keepdims=True)", "return policy * 2"),
            "sum to one",
        ),
    },
}
