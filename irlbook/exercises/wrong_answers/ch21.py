"""Wrong answers to the exercises of chapter 21, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "21.1": {
        "uniform": (
            Edit("policy, transitions)", "np.ones_like(policy) / policy.shape[1], transitions)"),
            "uniform",
        ),
        "only the last state": (
            Edit(
                'chain = np.einsum("sa,sat->st", policy, transitions)',
                'chain = np.einsum("sa,sat->st", policy, transitions)\n'
                "    terminal = np.arange(len(chain)) == len(chain) - 1",
            ),
            "only the last state",
        ),
        "an end costs a step": (Edit("(~terminal).astype(float)", "np.ones(len(chain))"), "an end"),
        "discounted": (
            Edit("np.eye(len(chain)) - chain", "np.eye(len(chain)) - 0.99 * chain"),
            "discounted",
        ),
        "last step missing": (
            Edit("return np.linalg.solve(", "return -1.0 * ~terminal + np.linalg.solve("),
            "last step",
        ),
        "ends go on": (Edit("chain[terminal] = 0.0", "chain[terminal] *= 0.5"), r"solve \(21\.1\)"),
        "the last state is no end": (
            Edit(
                "chain[terminal] = 0.0",
                "terminal = np.append(terminal[:-1], False)\n    chain[terminal] = 0.0",
            ),
            "if the last state is an end",
        ),
    },
    "21.2": {
        "exchanged": (
            "def share_out(attention, reward, beta):\n"
            "    r = (1 - beta) * attention * reward\n"
            "    r[-1] += beta * reward\n"
            "    return r",
            "exchanged",
        ),
        "first token": (Edit("rewards[-1]", "rewards[0]"), "first token"),
        "alike": (
            Edit(
                "beta * attention * reward",
                "beta * reward * np.ones(len(attention)) / len(attention)",
            ),
            "alike",
        ),
        "share of one": (Edit("beta * attention * reward", "beta * attention"), "share of 1"),
        "lost": (Edit("rewards[-1] += (1 - beta) * reward", "pass"), "lost"),
        "no negative": (
            Edit("(1 - beta) * reward", "(1 - beta) * max(reward, 0.0)"),
            "negative reward|attention-based",
        ),
        "size of the reward": (
            "def share_out(attention, reward, beta):\n"
            "    r = beta * attention * abs(reward)\n"
            "    r[-1] += reward - beta * abs(reward)\n"
            "    return r",
            "negative reward",
        ),
    },
    "21.3": {
        "too early": (Edit("reached[later]", "reached[later - 1]"), "too early"),
        "last goal": (Edit("reached[later]", "reached[[-1] * len(later)]"), "last goal"),
        "one bit": (Edit(".all(axis=1)", ".any(axis=1)"), "one bit"),
        "before the step": (Edit("reached[1:] ==", "reached[:-1] =="), "before the step"),
        "one and zero": (Edit("0.0, -1.0", "1.0, 0.0"), "success pays 1"),
        "stored rewards": (
            Edit(
                "np.where((reached[1:] == goals).all(axis=1), 0.0, -1.0)",
                "np.full(len(later), -1.0)",
            ),
            "anew",
        ),
        "times compared": (
            Edit("(reached[1:] == goals).all(axis=1)", "later == np.arange(1, len(later) + 1)"),
            "pays 0 if the bits",
        ),
    },
    "21.4": {
        "as it was": (
            Edit("np.where(terminated, 0.0, phi[next_states])", "phi[next_states]"),
            "still there",
        ),
        "last step unshaped": (
            "def shaped_rewards(rewards, phi, states, next_states, terminated, discount):\n"
            "    extra = discount * phi[next_states] - phi[states]\n"
            "    return rewards + np.where(terminated, 0.0, extra)",
            "no shaping",
        ),
        "no discount": (Edit("discount * np.where", "np.where"), "discount"),
        "signs": (
            "def shaped_rewards(rewards, phi, states, next_states, terminated, discount):\n"
            "    ahead = np.where(terminated, 0.0, phi[next_states])\n"
            "    return rewards - discount * ahead + phi[states]",
            "signs",
        ),
        "only ends": (
            "def shaped_rewards(rewards, phi, states, next_states, terminated, discount):\n"
            "    return rewards - np.where(terminated, phi[states], 0.0)",
            "only ends",
        ),
        "sign of the state": (Edit("- phi[states]", "+ phi[states]"), "potential cancels"),
    },
    "21.5": {
        "row only": (
            "def duality_gap(payoff, row, column):\n"
            "    return (payoff @ column).max() - row @ payoff @ column",
            "only the row",
        ),
        "column only": (
            "def duality_gap(payoff, row, column):\n"
            "    return row @ payoff @ column - (row @ payoff).min()",
            "only the column",
        ),
        "column maximises": (Edit("(row @ payoff).min()", "(row @ payoff).max()"), "earn much"),
        "entries": (
            "def duality_gap(payoff, row, column):\n    return payoff.max() - payoff.min()",
            "single entries",
        ),
        "negative": (
            "def duality_gap(payoff, row, column):\n"
            "    return (row @ payoff).min() - (payoff @ column).max()",
            "negative",
        ),
        "half": (
            "def duality_gap(payoff, row, column):\n"
            "    return ((payoff @ column).max() - (row @ payoff).min()) / 2",
            "added up",
        ),
        "a little added": (
            Edit("(row @ payoff).min()", "(row @ payoff).min() + 1e-8"),
            "no gap in rock",
        ),
    },
}
