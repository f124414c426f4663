"""Wrong answers to the lab of chapter 10, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "10L.1": {
        "prompt counted": (
            Edit("(place >= prompt_lengths[:, None]) & ", ""),
            "as if the prompt's tokens count",
        ),
        "end token left out": (
            Edit("place < lengths[:, None]", "place < lengths[:, None] - 1"),
            "as if the end token does not count",
        ),
        "first token left out": (
            Edit("place >= prompt", "place > prompt"),
            "as if the first token of a response",
        ),
        "pads counted": (Edit(" & (place < lengths[:, None])", ""), "as if the pads count"),
        "not shifted": (
            (
                Edit("logits[:, :-1]", "logits"),
                Edit("ids[:, 1:, None]", "ids[:, :, None]"),
                Edit("torch.arange(1, ids.shape[1])", "torch.arange(ids.shape[1])"),
            ),
            "for that token itself",
        ),
        "mask from ids": (
            Edit("(place < lengths[:, None])", "(ids[:, 1:] != 0)"),
            "tokens of the responses",
        ),
        "lengths of the first row": (
            Edit("place < lengths[:, None]", "place < lengths[0]"),
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
        "per place": (Edit("-logps[counts].mean()", "-(logps * counts).mean()"), "all places"),
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
        "last column": (
            Edit(".logits[rows, lengths - 1]", ".logits[:, -1]"),
            "own distribution|shape|vocabulary|IndexError",
        ),
        "one place on": (
            Edit(".logits[rows, lengths - 1]", ".logits[rows, (lengths - 2).clamp(min=0)]"),
            "own distribution",
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
        "prompt kept": (Edit("row[a:b]", "row[:b]"), "longer than|own distribution|end token"),
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
            "own random numbers|own distribution",
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
        "end token cut off": (
            Edit(
                "demonstrations[i] for i", "(demonstrations[i][0], demonstrations[i][1][:-1]) for i"
            ),
            "end by themselves|gold reward",
        ),
        "gradients pile up": (
            Edit("            optimizer.zero_grad()\n", ""),
            "gold reward|end by themselves",
        ),
        "uphill": (Edit("loss.backward()", "(-loss).backward()"), "end by themselves|gold reward"),
        "one epoch with tiny steps": (Edit("lr=2e-3", "lr=2e-5"), "gold reward"),
    },
    "10L.4": {
        "where training is best": (
            Edit("np.argmin(held_out)", "np.argmin(training)"),
            "vertical line",
        ),
        "place, not epoch": (
            Edit("epochs[np.argmin(held_out)]", "np.argmin(held_out)"),
            "vertical line",
        ),
        "worst epoch": (Edit("argmin", "argmax"), "vertical line"),
        "no legend": (Edit("    ax.legend()\n", ""), "legend names both"),
        "one name": (Edit('"held out"', '"training"'), "legend names both"),
        "no unit": (Edit("loss (nats per token)", "loss"), "unit of the loss"),
        "no label": (Edit('xlabel="epochs", ', ""), "x axis"),
        "against places": (
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
