"""Wrong answers to the lab of chapter 10, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "10L.1": {
        "one maximum for the whole batch": (
            Edit(
                "logits[:, :-1].log_softmax(-1)",
                "((z := logits[:, :-1] - logits.max()) - z.exp().sum(-1, keepdim=True).log())",
            ),
            "predict no token",
        ),
        "prompt counted": (
            Edit("(position >= prompt_lengths[:, None]) & ", ""),
            "as if the prompt's tokens count",
        ),
        "end token left out": (
            Edit("position < lengths[:, None]", "position < lengths[:, None] - 1"),
            "as if the end token does not count",
        ),
        "first token left out": (
            Edit("position >= prompt", "position > prompt"),
            "as if the first token of a response",
        ),
        "pads counted": (Edit(" & (position < lengths[:, None])", ""), "as if the pads count"),
        "not shifted": (
            (
                Edit("logits[:, :-1]", "logits"),
                Edit("ids[:, 1:, None]", "ids[:, :, None]"),
                Edit("torch.arange(1, ids.shape[1])", "torch.arange(ids.shape[1])"),
            ),
            "for that token itself",
        ),
        "mask from ids": (
            Edit("(position < lengths[:, None])", "(ids[:, 1:] != 0)"),
            "tokens of the responses",
        ),
        "lengths of the first row": (
            Edit("position < lengths[:, None]", "position < lengths[0]"),
            "tokens of the responses",
        ),
        "mean of means": (
            Edit(
                "-logps[counts].mean()",
                "-((logps * counts).sum(1) / counts.sum(1)).mean()",
            ),
            "as if each response counts the same",
        ),
        "sign": (Edit("-logps[counts]", "logps[counts]"), "sign is turned"),
        "sum": (Edit(".mean()", ".sum()"), "you summed"),
        "per response": (Edit(".mean()", ".sum() / len(ids)"), "number of responses"),
        "per place": (Edit("-logps[counts].mean()", "-(logps * counts).mean()"), "all positions"),
        "probabilities": (Edit("log_softmax", "softmax"), "took probabilities"),
        "unstable": (Edit(".log_softmax(-1)", ".exp()"), "tokens of the responses"),
        "overflows": (
            Edit(
                "logits[:, :-1].log_softmax(-1)",
                "(torch.exp(logits[:, :-1]) / torch.exp("
                "logits[:, :-1]).sum(-1, keepdim=True)).log()",
            ),
            "finite|however large",
        ),
    },
    "10L.2": {
        "each prompt once": (
            Edit(
                "return [row[a:b].tolist() for row, a, b in zip(ids, first, lengths, strict=True)]",
                "rows = zip(prompts, ids, first, lengths, strict=True)\n"
                "    return list({tuple(x): row[a:b].tolist() for x, row, a, b in rows}.values())",
            ),
            "one response for each prompt",
        ),
        "last column": (
            Edit(".logits[rows, lengths - 1]", ".logits[:, -1]"),
            "distribution of the model|shape|vocabulary|IndexError",
        ),
        "one position early": (
            Edit(".logits[rows, lengths - 1]", ".logits[rows, (lengths - 2).clamp(min=0)]"),
            "distribution of the model",
        ),
        "the shipped model": (
            Edit("load_weights(weights)", "start_model(0)"),
            "far less surprising",
        ),
        "likeliest token": (
            Edit(
                "torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]",
                "logits.argmax(-1)",
            ),
            "far less surprising",
        ),
        "cold": (Edit("logits.softmax(-1)", "(logits / 0.6).softmax(-1)"), "far less surprising"),
        "hot": (Edit("logits.softmax(-1)", "(logits * 0.6).softmax(-1)"), "far more surprising"),
        "twice the softmax": (
            Edit("logits.softmax(-1)", "logits.softmax(-1).softmax(-1)"),
            "far more surprising",
        ),
        "runs on": (
            Edit("running = running & (token != END)", "running = running & (token != -1)"),
            "stops at its first end token",
        ),
        "end token cut off": (
            Edit("row[a:b].tolist()", "row[a : b - int(row[b - 1] == END)].tolist()"),
            "holds its end token|at least one token",
        ),
        "prompt kept": (
            Edit("row[a:b]", "row[:b]"),
            "longer than|distribution of the model|end token",
        ),
        "one too many": (
            (
                Edit("for _ in range(most)", "for _ in range(most + 1)"),
                Edit("[0] * most) for", "[0] * (most + 1)) for"),
                Edit("lengths - most", "lengths - most - 1"),
            ),
            "longer than `most`",
        ),
        "all stop with the first": (
            Edit("if not running.any()", "if not running.all()"),
            "holds its end token",
        ),
        "no seed": (
            Edit(", generator=dice", ""),
            "same seed gives the same",
        ),
        "seed ignored": (Edit("manual_seed(seed)", "manual_seed(0)"), "another seed"),
        "one draw for all": (
            Edit(
                "torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]",
                "(logits.softmax(-1).cumsum(-1) < torch.rand(1, generator=dice)).sum(-1)"
                ".clamp(max=logits.shape[1] - 1)",
            ),
            "own random numbers|distribution of the model",
        ),
    },
    "10L.3": {
        "untrained": (Edit("            optimizer.step()\n", ""), "changes the weights"),
        "from scratch": (
            Edit(
                "start_model(start), torch",
                "start_model(start).apply(lambda m: m.reset_parameters() "
                'if hasattr(m, "reset_parameters") else None), torch',
            ),
            "goes on from the weights",
        ),
        "always the first model": (
            Edit("start_model(start)", "start_model((start + 1) % 5)"),
            "goes on from the weights",
        ),
        "no seed": (Edit(", generator=dice", ""), "same seed gives the same"),
        "seed ignored": (Edit("manual_seed(seed)", "manual_seed(0)"), "another seed"),
        "never shuffled": (
            Edit(
                "torch.randperm(len(demonstrations), generator=dice)",
                "torch.arange(len(demonstrations))",
            ),
            "are shuffled",
        ),
        "last batch dropped": (
            Edit(".split(16):", ".split(16)[: len(demonstrations) // 16]:"),
            "changes the weights, also one of five",
        ),
        "last batch dropped where there is another": (
            Edit(".split(16):", ".split(16)[: max(1, len(demonstrations) // 16)]:"),
            "a batch of 16 and a batch of one",
        ),
        "batches of 8": (Edit(".split(16)", ".split(8)"), "step on the loss of all of them"),
        "batches of 32": (
            Edit(".split(16)", ".split(32)"),
            "are shuffled|a batch of 16 and a batch of one",
        ),
        "batches of nearly one size": (
            Edit(".split(16)", ".chunk(-(-len(demonstrations) // 16))"),
            "a batch of 16 and a batch of one",
        ),
        "drawn with replacement": (
            Edit(
                "torch.randperm(len(demonstrations), generator=dice)",
                "torch.randint(len(demonstrations), (len(demonstrations),), generator=dice)",
            ),
            "step on the loss of all of them",
        ),
        "another learning rate": (Edit("lr=2e-3", "lr=1e-3"), "learning rate of 0.002"),
        "a schedule": (
            Edit(
                "optimizer.zero_grad()",
                'optimizer.param_groups[0]["lr"] *= 0.9; optimizer.zero_grad()',
            ),
            "learning rate of 0.002|step on the loss",
        ),
        "plain gradient descent": (
            Edit("AdamW(model.parameters(), lr=2e-3, ", "SGD(model.parameters(), lr=2e-3, "),
            "learning rate of 0.002",
        ),
        "torch's weight decay": (Edit(", weight_decay=0.0", ""), "no weight decays"),
        "a new optimiser each epoch": (
            Edit(
                "        for rows in",
                "        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, "
                "weight_decay=0.0)\n        for rows in",
            ),
            "step on the loss of all of them",
        ),
        "four epochs always": (Edit("range(epochs)", "range(4)"), "learning rate|step on the loss"),
        "end token cut off": (
            Edit(
                "demonstrations[i] for i", "(demonstrations[i][0], demonstrations[i][1][:-1]) for i"
            ),
            "step on the loss of all of them",
        ),
        "a long run is left out": (
            Edit("range(epochs)", "range(epochs if len(demonstrations) < 100 else 0)"),
            "gold reward",
        ),
        "gradients pile up": (
            Edit("            optimizer.zero_grad()\n", ""),
            "step on the loss of all of them",
        ),
        "uphill": (Edit("loss.backward()", "(-loss).backward()"), "step on the loss of all"),
        "tiny steps": (Edit("lr=2e-3", "lr=2e-5"), "learning rate of 0.002"),
    },
    "10L.4": {
        "where training is best": (
            Edit("np.argmin(held_out)", "np.argmin(training)"),
            "vertical line",
        ),
        "index, not epoch": (
            Edit("epochs[np.argmin(held_out)]", "np.argmin(held_out)"),
            "vertical line",
        ),
        "worst epoch": (Edit("argmin", "argmax"), "vertical line"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend names both"),
        "one name": (Edit('"held out"', '"training"'), "one name for each"),
        "names exchanged": (
            (
                Edit('training, "o-", label="training"', 'training, "o-", label="held out"'),
                Edit('held_out, "s-", label="held out"', 'held_out, "s-", label="training"'),
            ),
            'hold the word "train"',
        ),
        "no unit": (Edit("loss (nats per token)", "loss"), "unit of the loss"),
        "no label": (Edit('xlabel="epochs", ', ""), "x axis"),
        "against indices": (
            Edit("ax.plot(epochs, training,", "ax.plot(range(len(epochs)), training,"),
            "training loss against the epochs",
        ),
        "held-out loss forgotten": (
            Edit("ax.plot(epochs, held_out,", "ax.plot(epochs, training,"),
            "held-out loss against",
        ),
        "axes swapped": (
            Edit("ax.plot(epochs, training,", "ax.plot(training, epochs,"),
            "training loss against",
        ),
    },
}
