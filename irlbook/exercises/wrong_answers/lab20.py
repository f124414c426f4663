"""Wrong answers to the lab of chapter 20, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_SOFT = "beta * logsumexp(soft[children[s]] / beta, b=policy[s])"
_MEAN = "policy[s] @ mean[children[s]]"
_Q = "q[live] = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))"
_KL = "reach @ kl"
_FINAL = "np.where(final, paid[row], following @ td)"
_BEST = "best = scores[states].argmax(axis=1)"
_LOG_Z = "log_z += total[:, 0] - np.log(n)"
_TAKEN = "states = np.take_along_axis(after, ancestors, axis=1)"
_RETURN = "return tilted(np.exp(high))"

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "20L.1": {
        "mean for soft": (Edit(_SOFT, "policy[s] @ soft[children[s]]"), "it is the mean value"),
        "best that follows": (Edit(_SOFT, "soft[children[s]].max()"), "best that can follow"),
        "uniform": (
            Edit(_SOFT, "beta * (logsumexp(soft[children[s]] / beta) - np.log(policy.shape[1]))"),
            "count alike",
        ),
        "summed": (Edit(_SOFT, "beta * logsumexp(soft[children[s]] / beta)"), "summed"),
        "beta upside down": (
            Edit(_SOFT, "logsumexp(soft[children[s]] * beta, b=policy[s]) / beta"),
            "upside down",
        ),
        "no beta in front": (Edit("beta * logsumexp", "logsumexp"), "beta log sum_a"),
        "overflow": (
            Edit(_SOFT, "beta * np.log(policy[s] @ np.exp(soft[children[s]] / beta))"),
            "finite",
        ),
        "whole are worth nothing": (
            Edit(
                "    return soft, mean",
                "    soft = np.where(children[:, 0] < 0, 0.0, soft)\n    return soft, mean",
            ),
            "worth 0",
        ),
        "whole mean nothing": (
            Edit(
                "    return soft, mean",
                "    mean = np.where(children[:, 0] < 0, 0.0, mean)\n    return soft, mean",
            ),
            "worth 0",
        ),
        "soft for mean": (Edit(_MEAN, "soft[s]"), "it is the soft value"),
        "plain average": (Edit(_MEAN, "mean[children[s]].mean()"), "count alike"),
        "exchanged": (Edit("return soft, mean", "return mean, soft"), "it is the mean value"),
        "from the front": (
            Edit("reversed(range(len(policy)))", "range(len(policy))"),
            "soft value",
        ),
        "a reward for the end of a response": (
            Edit("if children[s, 0] >= 0:", "if reward[s] == 0:"),
            "a constant in the reward",
        ),
    },
    "20L.2": {
        "no weight": (Edit("weight * scores", "scores"), "weight is missing"),
        "divided": (
            Edit("weight * scores[", "scores[children[live]] / weight + 0 * scores["),
            "divides",
        ),
        "no pi": (Edit("np.log(policy[live]) + ", ""), "pi is missing"),
        "power of pi": (
            Edit(
                "np.log(policy[live]) + weight * scores[children[live]]",
                "weight * (np.log(policy[live]) + scores[children[live]])",
            ),
            "power w",
        ),
        "probabilities added": (Edit("np.log(policy[live])", "policy[live]"), "are added"),
        "sign": (Edit("+ weight", "- weight"), "sign is turned"),
        "own score": (
            Edit("scores[children[live]]", "scores[live][:, None]"),
            "nothing changes",
        ),
        "whole rows too": (
            Edit("    return q", "    q[~live] = 0.0\n    return q"),
            "rows of whole responses changed",
        ),
        "whole rows uniform": (
            Edit("    return q", "    q[~live] = 1 / policy.shape[1]\n    return q"),
            "rows of whole responses changed",
        ),
        "best token": (
            Edit(_Q, "q[live] = np.eye(policy.shape[1])[logits.argmax(axis=1)]"),
            "best token only",
        ),
        "overflow": (
            Edit(_Q, "z = np.exp(logits)\n    q[live] = z / z.sum(axis=1, keepdims=True)"),
            "overflow|finite",
        ),
        "not normalised": (Edit(_Q, "q[live] = np.exp(logits)"), "proportional"),
        "no weight is weight one": (
            Edit("weight * scores", "(weight or 1.0) * scores"),
            "without weight",
        ),
    },
    "20L.3": {
        "pi writes": (Edit("reach[s] * q[s]", "reach[s] * policy[s]"), "language model writes"),
        "reward of all alike": (
            Edit("return reach @ reward,", "return reward[~live].mean(),"),
            "count alike",
        ),
        "summed KL": (Edit(_KL, "kl.sum()"), "summed, however"),
        "pi reaches": (
            Edit(
                "    return reach @ reward, reach @ kl",
                "    own = np.zeros(len(policy))\n    own[0] = 1.0\n"
                "    for s in np.flatnonzero(live):\n"
                "        own[children[s]] = own[s] * policy[s]\n"
                "    return reach @ reward, own @ kl",
            ),
            "weighted by how often pi",
        ),
        "per token": (Edit(_KL, "reach @ kl / reach[live].sum()"), "per token"),
        "bits": (Edit(_KL, "reach @ kl / np.log(2)"), "bits"),
        "first token": (Edit(_KL, "kl[0]"), "first token"),
        "sign": (Edit(_KL, "-(reach @ kl)"), "sign is turned"),
        "0 log 0": (
            Edit("said = q[s] > 0", "said = q[s] >= 0"),
            "finite|NaN|nan",
        ),
        "a little for 0": (
            (
                Edit("said = q[s] > 0", "said = q[s] >= 0"),
                Edit("np.log(q[s, said] /", "np.log((q[s, said] + 1e-3) /"),
            ),
            "KL\\(q",
        ),
        "other direction": (
            Edit(
                "kl[s] = q[s, said] @ np.log(q[s, said] / policy[s, said])",
                "kl[s] = policy[s, said] @ np.log(policy[s, said] / q[s, said])",
            ),
            "KL\\(q",
        ),
        "end not counted": (Edit("reach[live].sum()", "reach[live].sum() - 1"), "first token is"),
        "one more": (Edit("reach[live].sum()", "reach.sum()"), "as one more"),
        "all prefixes": (Edit("reach[live].sum()", "live.sum()"), "seldom they are reached"),
        "a little in every logarithm": (
            Edit(
                "np.log(q[s, said] / policy[s, said])",
                "np.log((q[s, said] + 1e-9) / policy[s, said])",
            ),
            "no KL from itself",
        ),
    },
    "20L.4": {
        "whole left out": (
            Edit(
                "np.nonzero(paths >= 0)", "np.nonzero((paths >= 0)[:, 1:] & (paths >= 0)[:, :-1])"
            ),
            "whole responses are left out",
        ),
        "empty left out": (
            (
                Edit("np.nonzero(paths >= 0)", "np.nonzero(paths[:, 1:] >= 0)"),
                Edit("    last = (", "    place = place + 1\n    last = ("),
            ),
            "empty prefix is left out",
        ),
        "whole only": (
            Edit(
                "    features =",
                "    row = np.arange(len(paths))\n    place = last = (paths >= 0).sum(axis=1) - 1\n"
                "    features =",
            ),
            "alone were fitted",
        ),
        "no ridge": (Edit("+ ridge * np.eye(phi.shape[1])", ""), "ridge is missing"),
        "ridge per row": (
            Edit("+ ridge *", "+ len(row) * ridge *"),
            "multiplied by the number",
        ),
        "exchanged": (
            Edit("return fit(paid[row]), td", "return td, fit(paid[row])"),
            "result of TD",
        ),
        "MC twice": (
            Edit("return fit(paid[row]), td", "return fit(paid[row]), fit(paid[row])"),
            "result of Monte",
        ),
        "one too few": (Edit("range(sweeps)", "range(sweeps - 1)"), "too few"),
        "one too many": (Edit("range(sweeps)", "range(sweeps + 1)"), "too many"),
        "score for the reward": (
            Edit("final = place + 1 >= last", "final = place >= last"),
            "stands in for its reward",
        ),
        "starts at Monte Carlo": (
            Edit("td = np.zeros(phi.shape[1])", "td = fit(paid[row])"),
            "begin at zero|next prefix's score",
        ),
        "padding": (
            Edit("np.nonzero(paths >= 0)", "np.nonzero(paths >= -1)"),
            "padding|least squares",
        ),
        "once each": (
            Edit(
                "    return fit(paid[row]), td",
                "    states, place = np.unique(paths[row, place], return_inverse=True)\n"
                "    target = np.bincount(place, weights=paid[row]) / np.bincount(place)\n"
                "    square = phi[states].T @ phi[states] + ridge * np.eye(phi.shape[1])\n"
                "    return np.linalg.solve(square, phi[states].T @ target), td",
            ),
            "counts once",
        ),
        "discounted": (
            Edit("following @ td)", "0.9 * (following @ td))"),
            "next prefix's score",
        ),
    },
    "20L.5": {
        "worst": (Edit("argmax", "argmin"), "worst is kept"),
        "first": (Edit(_BEST, "best = np.zeros(n, dtype=int)"), "first is kept"),
        "alone": (
            (
                Edit(f"        {_BEST}\n", ""),
                Edit(
                    "        states = np.repeat(states[np.arange(n), best][:, None], k, axis=1)\n",
                    "",
                ),
                Edit(
                    "    return states[:, 0], tokens",
                    f"    {_BEST}\n    return states[np.arange(n), best], tokens",
                ),
            ),
            "run on alone",
        ),
        "one candidate fewer": (
            Edit(_BEST, "best = scores[states][:, 1:].argmax(axis=1) + 1"),
            "too few",
        ),
        "blocks of one": (Edit("range(block)", "range(1)"), "blocks have one token"),
        "a longer block": (Edit("range(block)", "range(block + 1)"), "longer by a token"),
        "uniform tokens": (
            Edit("np.cumsum(policy, axis=1)", "np.cumsum(policy * 0 + 1, axis=1)"),
            "other frequencies|looks as if",
        ),
        "tokens of the kept": (
            Edit("tokens += live.sum(axis=1)", "tokens += live[:, 0]"),
            "only the kept",
        ),
        "tokens of the finished": (
            Edit("tokens += live.sum(axis=1)", "tokens += k"),
            "draws nothing more",
        ),
        "not to the end": (
            Edit("while (children[states, 0] >= 0).any():", "for _ in range(1):"),
            "whole response",
        ),
        "no seed": (Edit("default_rng(seed)", "default_rng()"), "same seed"),
        "two of the best": (
            Edit(
                "        states = np.repeat(states[np.arange(n), best][:, None], k, axis=1)",
                "        order = np.argsort(-scores[states], axis=1)[:, :2]\n"
                "        states = np.take_along_axis(states, np.resize(order, (n, k)) * 0 + "
                "order[:, np.arange(k) % 2], axis=1)",
            ),
            "other frequencies|looks as if",
        ),
        "always the same seed": (Edit("default_rng(seed)", "default_rng(0)"), "another seed"),
        "tokens from elsewhere": (
            Edit(
                "return states[:, 0], tokens",
                "return states[:, 0], np.random.default_rng().permutation(tokens)",
            ),
            "the same tokens",
        ),
        "tokens of another response": (
            Edit("return states[:, 0], tokens", "return states[:, 0], tokens[::-1]"),
            "k = 1",
        ),
        "states alone": (Edit("return states[:, 0], tokens", "return states[:, 0]"), "2 values"),
    },
    "20L.6": {
        "sum for the mean": (Edit(" - np.log(n)", ""), "unbiased"),
        "mean of logs": (Edit(_LOG_Z, "log_z += logs.mean(axis=1)"), "unbiased"),
        "psi before is missing": (
            Edit("twist[after] - twist[states]", "np.where(live, twist[after], 0.0)"),
            "distribution|unbiased|log psi",
        ),
        "psi of the empty prefix": (Edit("    twist[0] = 0.0\n", ""), "unbiased"),
        "not resampled": (Edit(_TAKEN, "states = after"), "nothing was resampled"),
        "the finished weigh psi": (
            Edit(
                "twist[after] - twist[states]", "twist[after] - np.where(live, twist[states], 0.0)"
            ),
            "distribution|unbiased",
        ),
        "the finished die": (
            Edit(
                "logs = twist[after] - twist[states]",
                "logs = np.where(live, twist[after] - twist[states], -30.0)",
            ),
            "distribution|unbiased",
        ),
        "Z is not in logarithms": (
            Edit("return states[:, 0], log_z", "return states[:, 0], np.exp(log_z)"),
            "unbiased|log psi|every response",
        ),
        "the best particle": (
            Edit(
                "return states[:, 0], log_z",
                "best = twist[states].argmax(axis=1)\n"
                "    return states[np.arange(runs), best], log_z",
            ),
            "distribution",
        ),
        "one ancestor for all": (
            Edit(
                _TAKEN,
                "states = np.take_along_axis(after, ancestors[:, :1] + 0 * ancestors, axis=1)",
            ),
            "one ancestor was copied",
        ),
        "output of another run": (
            Edit("return states[:, 0], log_z", "return states[::-1, 0], log_z"),
            "every response",
        ),
        "shares of the second step": (
            Edit("np.exp(logs - total)", "np.exp(2 * (logs - total))"),
            "distribution|every response",
        ),
        "no seed": (Edit("default_rng(seed)", "default_rng()"), "same seed"),
        "always the same seed": (Edit("default_rng(seed)", "default_rng(0)"), "another seed"),
        "log Z with noise": (
            Edit(
                "return states[:, 0], log_z",
                "return states[:, 0], log_z + 1e-9 * np.random.default_rng().normal(size=runs)",
            ),
            "the same log Z hat",
        ),
        "stops when the first is over": (
            Edit(">= 0).any():", ">= 0).all():"),
            "is a whole response",
        ),
    },
    "20L.7": {
        "median": (
            Edit("rewards[name].mean(axis=0), label", "np.median(rewards[name], axis=0), label"),
            "mean reward over seeds",
        ),
        "first seed": (
            Edit("rewards[name].mean(axis=0), label", "rewards[name][0], label"),
            "mean reward",
        ),
        "no points": (
            Edit(
                "        ax.scatter(x, y, s=10, marker=mark, alpha=0.5, color=line.get_color())\n",
                "",
            ),
            "is a point",
        ),
        "points by setting": (
            Edit("rewards[name].ravel()", "rewards[name].T.ravel()"),
            "is a point",
        ),
        "no start": (
            Edit('    ax.axhline(start, color="0.5", ls=":")\n', ""),
            "without any guidance",
        ),
        "start at zero": (Edit("ax.axhline(start", "ax.axhline(0.0"), "without any guidance"),
        "start upright": (Edit("ax.axhline(start", "ax.axvline(start"), "without any guidance"),
        "linear": (Edit('    ax.set_xscale("log")\n', ""), "logarithmic"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "one name": (Edit("label=name", 'label="method"'), "legend"),
        "other names": (Edit("label=name", 'label=name + "!"'), "keep their names"),
        "no tokens": (
            Edit("tokens generated and scored per response", "cost"),
            "tokens and reward",
        ),
        "no reward": (Edit("expected reward", "value"), "tokens and reward"),
        "by number": (
            Edit("ax.plot(tokens[name], ", "ax.plot(np.arange(len(tokens[name])), "),
            "against its tokens",
        ),
    },
    "20L.8": {
        "mean values": (Edit("reward, price)[0]", "reward, price)[1]"), "97"),
        "no budget": (Edit(_RETURN, "return tilted(0.02)"), "stays within"),
        "nothing spent": (Edit(_RETURN, "return policy"), "97"),
        "half of the budget": (Edit("spent <= max_kl", "spent <= max_kl / 2"), "97"),
        "a fixed price": (Edit(_RETURN, "return tilted(1.0)"), "97|stays within"),
        "the wrong way": (Edit("1 / price)", "-1 / price)"), "97|stays within"),
        "hard values": (
            Edit("reward, price)[0], 1 / price)", "reward, 1e-3)[0], 1 / price)"),
            "97",
        ),
        "borrowed": (
            Edit("    whole =", "    import irlbook.decoding.guided\n    whole ="),
            "irlbook.decoding",
        ),
        "rewards of the sampled alone": (
            Edit(
                "    reward = np.where(whole, phi @ weights, 0.0)",
                "    reward = np.zeros(len(policy))\n    reward[ends_of(paths)] = paid",
            ),
            "97",
        ),
        "not a distribution": (Edit(_RETURN, "return 2 * tilted(np.exp(high))"), "sum to one"),
    },
}
