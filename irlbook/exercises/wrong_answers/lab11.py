"""Wrong answers to the lab of chapter 11, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "11L.1": {
        "last column": (
            "def read_reward(hidden, lengths, head):\n    return hidden[:, -1] @ head",
            "in the last column",
        ),
        "first pad": (Edit("lengths - 1", "lengths"), "one position too far"),
        "one early": (Edit("lengths - 1", "lengths - 2"), "one position too early"),
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
            "mean over all positions",
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
        "picked by a softmax": (
            Edit(
                "hidden[torch.arange(len(hidden)), lengths - 1] @ head",
                "(\n"
                "        torch.softmax(\n"
                "            22.0\n"
                "            * torch.nn.functional.one_hot(lengths - 1, hidden.shape[1])\n"
                "            .double(),\n"
                "            dim=1,\n"
                "        )\n"
                "        * (hidden @ head)\n"
                "    ).sum(1)",
            ),
            "no other position",
        ),
    },
    "11L.2": {
        "exchanged": (
            Edit("-logsigmoid(chosen - rejected)", "-logsigmoid(rejected - chosen)"),
            "are exchanged",
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
        "seed ignored": (Edit("manual_seed(seed)", "manual_seed(0)"), "another seed"),
        "last batch dropped": (
            Edit(".split(32):", ".split(32)[: len(pairs) // 32]:"),
            "five pairs are a batch",
        ),
        "last batch dropped where there is another": (
            Edit(".split(32):", ".split(32)[: max(1, len(pairs) // 32)]:"),
            "a batch of 32 and a batch of one",
        ),
        "batches of 16": (Edit(".split(32)", ".split(16)"), "step on the loss of all of them"),
        "batches of 64": (
            Edit(".split(32)", ".split(64)"),
            "are shuffled|a batch of 32 and a batch of one",
        ),
        "batches of nearly one size": (
            Edit(".split(32)", ".chunk(-(-len(pairs) // 32))"),
            "a batch of 32 and a batch of one",
        ),
        "drawn with replacement": (
            Edit(
                "torch.randperm(len(pairs), generator=dice)",
                "torch.randint(len(pairs), (len(pairs),), generator=dice)",
            ),
            "step on the loss of all of them",
        ),
        "another learning rate": (Edit("lr=1e-3", "lr=2e-3"), "learning rate of 0.001"),
        "another learning rate for the model": (
            Edit(
                "[*model.parameters(), head], lr=1e-3",
                '[{"params": model.parameters(), "lr": 5e-4}, {"params": [head]}], lr=1e-3',
            ),
            "step on the loss of all of them",
        ),
        "torch's weight decay": (Edit(", weight_decay=0.0", ""), "no weight decays"),
        "a new optimiser each epoch": (
            Edit(
                "        for rows in",
                "        optimizer = torch.optim.AdamW([*model.parameters(), head], lr=1e-3, "
                "weight_decay=0.0)\n        for rows in",
            ),
            "step on the loss of all of them",
        ),
        "two epochs always": (
            Edit("range(epochs)", "range(2)"),
            "learning rate|step on the loss",
        ),
        "gradients pile up": (
            Edit("            optimizer.zero_grad()\n", ""),
            "step on the loss of all of them",
        ),
        "only the first 40": (
            Edit(
                "    for _ in range(epochs)",
                "    pairs = pairs[:40]\n    for _ in range(epochs)",
            ),
            "of 400 new pairs",
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
            "step on the loss of all of them",
        ),
        "read at the pads": (
            Edit("read_reward(hidden, lengths, head)", "hidden[:, -1] @ head"),
            "step on the loss of all of them|head learns|below the head",
        ),
        "end token cut off": (
            Edit(
                "pad_rows(chosen + rejected)",
                "pad_rows([(x, y[:-1]) for x, y in chosen + rejected])",
            ),
            "step on the loss of all of them",
        ),
    },
    "11L.4": {
        "margins, not probabilities": (
            Edit("1 / (1 + np.exp(-margins))", "margins / 6 + 0.5"),
            "share that was won is drawn",
        ),
        "sign of the margin": (
            Edit("np.exp(-margins)", "np.exp(margins)"),
            "share that was won is drawn",
        ),
        "middles of the bins": (
            Edit("predicted[part == b].mean()", "(b + 0.5) / bins"),
            "share that was won is drawn",
        ),
        "empty bins kept": (
            Edit("filled = [b for b in range(bins) if (part == b).any()]", "filled = range(bins)"),
            "is left out",
        ),
        "empty bins as zero": (
            (
                Edit(
                    "filled = [b for b in range(bins) if (part == b).any()]",
                    "filled = range(bins)",
                ),
                Edit(
                    "predicted[part == b].mean()",
                    "predicted[part == b].sum() / max(1, (part == b).sum())",
                ),
                Edit("won[part == b].mean()", "won[part == b].sum() / max(1, (part == b).sum())"),
            ),
            "share that was won is drawn",
        ),
        "counts": (
            Edit("won[part == b].mean()", "won[part == b].sum()"),
            "share that was won is drawn",
        ),
        "1 left out": (
            Edit(
                "np.minimum((predicted * bins).astype(int), bins - 1)",
                "(predicted * bins).astype(int)",
            ),
            "probability of 1 are left out",
        ),
        "1 in a part of its own": (
            (
                Edit(
                    "np.minimum((predicted * bins).astype(int), bins - 1)",
                    "(predicted * bins).astype(int)",
                ),
                Edit("for b in range(bins) if", "for b in range(bins + 1) if"),
            ),
            "part of its own",
        ),
        "borders to the part below": (
            Edit(
                "np.minimum((predicted * bins).astype(int), bins - 1)",
                "np.maximum(np.ceil(predicted * bins).astype(int) - 1, 0)",
            ),
            "counts for the lower part",
        ),
        "bins of equal size": (
            Edit(
                "np.minimum((predicted * bins).astype(int), bins - 1)",
                "(predicted.argsort().argsort() * bins) // len(predicted)",
            ),
            "share that was won is drawn",
        ),
        "always ten": (Edit("predicted * bins)", "predicted * 10)"), "share that was won is drawn"),
        "no diagonal": (
            Edit(
                '    ax.plot([0, 1], [0, 1], color="0.5", ls=":", label="perfectly calibrated")\n',
                "",
            ),
            "perfect calibration",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "one name": (Edit('"reward model"', '"perfectly calibrated"'), "legend"),
        "a flatter straight line": (
            Edit("plot([0, 1], [0, 1]", "plot([0, 1], [0, 0.9]"),
            "perfect",
        ),
        "a flat line by its slope": (
            Edit("ax.plot([0, 1], [0, 1], ", "ax.axline((0, 0), slope=0.5, "),
            "perfect",
        ),
        "no label": (Edit(', ylabel="share won"', ""), "y axis"),
        "axes swapped": (Edit("ax.plot(x, y,", "ax.plot(y, x,"), "share that was won is drawn"),
    },
}
