"""Wrong answers to the exercises of chapter 16, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "16.1": {
        "no temperature in the chance": (Edit("d @ w / beta", "d @ w"), "missing in the chance"),
        "no temperature below": (Edit(" / beta**2", ""), "missing in the variance"),
        "temperature not squared": (Edit("beta**2", "beta"), "not by its square"),
        "coin flips": (Edit("p * (1 - p) /", "0.25 /"), "coin flip"),
        "no answer variance": (Edit("variance * width", "width"), "answer variance out"),
        "no covariance": (
            Edit('np.einsum("pk,kl,pl->p", d, sigma, d)', "(d**2).sum(axis=1)"),
            "what is known",
        ),
        "information for covariance": (
            Edit("d, sigma, d)", "d, np.linalg.inv(sigma), d)"),
            "information for the covariance",
        ),
        "no logarithm": (Edit("np.log1p(variance * width)", "variance * width"), "logarithm is mi"),
        "bits": (Edit("np.log1p(", "1 / np.log(2) * np.log1p("), "base 2"),
        "half": (Edit("np.log1p(", "0.5 * np.log1p("), "half of the gain"),
        "variance never zero": (
            Edit("    width =", "    variance = np.maximum(variance, 0.001)\n    width ="),
            "certain teaches nothing|difference of two log",
        ),
    },
    "16.2": {
        "top of one list": (
            Edit("precision = precision + lam[row] * np.outer(d[row], d[row])", "pass"),
            "top of one list",
        ),
        "asked twice": (Edit("score[chosen] = -np.inf", "pass"), "asked twice"),
        "coin flips": (Edit("lam = p * (1 - p)", "lam = np.full(len(d), 0.25)"), "coin flip"),
        "by the trace": (
            Edit(
                'lam * np.einsum("pk,kl,pl->p", d, sigma, d)',
                "lam * ((d @ sigma) ** 2).sum(axis=1)"
                ' / (1 + lam * np.einsum("pk,kl,pl->p", d, sigma, d))',
            ),
            "trace of the inverse",
        ),
        "sorted": (Edit("np.array(chosen)", "np.sort(chosen)"), "order of choice"),
        "precision for covariance": (
            Edit("sigma = np.linalg.inv(precision)", "sigma = precision"),
            "raises log det|lambda d' Sigma d",
        ),
        "last of equals": (
            Edit("int(np.argmax(score))", "int(len(d) - 1 - np.argmax(score[::-1]))"),
            "first one is taken",
        ),
        "any budget": (
            Edit('raise ValueError("the budget is larger than the pool")', "budget = len(d)"),
            "larger than the pool is refused",
        ),
    },
    "16.3": {
        "whole entropy": (Edit("return total - noise", "return total"), "whole entropy"),
        "only noise": (Edit("return total - noise", "return noise"), "noise that would stay"),
        "exchanged": (Edit("return total - noise", "return noise - total"), "exchanged"),
        "bits": (Edit("return total - noise", "return (total - noise) / np.log(2)"), "in bits"),
        "mean of the weights": (
            Edit("total = h(p.mean(axis=0))", "total = h(expit(d @ draws.mean(axis=0)))"),
            "mean of the weights",
        ),
        "one outcome": (Edit("entr(p) + entr(1 - p)", "entr(p)"), "two outcomes"),
        "variance": (Edit("return total - noise", "return p.var(axis=0)"), "variance of the"),
        "nan for the certain": (
            Edit("entr(p) + entr(1 - p)", "-p * np.log(p) - (1 - p) * np.log(1 - p)"),
            "finite|certain of opposite",
        ),
    },
    "16.4": {
        "the bug": (Edit('log["kept"]', 'log["bought"]'), "chose yourself"),
        "test for free": ((Edit(' + log["apart"]', ""),) * 2, "cost as much"),
        "not in a row": (Edit("else 0", "else run"), "follow each other"),
        "first round": (Edit("run >= patience", "run >= 1"), "first round above"),
        "begin of the streak": (
            Edit('log["labels"][t]', 'log["labels"][t - patience + 1]'),
            "first round of the streak",
        ),
        "one too many": (Edit("run >= patience", "run > patience"), "too many"),
        "one too few": (Edit("run >= patience", "run >= patience - 1"), "too few"),
        "number of the round": (
            Edit('int(log["labels"][t]) + log["apart"]', "t"),
            "number of the round",
        ),
        "strictly above": (Edit("value >= target", "value > target"), "equal to the target"),
        "nothing if never": (
            Edit('return int(log["labels"][-1]) + log["apart"]', "return None"),
            "never reaches|None",
        ),
    },
    "16.5": {
        "weight of the tilted": (Edit("1 / (1 + z)", "z / (1 + z)"), "weight of the tilted"),
        "added": (
            Edit(
                "z = up.sum() * down.sum() * np.exp(high - low)",
                "z = (p @ np.exp(r)) + (p @ np.exp(-r))",
            ),
            "added, not multiplied",
        ),
        "two for one": (Edit("1 / (1 + z)", "1 / (1 + 2 * z)"), "tilted parts twice"),
        "one for two": (Edit("1 / (1 + z)", "2 / (2 + z)"), "tilted parts once"),
        "half and half": (Edit("1 / (1 + z)", "0.5"), "equally likely"),
        "exchanged": (
            Edit("up / up.sum(), down / down.sum()", "down / down.sum(), up / up.sum()"),
            "exchanged",
        ),
        "not normalised": (
            Edit("up / up.sum(), down / down.sum()", "p * np.exp(r), p * np.exp(-r)"),
            "add up to 1",
        ),
        "flat": (
            (
                Edit("up = p * ", "up = "),
                Edit("down = p * ", "down = "),
                Edit("z = up.sum() * down.sum()", "z = (p @ up) * (p @ down)"),
            ),
            "policy is missing",
        ),
        "not tilted": (Edit("up / up.sum(), down / down.sum()", "p, p"), "not tilted"),
        "overflow": (
            (
                Edit("np.exp(r - high)", "np.exp(r)"),
                Edit("np.exp(low - r)", "np.exp(-r)"),
                Edit(" * np.exp(high - low)", ""),
            ),
            "finite|constant in the reward",
        ),
    },
}
