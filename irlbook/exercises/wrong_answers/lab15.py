"""Wrong answers to the proof lab, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "15L.1": {
        "nothing": (
            "def spoiling_potential(P, reward, discount):\n    return np.zeros(reward.shape)",
            "no policy that is optimal",
        ),
        "of the state alone": (
            Edit("price * best", "np.random.default_rng(0).normal(size=(len(P), 1)) + 0 * best"),
            "no policy that is optimal",
        ),
        "the optimal Q": (Edit("price * best", "q"), "no policy that is optimal"),
        "rewards the best": (Edit("price * best", "-price * best"), "no policy that is optimal"),
        "punishes the others": (Edit("price * best", "price * ~best"), "no policy that is optimal"),
        "punishes the worst": (
            Edit("price * best", "price * (q == q.min(axis=1, keepdims=True))"),
            "no policy that is optimal",
        ),
        "too small": (Edit("price * best", "1e-9 * best"), "no policy that is optimal"),
        "infinite": (Edit("price * best", "np.where(best, np.inf, 0.0)"), "finite"),
        "too large": (Edit("price * best", "1e9 * best"), "larger than a million"),
        "one per state": (Edit("price * best", "price * best.any(axis=1)"), "shape"),
    },
    "15L.3": {
        "not centred": (Edit("features - features.mean(axis=0)", "features"), "does not change"),
        "largest direction": (Edit("[-1]", "[0]"), "does not change"),
        "not of length one": (Edit("[-1]", "[-1] * 2"), "length 1"),
        "zero": (
            "def flat_direction(features):\n    return np.zeros(features.shape[1])",
            "length 1",
        ),
        "all ones": (
            "def flat_direction(features):\n"
            "    return np.ones(features.shape[1]) / features.shape[1] ** 0.5",
            "does not change",
        ),
        "towards the mean": (
            "def flat_direction(features):\n    d = features.mean(axis=0)\n"
            "    return d / np.linalg.norm(d)",
            "does not change",
        ),
        "centred by rows": (
            Edit("features.mean(axis=0)", "features.mean(axis=1, keepdims=True)"),
            "does not change",
        ),
        "left vector": (
            Edit("np.linalg.svd(centred)[2][-1]", "np.linalg.svd(centred)[0][-1]"),
            "shape",
        ),
    },
    "15L.4": {
        "no expert": (Edit(" - weights @ expert", ""), "g along the way"),
        "expert added": (Edit("- weights @ expert", "+ weights @ expert"), "g along the way"),
        "no logarithm": (
            Edit("np.log(np.exp(scores).sum(axis=1))", "np.exp(scores).sum(axis=1)"),
            "g along the way",
        ),
        "a mean for Z": (
            Edit("np.exp(scores).sum(axis=1)", "np.exp(scores).mean(axis=1)"),
            "g along the way",
        ),
        "backwards": (
            Edit("(1 - t)[:, None] * w + t[:, None] * v", "t[:, None] * w + (1 - t)[:, None] * v"),
            "g along the way",
        ),
        "from zero": (Edit("(1 - t)[:, None] * w + t", "0 * w + t"), "g along the way"),
        "largest score": (
            Edit("np.log(np.exp(scores).sum(axis=1))", "scores.max(axis=1)"),
            "g along the way",
        ),
        "no chord": (
            Edit('    ax.plot(t[[0, -1]], g[[0, -1]], "--", label="chord")\n', ""),
            "straight line",
        ),
        "chord to the middle": (Edit("g[[0, -1]]", "g[[0, len(g) // 2]]"), "straight line"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "names exchanged": (
            (Edit('label="dual"', 'label="the chord"'), Edit('label="chord"', 'label="dual"')),
            "straight one",
        ),
        "no label": (Edit(', ylabel="g"', ""), "y axis"),
    },
    "15L.6": {
        "the rare ones pay": (Edit("return p, r", "return p, 1 - r"), "twice as noisy"),
        "uniform": (Edit("p[-1] = 0.95", "p[:] = 1 / n"), "twice as noisy"),
        "all rewards alike": (Edit("np.zeros(n)", "np.ones(n)"), "differ in their rewards"),
        "not normalised": (Edit("0.05 / (n - 1)", "0.06 / (n - 1)"), "sum to one"),
        "impossible responses": (
            (Edit("0.05 / (n - 1)", "0.0"), Edit("p[-1] = 0.95", "p[-1] = 1.0")),
            "probability of at least",
        ),
        "always three": (
            "def harmful_baseline(n):\n    return np.ones(3) / 3, np.arange(3.0)",
            "shape|number|array|at least",
        ),
        "negative probability": (
            Edit("p[-1] = 0.95", "p[-1] = 1.15\n    p[0] -= 0.2"),
            "negative|sum to one",
        ),
        "centred already": (
            Edit("return p, r", "return p, r - p @ r"),
            "twice as noisy",
        ),
        "too rare to tell from never": (
            (Edit("0.05 / (n - 1)", "1e-9"), Edit("p[-1] = 0.95", "p[-1] = 1 - p[:-1].sum()")),
            "at least 1e-05",
        ),
        "huge rewards": (Edit("return p, r", "return p, 1e6 * r"), "larger than a thousand"),
        "probabilities only": (
            Edit("return p, r", "return p"),
            "2 values|shape|probabilities|array",
        ),
    },
    "15L.8": {
        "the same": (
            "def other_reward(reward, reference, beta):\n    return reward.copy()",
            "less than every response",
        ),
        "doubled": (
            "def other_reward(reward, reference, beta):\n    return 2 * reward",
            "same best policy",
        ),
        "turned": (
            "def other_reward(reward, reference, beta):\n    return -reward",
            "same best policy",
        ),
        "shifted all": (
            "def other_reward(reward, reference, beta):\n    return reward - 100",
            "less than every response",
        ),
        "shifted a response": (
            "def other_reward(reward, reference, beta):\n    other = reward.copy()\n"
            "    other[:, 0] -= 100\n    return other",
            "same best policy",
        ),
        "shifted one entry": (
            "def other_reward(reward, reference, beta):\n    other = reward.copy()\n"
            "    other[np.unravel_index(reward.argmax(), reward.shape)] -= 1000\n    return other",
            "same best policy",
        ),
        "shifted up": (Edit("other[x] -=", "other[x] +="), "less than every response"),
        "shifted too little": (Edit("other[x] -=", "other[x] -= 1e-3 *"), "less than every"),
        "shifted the last prompt up": (
            "def other_reward(reward, reference, beta):\n    other = reward.copy()\n"
            "    other[reward.max(axis=1).argmin()] -= 500\n    return other",
            "less than every response",
        ),
        "shifted too far": (Edit("other[x] -=", "other[x] -= 1e5 +"), "ten thousand"),
        "the mean policy": (Edit("return other", "return other.mean(axis=1)"), "shape"),
    },
}
