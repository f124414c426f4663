"""Wrong answers to the lab of chapter 11, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "11L.1": {
        "last column": (
            "def read_reward(hidden, lengths, head):\n    return hidden[:, -1] @ head",
            "in the last column",
        ),
        "first pad": (Edit("lengths - 1", "lengths"), "one place too far"),
        "one early": (Edit("lengths - 1", "lengths - 2"), "one place too early"),
        "first token": (Edit("lengths - 1", "0 * lengths"), "at the first token"),
        "longest row": (
            Edit("lengths - 1", "0 * lengths + lengths.max() - 1"),
            "where the longest one ends",
        ),
        "first row": (
            Edit("lengths - 1", "0 * lengths + lengths[0] - 1"),
            "where the first one ends",
        ),
        "mean of all": (
            "def read_reward(hidden, lengths, head):\n    return (hidden @ head).mean(1)",
            "mean over all places",
        ),
        "sum": (
            "def read_reward(hidden, lengths, head):\n"
            "    inside = torch.arange(hidden.shape[1]) < lengths[:, None]\n"
            "    return ((hidden @ head) * inside).sum(1)",
            "sum over the real tokens",
        ),
        "no head": (Edit(" @ head", ""), "shape|single"),
        "by its size": (
            "def read_reward(hidden, lengths, head):\n"
            "    last = (hidden.abs().sum(-1) > 0).sum(1) - 1\n"
            "    return hidden[torch.arange(len(hidden)), last] @ head",
            "last column",
        ),
        "mask by a product": (
            "def read_reward(hidden, lengths, head):\n"
            "    at = torch.arange(hidden.shape[1]) == lengths[:, None] - 1\n"
            "    return (hidden.mean(1) + (hidden * at[:, :, None]).sum(1)) @ head",
            "last real token",
        ),
    },
    "11L.2": {
        "exchanged": (
            Edit("-logsigmoid(chosen - rejected)", "-logsigmoid(rejected - chosen)"),
            "changed places",
        ),
        "sign": (Edit("-logsigmoid", "logsigmoid"), "sign is turned"),
        "sum": (Edit(".mean()", ".sum()"), "you summed"),
        "no logarithm": (Edit("logsigmoid(", "torch.sigmoid("), "logarithm is missing"),
        "log of sigmoid": (
            Edit("-logsigmoid(chosen - rejected)", "-torch.sigmoid(chosen - rejected).log()"),
            "finite",
        ),
        "log of one plus exp": (
            Edit("-logsigmoid(chosen - rejected)", "(1 + (rejected - chosen).exp()).log()"),
            "finite",
        ),
        "hinge": (
            Edit("-logsigmoid(chosen - rejected)", "(1 - chosen + rejected).clamp(min=0)"),
            "hinge",
        ),
        "no sigmoid": (
            Edit("-logsigmoid(chosen - rejected)", "-(chosen - rejected)"),
            "no sigmoid",
        ),
        "mean first": (
            Edit("chosen - rejected).mean()", "(chosen - rejected).mean())"),
            "mean difference",
        ),
        "each alone": (
            Edit("-logsigmoid(chosen - rejected)", "-(logsigmoid(chosen) + logsigmoid(-rejected))"),
            "classified alone",
        ),
        "clipped": (
            Edit("logsigmoid(chosen - rejected)", "logsigmoid((chosen - rejected).clamp(-20, 20))"),
            "difference of 900",
        ),
        "none": (Edit(".mean()", ""), "single number|a number"),
    },
    "11L.3": {
        "no step": (Edit("            optimizer.step()\n", ""), "head learns"),
        "head not given": (
            Edit("[*model.parameters(), head]", "model.parameters()"),
            "head learns",
        ),
        "model not given": (Edit("[*model.parameters(), head]", "[head]"), "below the head"),
        "other start": (
            Edit("start_model(start)", "start_model((start + 1) % 5)"),
            "goes on from the model",
        ),
        "random head": (
            Edit(
                "torch.zeros(size, requires_grad=True)",
                "torch.randn(size, generator=dice).requires_grad_()",
            ),
            "head of zeros",
        ),
        "no seed": (Edit(", generator=dice).split", ").split"), "same seed gives the same"),
        "not shuffled": (
            Edit("torch.randperm(len(pairs), generator=dice)", "torch.arange(len(pairs))"),
            "are shuffled",
        ),
        "weights only": (
            Edit(
                'return {"weights": model.state_dict(), "head": head.detach()}',
                "return model.state_dict()",
            ),
            "keys",
        ),
        "learns the opposite": (
            Edit(
                "preference_loss(scores[: len(batch)], scores[len(batch) :])",
                "preference_loss(scores[len(batch) :], scores[: len(batch)])",
            ),
            "of 400 new pairs",
        ),
        "read at the pads": (
            Edit("read_reward(hidden, lengths, head)", "hidden[:, -1] @ head"),
            "of 400 new pairs|head learns|below the head",
        ),
        "end token cut off": (
            Edit(
                "pad_rows(chosen + rejected)",
                "pad_rows([(x, y[:-1]) for x, y in chosen + rejected])",
            ),
            "of 400 new pairs",
        ),
    },
    "11L.4": {
        "margins, not probabilities": (
            Edit("1 / (1 + np.exp(-margins))", "margins / 6 + 0.5"),
            "share that was won",
        ),
        "sign of the margin": (
            Edit("np.exp(-margins)", "np.exp(margins)"),
            "share that was won",
        ),
        "middles of the bins": (
            Edit("predicted[place == b].mean()", "(b + 0.5) / bins"),
            "share that was won",
        ),
        "empty bins kept": (
            Edit("filled = [b for b in range(bins) if (place == b).any()]", "filled = range(bins)"),
            "is left out",
        ),
        "empty bins as zero": (
            (
                Edit(
                    "filled = [b for b in range(bins) if (place == b).any()]",
                    "filled = range(bins)",
                ),
                Edit(
                    "predicted[place == b].mean()",
                    "predicted[place == b].sum() / max(1, (place == b).sum())",
                ),
                Edit(
                    "won[place == b].mean()", "won[place == b].sum() / max(1, (place == b).sum())"
                ),
            ),
            "share that was won",
        ),
        "counts": (Edit("won[place == b].mean()", "won[place == b].sum()"), "share that was won"),
        "bins of equal size": (
            Edit(
                "np.minimum((predicted * bins).astype(int), bins - 1)",
                "(predicted.argsort().argsort() * bins) // len(predicted)",
            ),
            "share that was won",
        ),
        "always ten": (Edit("predicted * bins)", "predicted * 10)"), "share that was won"),
        "no diagonal": (
            Edit(
                '    ax.plot([0, 1], [0, 1], color="0.5", ls=":", label="perfectly calibrated")\n',
                "",
            ),
            "perfect calibration",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "no label": (Edit(', ylabel="share won"', ""), "y axis"),
        "axes swapped": (Edit("ax.plot(x, y,", "ax.plot(y, x,"), "share that was won"),
    },
}
