"""Wrong answers to the lab of chapter 14, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "14L.1": {
        "mean, not sum": (Edit("part.sum()", "part.mean()"), "averaged over its tokens"),
        "no reference": (Edit("policy - reference.detach()", "policy"), "reference is missing"),
        "no beta": (Edit("beta * (h", "(h"), "beta is missing"),
        "exchanged": (Edit("h[0::2] - h[1::2]", "h[1::2] - h[0::2]"), "changed places"),
        "halves": (
            Edit("h[0::2] - h[1::2]", "h[: len(h) // 2] - h[len(h) // 2 :]"),
            "first half",
        ),
        "last token left out": (Edit("part.sum()", "part[:-1].sum()"), "last token"),
        "beta outside": (
            Edit("-logsigmoid(beta * (h", "-beta * logsigmoid((h"),
            "outside of the sigmoid",
        ),
        "sum over pairs": (Edit(".mean()", ".sum()"), "summed over pairs"),
        "sign": (Edit("return -logsigmoid", "return logsigmoid"), "sign is turned"),
        "no logarithm": (Edit("logsigmoid(", "torch.sigmoid("), "logarithm is missing"),
        "chosen only": (Edit("h[0::2] - h[1::2]", "h[0::2]"), "only the chosen"),
        "log of sigmoid": (
            Edit(
                "-logsigmoid(beta * (h[0::2] - h[1::2]))",
                "-torch.sigmoid(beta * (h[0::2] - h[1::2])).log()",
            ),
            "finite",
        ),
        "reference not detached": (
            Edit("reference.detach()", "reference"),
            "through the reference's",
        ),
        "policy detached": (
            Edit("policy - reference", "policy.detach() - reference"),
            "gradient flows through the policy",
        ),
        "no difference costs nothing": (
            Edit(
                "return -logsigmoid(beta * (h[0::2] - h[1::2])).mean()",
                "gap = beta * (h[0::2] - h[1::2])\n"
                "    return torch.where(gap == 0, 0.0, -logsigmoid(gap)).mean()",
            ),
            "the loss is log 2",
        ),
    },
    "14L.2": {
        "mean over tokens": (Edit("part.sum()", "part.mean()"), "averaged over its tokens"),
        "no reference": (Edit("(policy - reference)", "policy"), "reference is missing"),
        "turned": (Edit("(policy - reference)", "(reference - policy)"), "have changed places"),
        "exchanged": (
            Edit("chosen, rejected = h[0::2], h[1::2]", "rejected, chosen = h[0::2], h[1::2]"),
            "other responses",
        ),
        "sum over pairs": (Edit("float(chosen.mean())", "float(chosen.sum())"), "sum over pairs"),
        "tie is wrong": (
            Edit("(torch.sign(chosen - rejected) + 1) / 2", "(chosen > rejected).double()"),
            "tie counts as wrong",
        ),
        "tie is right": (
            Edit("(torch.sign(chosen - rejected) + 1) / 2", "(chosen >= rejected).double()"),
            "tie counts as right",
        ),
        "counted backwards": (Edit("chosen - rejected)", "rejected - chosen)"), "wrong way round"),
        "gap only": (
            Edit(
                "return float(chosen.mean()), float(rejected.mean()), float(right.mean())",
                "return float((chosen - rejected).mean()), float(right.mean())",
            ),
            "is 3 values",
        ),
        "median": (Edit("float(rejected.mean())", "float(rejected.max())"), "`rejected` is"),
    },
    "14L.3": {
        "no step": (Edit("            optimizer.step()\n", ""), "changes the policy"),
        "other start": (
            Edit("start_model(start)", "start_model((start + 1) % 5)"),
            "starts from the model",
        ),
        "reference is the policy": (
            Edit("copy.deepcopy(policy).requires_grad_(False)", "policy"),
            "log-ratios are not 0",
        ),
        "reference is another model": (
            Edit("copy.deepcopy(policy)", "start_model((start + 1) % 5)"),
            "all log-ratios are 0",
        ),
        "no seed": (Edit(", generator=dice).split", ").split"), "same seed gives"),
        "not shuffled": (
            Edit("torch.randperm(len(pairs), generator=dice)", "torch.arange(len(pairs))"),
            "are shuffled",
        ),
        "last batch dropped": (Edit(".split(32):", ".split(32)[: len(pairs) // 32]:"), "shape"),
        "no history": (
            Edit(
                'return {"weights": policy.state_dict(), "history": history}',
                "return policy.state_dict()",
            ),
            "keys",
        ),
        "exchanged": (
            Edit("(x, [better, worse]) for", "(x, [worse, better]) for"),
            "step on all of them",
        ),
        "beta forgotten": (Edit("lengths, beta)", "lengths, 0.02)"), "step on all of them"),
        "beta fixed": (Edit("lengths, beta)", "lengths, 0.5)"), "beta is fixed"),
        "another learning rate": (Edit("lr=5e-4", "lr=1e-3"), "learning rate of 0.0005"),
        "pairs drawn with replacement": (
            Edit(
                "torch.randperm(len(pairs), generator=dice)",
                "torch.randint(len(pairs), (len(pairs),), generator=dice)",
            ),
            "step on all of them",
        ),
        "five steps only": (
            Edit(
                "            optimizer.step()\n",
                "            if len(history) < 5:\n                optimizer.step()\n",
            ),
            "gold reward",
        ),
        "three times as far": (
            Edit(
                '    return {"weights": policy.state_dict(),',
                "    base = reference.state_dict()\n"
                "    far = {n: b + 3 * (policy.state_dict()[n] - b) for n, b in base.items()}\n"
                '    return {"weights": far if len(history) > 5 else policy.state_dict(),',
            ),
            "nats per response away",
        ),
    },
    "14L.4": {
        "not smoothed": (
            Edit('np.convolve(y, np.ones(window) / window, mode="valid")', "y[window - 1 :]"),
            "mean of the chosen",
        ),
        "shifted": (
            Edit("np.arange(window - 1, len(chosen))", "np.arange(len(chosen) - window + 1)"),
            "mean of the chosen",
        ),
        "padded with zeros": (
            (
                Edit('mode="valid"', 'mode="full"'),
                Edit("np.arange(window - 1, len(chosen))", "np.arange(len(chosen) + window - 1)"),
            ),
            "mean of the chosen",
        ),
        "a sum": (Edit("np.ones(window) / window", "np.ones(window)"), "mean of the chosen"),
        "window too long": (
            (
                Edit("np.ones(window) / window", "np.ones(window + 1) / (window + 1)"),
                Edit("np.arange(window - 1,", "np.arange(window,"),
            ),
            "mean of the chosen",
        ),
        "rejected forgotten": (
            Edit('(("chosen", chosen), ("rejected", rejected))', '(("chosen", chosen),)'),
            "mean of the rejected",
        ),
        "the gap": (
            Edit('("chosen", chosen), ("rejected"', '("chosen", chosen - rejected), ("rejected"'),
            "mean of the chosen",
        ),
        "no zero": (Edit('    ax.axhline(0, color="0.5", ls=":")\n', ""), "horizontal line"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "names exchanged": (
            Edit(
                '(("chosen", chosen), ("rejected", rejected))',
                '(("rejected", chosen), ("chosen", rejected))',
            ),
            "legend",
        ),
        "no unit": (Edit("\\n(nats per response)", ""), "gives the unit"),
        "no label": (Edit('xlabel="step", ', ""), "x axis"),
    },
}
