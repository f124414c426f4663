"""Wrong answers to the exercises of chapter 5, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "05.1": {
        "a reward that is the same everywhere explains nothing": (
            Edit("    gains", "    if np.ptp(reward) == 0:\n        return -1.0\n    gains"),
            "on the edge of the cone",
        ),
        "first state left out": (
            Edit("for s in range(n_states)", "for s in range(1, n_states)"),
            "left out|smallest of all",
        ),
        "last state left out": (
            Edit("for s in range(n_states)", "for s in range(n_states - 1)"),
            "left out|smallest of all",
        ),
        "first action left out": (
            Edit("for a in range(n_actions)", "for a in range(1, n_actions)"),
            "left out|smallest of all|ValueError",
        ),
        "last action left out": (
            Edit("for a in range(n_actions)", "for a in range(n_actions - 1)"),
            "left out|smallest of all|ValueError",
        ),
        "only the first state": (
            Edit("for s in range(n_states)", "for s in [0]"),
            "left out|smallest of all",
        ),
        "only the next action": (
            Edit("if a != chosen[s]", "if a == (chosen[s] + 1) % n_actions"),
            "left out|smallest of all|above zero",
        ),
        "optimal values, not the policy's": (
            Edit(
                "    gains = [",
                "    for _ in range(500):\n"
                "        values = reward + discount * (transitions @ values).max(axis=1)\n"
                "    gains = [",
            ),
            "smallest of all|left out",
        ),
        "discounted margin": (
            Edit("return min(gains)", "return discount * min(gains)"),
            "smallest of all",
        ),
        "only a verdict": (
            Edit("return min(gains)", "return float(min(gains) >= 0)"),
            "smallest of all",
        ),
        "values without the reward here": (
            Edit("    gains = [", "    values = values - reward\n    gains = ["),
            "smallest of all",
        ),
        "own action too": (Edit("if a != chosen[s]", ""), "compared with itself"),
        "sign": (
            Edit("(P_pi[s] - transitions[s, a])", "(transitions[s, a] - P_pi[s])"),
            "sign is turned",
        ),
        "reward for value": (
            Edit("np.linalg.solve(np.eye(n_states) - discount * P_pi, reward)", "reward"),
            "stands where its value",
        ),
        "transposed": (Edit("discount * P_pi,", "discount * P_pi.T,"), "transposed"),
        "no discount": (Edit("discount * P_pi,", "0.999999 * P_pi,"), "discount is missing"),
        "largest": (Edit("return min(", "return max("), "largest"),
        "mean": (Edit("return min(", "return np.mean("), "mean over conditions"),
    },
    "05.2": {
        "reward left in terminal states": (
            Edit(
                "np.where(terminal[:, None], 0.0, new)",
                "np.where(terminal[:, None], reward, new)",
            ),
            "keep the reward",
        ),
        "the last state is the end": (
            Edit(
                "    phi = ",
                "    terminal = np.arange(len(terminal)) == len(terminal) - 1\n    phi = ",
            ),
            "shaping is the discounted potential",
        ),
        "one end only": (
            Edit(
                "    phi = ",
                "    terminal = np.arange(len(terminal)) == terminal.argmax()\n    phi = ",
            ),
            "shaping is the discounted potential",
        ),
        "here and there exchanged": (
            Edit(
                "discount * transitions @ phi - phi[:, None]",
                "phi[:, None] - discount * transitions @ phi",
            ),
            "sign is turned",
        ),
        "potential here discounted too": (
            Edit(
                "discount * transitions @ phi - phi[:, None]",
                "discount * (transitions @ phi - phi[:, None])",
            ),
            "discounted too",
        ),
        "best next state": (
            Edit("transitions @ phi", "np.where(transitions > 0, phi, -np.inf).max(axis=2)"),
            "shaping is the discounted potential",
        ),
        "potential clipped at zero": (
            Edit(
                "np.where(terminal, 0.0, potential)",
                "np.where(terminal, 0.0, potential).clip(min=0.0)",
            ),
            "shaping is the discounted potential",
        ),
        "leftover at the end": (
            Edit("discount * transitions @ phi", "discount * transitions @ potential"),
            "pays for ending",
        ),
        "no discount": (Edit("discount * transitions", "transitions"), "discount is missing"),
        "sign": (
            Edit(
                "reward + discount * transitions @ phi - phi[:, None]",
                "reward - discount * transitions @ phi + phi[:, None]",
            ),
            "sign is turned",
        ),
        "not subtracted": (Edit(" - phi[:, None]", ""), "not subtracted"),
        "shaping only": (Edit("reward + discount", "discount"), "without the reward"),
        "pays after the end": (
            Edit("np.where(terminal[:, None], 0.0, new)", "new"),
            "future is counted in terminal states",
        ),
        "changes its argument": (
            Edit(
                "phi = np.where(terminal, 0.0, potential)",
                "potential[terminal] = 0.0; phi = potential",
            ),
            "in place",
        ),
    },
    "05.3": {
        "share returned unclipped": (
            Edit(
                "mean + alpha * along, alpha",
                "mean + alpha * along, along @ (target - mean) / length if length > 0 else 0.0",
            ),
            "share stays between 0 and 1",
        ),
        "not below zero only": (
            Edit("np.clip(alpha, 0.0, 1.0)", "max(alpha, 0.0)"),
            "stays between the two",
        ),
        "not above one only": (
            Edit("np.clip(alpha, 0.0, 1.0)", "min(alpha, 1.0)"),
            "stays between the two",
        ),
        "point unclipped": (
            Edit(
                "alpha = float(np.clip(alpha, 0.0, 1.0))\n    return mean + alpha * along, alpha",
                "return mean + alpha * along, float(np.clip(alpha, 0.0, 1.0))",
            ),
            "stays between the two",
        ),
        "size of the share": (
            Edit("np.clip(alpha, 0.0, 1.0)", "min(abs(alpha), 1.0)"),
            "stays between the two",
        ),
        "nothing new counts whole": (Edit("else 0.0", "else 1.0"), "its share is 0"),
        "nothing new leads to zero": (
            Edit(
                "    length =",
                "    if not along.any():\n        return 0 * mean, 0.0\n    length =",
            ),
            "the point stays",
        ),
        "target from the origin": (
            Edit("along @ (target - mean)", "along @ target"),
            "nearest to the expert",
        ),
        "halfway": (Edit("np.clip(alpha, 0.0, 1.0)", "0.5"), "nearest to the expert"),
        "share in per cent": (
            Edit("along, alpha", "along, 100 * alpha"),
            "nearest to the expert",
        ),
        "unclipped": (Edit("np.clip(alpha, 0.0, 1.0)", "alpha"), "stays between the two"),
        "other end": (
            Edit(
                "alpha = float(np.clip(alpha, 0.0, 1.0))",
                "alpha = 1.0 - float(np.clip(alpha, 0.0, 1.0))",
            ),
            "belongs to the old point",
        ),
        "length, not squared": (Edit("/ length", "/ length**0.5"), "not by its square"),
        "distance to the expert": (
            Edit("length = along @ along", "length = (target - mean) @ (target - mean)"),
            "distance to the expert|nothing new|stays",
        ),
        "jump": (Edit("mean + alpha * along, alpha", "newest, 1.0"), "jumped"),
        "zero over zero": (Edit("if length > 0 else 0.0", ""), "nothing new|finite|stays|NaN"),
    },
    "05.4": {
        "two hundred steps": (
            Edit(
                "visits = np.linalg.solve(np.eye(len(start)) - discount * moves.T, start)",
                "visits = start\n        for _ in range(200):\n"
                "            visits = start + discount * moves.T @ visits",
            ),
            "discount reaches far",
        ),
        "starts anywhere": (
            Edit("moves.T, start)", "moves.T, np.ones_like(start) / len(start))"),
            "visits every state",
        ),
        "most visited action": (
            Edit(
                "mixed / mixed.sum(axis=1, keepdims=True)",
                "np.eye(mixed.shape[1])[mixed.argmax(axis=1)]",
            ),
            "visits every state",
        ),
        "two policies": (
            Edit("zip(shares, policies, strict=True)", "zip(shares[:2], policies[:2])"),
            "visits every state",
        ),
        "best action of each policy": (
            Edit(
                "visits[:, None] * policy",
                "visits[:, None] * (policy == policy.max(1, keepdims=True))",
            ),
            "visits every state",
        ),
        "visits of actions made equal": (
            Edit("share * visits[:, None]", "share * visits[:, None] / visits.max()"),
            "visits every state",
        ),
        "normalised over everything": (
            Edit("mixed.sum(axis=1, keepdims=True)", "mixed.sum()"),
            "sum to one",
        ),
        "one step only": (
            Edit(
                "np.linalg.solve(np.eye(len(start)) - discount * moves.T, start)",
                "start + discount * moves.T @ start",
            ),
            "visits every state",
        ),
        "dice in every step": (
            "def mixture_policy(transitions, start, discount, policies, shares):\n"
            "    policy = np.tensordot(shares, policies, axes=1)\n"
            "    moves = np.einsum('sa,sap->sp', policy, transitions)\n"
            "    visits = np.linalg.solve(np.eye(len(start)) - discount * moves.T, start)\n"
            "    rho = visits[:, None] * policy\n"
            "    return rho / rho.sum(axis=1, keepdims=True)",
            "mixed the choices",
        ),
        "mixed choices": (
            "def mixture_policy(transitions, start, discount, policies, shares):\n"
            "    return np.tensordot(shares, policies, axes=1)",
            "mixed the choices",
        ),
        "all alike": (Edit("share * visits", "visits"), "count alike"),
        "no discount": (Edit("discount * moves.T", "0.999999 * moves.T"), "without discount"),
        "last policy": (
            Edit("return mixed / mixed.sum(axis=1, keepdims=True)", "return policies[-1]"),
            "last policy",
        ),
        "largest share": (
            Edit(
                "return mixed / mixed.sum(axis=1, keepdims=True)",
                "return policies[np.argmax(shares)]",
            ),
            "largest share",
        ),
        "not normalised": (
            Edit("mixed / mixed.sum(axis=1, keepdims=True)", "mixed"),
            "distribution|sum",
        ),
        "transposed": (Edit("moves.T", "moves"), "visits every state"),
    },
    "05.5": {
        "all as long as the first": (
            Edit(
                "np.arange(len(states)) - np.repeat(begins, lengths)",
                "np.arange(len(states)) % lengths[0]",
            ),
            "its own first step",
        ),
        "the first demonstration only": (
            Edit(
                "    begins =",
                "    states, lengths = states[: lengths[0]], lengths[:1]\n    begins =",
            ),
            "its own first step",
        ),
        "the last demonstration forgotten": (
            Edit(
                "return weight @",
                "weight = weight * (np.arange(len(states)) < begins[-1])\n    return weight @",
            ),
            "its own first step",
        ),
        "the last step of each forgotten": (
            Edit(
                "return weight @",
                "weight = weight * (step + 1 < np.repeat(lengths, lengths))\n    return weight @",
            ),
            "its own first step",
        ),
        "counted from the end": (
            Edit(
                "weight = discount**step",
                "weight = discount ** (np.repeat(lengths, lengths) - 1 - step)",
            ),
            "its own first step",
        ),
        "weights sum to one": (Edit("/ len(lengths)", "/ weight.sum()"), "its own first step"),
        "mean of the demonstrations' means": (
            Edit(
                "weight = discount**step",
                "weight = discount**step / np.repeat(lengths, lengths)",
            ),
            "its own first step",
        ),
        "a state counts once": (
            Edit(
                "return weight @ features[states]",
                "first = np.unique(states, return_index=True)[1]\n"
                "    return weight[first] @ features[states[first]]",
            ),
            "its own first step",
        ),
        "the bug": (
            Edit("np.arange(len(states)) - np.repeat(begins, lengths)", "np.arange(len(states))"),
            "time runs on",
        ),
        "no discount": (Edit("discount**step", "1.0**step"), "discount is missing"),
        "starts at one": (Edit("discount**step", "discount**(step + 1)"), "discounted already"),
        "mean over steps": (Edit("/ len(lengths)", "/ len(states)"), "number of steps"),
        "no mean": (Edit("/ len(lengths)", ""), "no mean"),
        "ends for begins": (
            Edit("np.cumsum(lengths) - lengths", "np.cumsum(lengths)"),
            "its own first step",
        ),
    },
}
