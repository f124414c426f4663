"""Wrong answers to the lab of chapter 6, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "06L.1": {
        "an entry forgotten": (Edit('        "horizon": 15,\n', ""), "its five entries"),
        "actions first": (
            Edit('"transitions": transitions', '"transitions": transitions.swapaxes(0, 1)'),
            r"is \(S, A, S\)",
        ),
        "the reward is the only feature": (
            (
                Edit("axis=1)", "axis=1) @ np.array([[-1.5], [2.0], [0.5]])"),
                Edit("weights = np.array([-1.5, 2.0, 0.5])", "weights = np.array([1.0])"),
            ),
            "2 to 6 features",
        ),
        "too small": (Edit("side, wind = 5", "side, wind = 3"), "12 to 100 states|an error"),
        "no wind": (Edit("wind = 5, 0.25", "wind = 5, 0.0"), "chance plays a part"),
        "probability is lost": (Edit("+= 1 - wind", "+= 0.9 - wind"), "sum to one"),
        "a short horizon": (
            Edit('"horizon": 15', '"horizon": 9'),
            "horizon is a whole number",
        ),
        "a horizon of the wrong type": (Edit('"horizon": 15', '"horizon": 15.0'), "an `int`"),
        "wind in a few places": (
            Edit(
                "            for other in ends:\n",
                "            if s >= 4:\n"
                "                transitions[s, a, end] += wind\n"
                "            for other in ends * (s < 4):\n",
            ),
            "chance plays a part",
        ),
        "the start is not shared out": (
            Edit("np.full(len(cells), 1 / len(cells))", "np.ones(len(cells))"),
            "`start` sum to one",
        ),
        "walls": (
            (
                Edit("np.full(len(cells), 1 / len(cells))", "np.eye(len(cells))[12]"),
                Edit(
                    "    start =",
                    "    transitions[:, :, 1] += transitions[:, :, 0]\n"
                    "    transitions[:, :, 0] = 0\n    start =",
                ),
            ),
            "can be reached",
        ),
        "a feature twice": (
            Edit("[pond, ice_cream, shade]", "[pond, ice_cream, pond]"),
            "independent",
        ),
        "a constant": (
            Edit("[pond, ice_cream, shade]", "[pond, ice_cream, 1 + 0 * pond]"),
            "independent",
        ),
        "flat": (Edit("[-1.5, 2.0, 0.5]", "[0.1, 0.1, 0.1]"), "differ by 1"),
        "a mountain": (Edit("[-1.5, 2.0, 0.5]", "[-15, 20.0, 0.5]"), "by 10 at most"),
    },
    "06L.2": {
        "hard": (
            Edit("top + np.log(np.exp(q - top[:, None]).sum(axis=1))", "top"),
            "hard maximum",
        ),
        "mean": (Edit(".sum(axis=1))", ".mean(axis=1))"), "mean over actions"),
        "one too few": (Edit("range(horizon)):", "range(horizon - 1)):"), "one step too few"),
        "next reward": (
            Edit("reward[:, None] + transitions @ values", "transitions @ (reward + values)"),
            "of the next state",
        ),
        "last values": (Edit("np.zeros(n_states), np", "reward, np"), "not zero|the rewards"),
        "times turned": (Edit("policy[t] =", "policy[-1 - t] ="), "time runs backwards"),
        "overflow": (Edit("top = q.max(axis=1)", "top = np.zeros(len(q))"), "overflow|finite"),
        "one maximum for all states": (
            Edit("q.max(axis=1)", "np.full(len(q), q.max())"),
            "finite|overflow",
        ),
        "not normalised": (Edit("q - values[:, None])", "q)"), "sum to one"),
    },
    "06L.3": {
        "no start": (
            (
                Edit("visits = visits + here\n        here", "here"),
                Edit("now, transitions)", "now, transitions)\n        visits = visits + here"),
            ),
            "from the start onwards",
        ),
        "only the end": (Edit("visits + here", "here"), "only the last time"),
        "share": (Edit("return visits", "return visits / len(policy)"), "divided by T"),
        "against the arrows": (Edit('"s,sa,sap->p"', '"p,sa,sap->s"'), "against the arrows"),
        "last first": (Edit("in policy:", "in policy[::-1]:"), "comes first"),
        "no policy": (Edit("now, trans", "0 * now + 1 / now.shape[1], trans"), "as likely as any"),
        "always the first policy": (Edit("here, now, trans", "here, policy[0], trans"), "onwards"),
        "one more": (Edit("return visits", "return visits + here"), "time T is counted"),
    },
    "06L.4": {
        "sign": (
            Edit(
                "return collected - features.T @ visits", "return features.T @ visits - collected"
            ),
            "sign",
        ),
        "sum": (Edit(".mean(axis=0)", ".sum(axis=0)"), "added up"),
        "mean of steps": (Edit(".sum(axis=1)", ".mean(axis=1)"), "over steps"),
        "no model": (Edit(" - features.T @ visits", ""), "the model is missing"),
        "normalised model": (Edit("@ visits", "@ (visits / visits.sum())"), "sum to one"),
        "once each": (
            Edit(
                "features[demonstrations].sum(axis=1).mean(axis=0)",
                "np.mean([features[np.unique(d)].sum(axis=0) for d in demonstrations], axis=0)",
            ),
            "counts once",
        ),
    },
    "06L.5": {
        "zeros": (
            Edit("minimize(loss, ", "(lambda f, w, **k: type('r', (), {'x': w}))(loss, "),
            "what the demonstrations collect",
        ),
        "downhill": (Edit(", -slope", ", slope"), "what the demonstrations collect"),
        "stops early": (
            Edit("tol=1e-10", "tol=1e-10, options={'maxiter': 1}"),
            "what the demonstrations collect",
        ),
        "one step too many": (
            Edit("demonstrations.shape[1]", "demonstrations.shape[1] + 1"),
            "what the demonstrations collect",
        ),
        "uniform start": (
            Edit("policy, start)", "policy, 0 * start + 1 / len(start))"),
            "what the demonstrations collect",
        ),
        "a penalty": (
            (
                Edit(
                    "- weights @ collected, -slope",
                    "- weights @ collected + 0.1 * weights @ weights, -slope + 0.2 * weights",
                ),
            ),
            "what the demonstrations collect",
        ),
        "the starts that were seen": (
            Edit(
                "    horizon =",
                "    start = np.bincount(demonstrations[:, 0], minlength=len(start))\n"
                "    start = start / len(demonstrations)\n    horizon =",
            ),
            "what the demonstrations collect",
        ),
        "half": (Edit("tol=1e-10).x", "tol=1e-10).x / 2"), "what the demonstrations collect"),
        "half of the walks": (
            Edit("    horizon =", "    demonstrations = demonstrations[:100]\n    horizon ="),
            "what the demonstrations collect",
        ),
        "borrowed": (
            "def recover(transitions, start, features, demonstrations):\n"
            "    from irlbook.irl.maxent import fit_max_causal_ent\n"
            "    return fit_max_causal_ent",
            "irlbook.irl",
        ),
    },
    "06L.6": {
        "no label": (Edit('xlabel="true reward less its mean", ', ""), "x axis"),
        "exchanged": (Edit("scatter(x, y", "scatter(y, x"), "is a point"),
        "means left": (Edit("recovered - recovered.mean()", "recovered"), "is a point"),
        "the true mean twice": (
            Edit("recovered - recovered.mean()", "recovered - true_reward.mean()"),
            "is a point",
        ),
        "joined and not marked": (
            Edit("ax.scatter(x, y, s=20, ", "ax.plot(x, y, "),
            "without markers",
        ),
        "too short a line": (
            Edit("ends = [x.min(), x.max()]", "ends = [0.0, x.max()]"),
            "perfect recovery",
        ),
        "no line": (Edit("ax.plot(ends, ends", "ax.plot([], []"), "perfect recovery"),
        "a fit instead": (
            Edit("ax.plot(ends, ends", "ax.plot(ends, [0.8 * e for e in ends]"),
            "perfect recovery",
        ),
        "labels exchanged": (
            Edit(
                'xlabel="true reward less its mean", ylabel="recovered reward less its mean"',
                'ylabel="true reward less its mean", xlabel="recovered reward less its mean"',
            ),
            "which reward",
        ),
        "nothing returned": (Edit("return fig", "return None"), "Matplotlib figure"),
    },
}
