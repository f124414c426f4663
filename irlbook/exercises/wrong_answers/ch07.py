"""Wrong answers to the exercises of chapter 7, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "07.1": {
        "as many steps of the expert as of the model": (
            Edit(
                "- expert_visits",
                "- expert_visits * model_visits.sum() / expert_visits.sum()",
            ),
            "ends its episodes sooner",
        ),
        "signal centred": (
            Edit("    back =", "    signal = signal - signal.mean()\n    back ="),
            "ends its episodes sooner",
        ),
        "outer weights missing": (
            Edit("signal[:, None] * outer * (1", "signal[:, None] * np.ones_like(outer) * (1"),
            "times dr/dtheta",
        ),
        "bias of the first state": (Edit("back.sum(axis=0)", "back[0]"), "times dr/dtheta"),
        "last state left out": (
            Edit(
                "signal = model_visits - expert_visits",
                "signal = (model_visits - expert_visits) * (np.arange(len(features)) < "
                "len(features) - 1)",
            ),
            "times dr/dtheta",
        ),
        "slope at the reward": (
            Edit("(1 - hidden**2)", "(1 - (hidden @ outer)[:, None] ** 2)"),
            "times dr/dtheta",
        ),
        "sigmoid's slope": (
            Edit("(1 - hidden**2)", "hidden * (1 - hidden)"),
            "times dr/dtheta",
        ),
        "visits normalised": (
            Edit(
                "signal = model_visits - expert_visits",
                "signal = model_visits / model_visits.sum() - expert_visits / expert_visits.sum()",
            ),
            "times dr/dtheta",
        ),
        "inner transposed": (Edit("features.T @ back,", "(features.T @ back).T,"), "shape"),
        "size of the gap": (
            Edit(
                "signal = model_visits - expert_visits",
                "signal = abs(model_visits - expert_visits)",
            ),
            "times dr/dtheta",
        ),
        "bias for outer": (Edit("hidden.T @ signal", "back.sum(axis=0)"), "times dr/dtheta"),
        "sign turned": (
            Edit("model_visits - expert_visits", "expert_visits - model_visits"),
            "sign is turned",
        ),
        "no expert": (
            Edit("model_visits - expert_visits", "model_visits"),
            "expert's visits are missing",
        ),
        "mean over states": (
            Edit("model_visits - expert_visits", "(model_visits - expert_visits) / len(features)"),
            "mean over states",
        ),
        "no slope": (Edit("(1 - hidden**2)", "1.0"), "slope of tanh is missing"),
        "wrong slope": (Edit("(1 - hidden**2)", "(1 - hidden)"), "1 - h"),
        "hidden and slope swapped": (
            Edit("hidden.T @ signal", "(1 - hidden**2).T @ signal"),
            "times dr/dtheta",
        ),
        "no bias": (
            Edit("features @ inner + bias", "features @ inner"),
            "times dr/dtheta",
        ),
        "wrong order": (
            Edit(
                "return features.T @ back, back.sum(axis=0), hidden.T @ signal",
                "return hidden.T @ signal, back.sum(axis=0), features.T @ back",
            ),
            "shape",
        ),
    },
    "07.2": {
        "no choice counts more than ten times": (
            Edit("counts * log_policy", "np.minimum(counts, 10) * log_policy"),
            "three times as much",
        ),
        "logarithm of a probability": (
            Edit(
                "scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))",
                "np.log(np.exp(scaled - top) / np.exp(scaled - top).sum(axis=1, keepdims=True))",
            ),
            "finite",
        ),
        "one maximum for all states": (
            Edit("q.max(axis=1, keepdims=True) / beta", "q.max() / beta"),
            "overflow|finite",
        ),
        "beta multiplies": (
            (
                Edit("q.max(axis=1, keepdims=True) / beta", "q.max(axis=1, keepdims=True) * beta"),
                Edit("scaled = q / beta", "scaled = q * beta"),
            ),
            "beta multiplies",
        ),
        "beta in front": (
            Edit(
                "return float((counts * log_policy)",
                "return float((beta * counts * log_policy)",
            ),
            "in front of the right",
        ),
        "temperature at most one": (
            Edit("    top =", "    beta = min(beta, 1.0)\n    top ="),
            "above 1",
        ),
        "each state once": (
            Edit(
                "counts * log_policy",
                "counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * log_policy",
            ),
            "sum over all choices",
        ),
        "likeliest choice of each state": (
            Edit("counts * log_policy", "(counts * log_policy).max(axis=1)"),
            "sum over all choices",
        ),
        "first action left out": (
            Edit("(counts * log_policy)", "(counts * log_policy)[:, 1:]"),
            "sum over all choices",
        ),
        "last state left out": (
            Edit("(counts * log_policy)", "(counts * log_policy)[:-1]"),
            "sum over all choices",
        ),
        "bits": (
            Edit("return float(", "return 1 / np.log(2) * float("),
            "sum over all choices",
        ),
        "mean": (
            Edit(
                "return float((counts * log_policy).sum())",
                "return float((counts * log_policy).sum() / counts.sum())",
            ),
            "mean over choices",
        ),
        "counts ignored": (
            Edit("counts * log_policy", "(counts > 0) * log_policy"),
            "counts once",
        ),
        "no temperature": (Edit("scaled = q / beta", "scaled = q / 1.0"), "temperature"),
        "hard maximum": (
            Edit(
                "scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))",
                "scaled - top",
            ),
            "hard maximum",
        ),
        "no logarithm": (
            Edit("counts * log_policy", "counts * np.exp(log_policy)"),
            "added probabilities",
        ),
        "sign": (Edit("return float(", "return -float("), "sign is turned"),
        "over states": (
            (
                Edit("q.max(axis=1, keepdims=True) / beta", "q.max(axis=0, keepdims=True) / beta"),
                Edit(".sum(axis=1, keepdims=True))", ".sum(axis=0, keepdims=True))"),
            ),
            "over states",
        ),
        "overflow": (
            Edit("q.max(axis=1, keepdims=True) / beta", "0.0 * q[:, :1]"),
            "overflow|finite",
        ),
    },
    "07.3": {
        "mean of products less product of means": (
            (
                Edit("slopes - expected[:, None]", "slopes"),
                Edit(
                    "    return",
                    "    seen = counts.sum(axis=1)\n"
                    "    products = np.einsum('s,sk,sl->kl', seen, expected, expected)\n"
                    "    information -= products / beta**2\n"
                    "    return",
                ),
            ),
            "however large it is",
        ),
        "the actions taken for the policy": (
            Edit(
                "    expected = ",
                "    taken = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)\n"
                "    policy = taken\n"
                "    expected = ",
            ),
            "covariance, under the policy",
        ),
        "centred by the actions taken": (
            Edit(
                'np.einsum("sa,sak->sk", policy, slopes)',
                'np.einsum("sa,sak->sk", counts, slopes)'
                " / np.maximum(counts.sum(axis=1), 1)[:, None]",
            ),
            "actions that were taken",
        ),
        "one mean for all states": (
            Edit("slopes - expected[:, None]", "slopes - expected.mean(axis=0)"),
            "covariance, under the policy",
        ),
        "choices in all": (
            Edit("counts.sum(axis=1)[:, None] * policy", "counts.sum() / len(counts) * policy"),
            "covariance, under the policy",
        ),
        "all actions alike": (
            Edit(
                "counts.sum(axis=1)[:, None] * policy",
                "counts.sum(axis=1)[:, None] / policy.shape[1] * np.ones_like(policy)",
            ),
            "covariance, under the policy",
        ),
        "inverse": (
            Edit(
                "return information",
                "return np.linalg.inv(information + 1e-9 * np.eye(len(information)))",
            ),
            "covariance, under the policy",
        ),
        "negative": (
            Edit("return information", "return -information"),
            "covariance, under the policy",
        ),
        "outer product of the sums": (
            Edit(
                'np.einsum("sa,sak,sal->kl", weights, centred, centred)',
                'np.einsum("sa,sak,sb,sbl->kl", weights, slopes, weights, slopes)',
            ),
            "covariance, under the policy",
        ),
        "states seen twice only": (
            Edit(
                "counts.sum(axis=1)[:, None] * policy",
                "np.maximum(counts.sum(axis=1) - 1, 0)[:, None] * policy",
            ),
            "covariance, under the policy",
        ),
        "upper half": (
            Edit("return information", "return np.triu(information)"),
            "covariance, under the policy",
        ),
        "not centred": (
            Edit("slopes - expected[:, None]", "slopes"),
            "mean slope is not subtracted",
        ),
        "plain mean": (
            Edit('np.einsum("sa,sak->sk", policy, slopes)', "slopes.mean(axis=1)"),
            "plain mean over actions",
        ),
        "weighed by counts": (
            Edit("counts.sum(axis=1)[:, None] * policy", "counts"),
            "how often they were taken",
        ),
        "states once": (
            Edit("counts.sum(axis=1)[:, None] * policy", "policy"),
            "every state counts once",
        ),
        "no temperature": (Edit("/ beta**2", ""), "temperature is missing"),
        "temperature once": (Edit("/ beta**2", "/ beta"), "once instead of twice"),
        "mean": (Edit("/ beta**2", "/ beta**2 / counts.sum()"), "mean over choices"),
        "only the diagonal": (
            Edit("return information", "return np.diag(np.diag(information))"),
            "covariance, under the policy",
        ),
    },
    "07.4": {
        "heat bath": (
            Edit(
                "log_u < log_p[there] - log_p[here]",
                "log_u < log_p[there] - np.logaddexp(log_p[there], log_p[here])",
            ),
            "heat bath",
        ),
        "starts at 0": (
            Edit("here, path = start, []", "here, path = 0, []"),
            "begins at the place",
        ),
        "other way if rejected": (
            Edit(
                "            here = there",
                "            here = there\n        else:\n"
                "            here = (here - move) % len(log_p)",
            ),
            "goes the other way",
        ),
        "left and right exchanged": (Edit("(here + move)", "(here - move)"), "left and right"),
        "place before each step": (
            (
                Edit("        path.append(here)", ""),
                Edit("        there = ", "        path.append(here)\n        there = "),
            ),
            "begins with the start",
        ),
        "proposals, not places": (
            Edit("path.append(here)", "path.append(there)"),
            "is the first that differs",
        ),
        "ring of one place fewer": (
            Edit("% len(log_p)", "% (len(log_p) - 1)"),
            "is the first that differs",
        ),
        "start in front": (
            Edit("return np.array(path)", "return np.array([start, *path])"),
            "401 places",
        ),
        "half of the difference": (
            Edit("log_u < log_p[there] - log_p[here]", "log_u < (log_p[there] - log_p[here]) / 2"),
            "is the first that differs",
        ),
        "a move from a second uniform": (
            Edit("log_u < log_p", "log_u + np.log(2) < log_p"),
            "is the first that differs",
        ),
        "rejections dropped": (
            Edit("        path.append(here)", "            path.append(here)"),
            "rejected step is left out",
        ),
        "uphill only": (
            Edit("log_u < log_p[there] - log_p[here]", "log_p[there] >= log_p[here]"),
            "uphill",
        ),
        "always": (Edit("log_u < log_p[there] - log_p[here]", "True"), "always go"),
        "upside down": (
            Edit("log_p[there] - log_p[here]", "log_p[here] - log_p[there]"),
            "upside down",
        ),
        "no ratio": (
            Edit("log_u < log_p[there] - log_p[here]", "log_u < log_p[there]"),
            "new density alone",
        ),
        "uniform against logarithms": (
            Edit(
                "log_u < log_p[there] - log_p[here]",
                "np.exp(log_u) < log_p[there] - log_p[here]",
            ),
            "uniform number itself",
        ),
        "no ring": (
            Edit("(here + move) % len(log_p)", "min(max(here + move, 0), len(log_p) - 1)"),
            "ends of the ring",
        ),
        "overflow": (
            Edit(
                "log_u < log_p[there] - log_p[here]",
                "log_u < np.log(np.exp(log_p[there]) / np.exp(log_p[here]))",
            ),
            "however large",
        ),
    },
    "07.5": {
        "95 % built in": (Edit("norm.ppf(0.5 + 0.5 * level)", "1.96"), "stated chance"),
        "level as a tail": (Edit("0.5 + 0.5 * level", "1 - 0.5 * level"), "stated chance"),
        "prior's deviation unsquared": (
            Edit("/ prior_deviation**2", "/ prior_deviation"),
            "stated chance",
        ),
        "root of n once more": (
            Edit(
                "    reach =",
                "    deviation = deviation / np.sqrt(n_demonstrations)\n    reach =",
            ),
            "stated chance",
        ),
        "around zero": (
            Edit("[mode - reach, mode + reach]", "[-reach, reach]"),
            "stated chance",
        ),
        "lows above highs": (
            Edit(
                "np.column_stack([mode - reach, mode + reach])",
                "np.stack([mode - reach, mode + reach])",
            ),
            "shape|stated chance",
        ),
        "largest deviation for all": (
            Edit(
                "    reach =",
                "    deviation = np.full(len(mode), deviation.max())\n    reach =",
            ),
            "stated chance",
        ),
        "no correlation": (
            Edit("np.linalg.inv(precision)", "np.linalg.inv(np.diag(np.diag(precision)))"),
            "held fixed",
        ),
        "whole level on each side": (
            Edit("norm.ppf(0.5 + 0.5 * level)", "norm.ppf(0.25 + 0.5 * level)"),
            "stated chance",
        ),
        "unchanged": (
            Edit("np.sqrt(np.diag(np.linalg.inv(precision)))", "1 / np.sqrt(np.diag(precision))"),
            "held fixed",
        ),
        "one demonstration": (
            Edit("n_demonstrations * fisher", "fisher"),
            "information of one demonstration",
        ),
        "no prior": (Edit(" + np.eye(len(mode)) / prior_deviation**2", ""), "left out"),
        "variance of the prior": (
            Edit("/ prior_deviation**2", "* prior_deviation**2"),
            "prior's variance is added",
        ),
        "prior many times": (
            Edit(
                "n_demonstrations * fisher + np.eye(len(mode)) / prior_deviation**2",
                "n_demonstrations * (fisher + np.eye(len(mode)) / prior_deviation**2)",
            ),
            "once for each demonstration",
        ),
        "one-sided": (Edit("0.5 + 0.5 * level", "level"), "one-sided"),
        "no root": (
            Edit(
                "np.sqrt(np.diag(np.linalg.inv(precision)))",
                "np.diag(np.linalg.inv(precision))",
            ),
            "variance for the deviation",
        ),
        "not the same width on both sides": (
            Edit("mode - reach", "mode - 0.5 * reach"),
            "stated chance",
        ),
    },
}
