"""Wrong answers to the lab of chapter 23, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "23L.1": {
        "no scale": (Edit("alpha / len(down) * ", ""), "alpha / r is missing"),
        "alpha alone": (Edit("alpha / len(down)", "alpha"), "not divided by the rank"),
        "turned": (Edit("alpha / len(down)", "len(down) / alpha"), "scale is r / alpha"),
        "no alpha": (Edit("alpha / len(down)", "1 / len(down)"), "alpha is missing"),
        "root of the rank": (Edit("alpha / len(down)", "alpha / len(down) ** 0.5"), "sqrt"),
        "width": (Edit("alpha / len(down)", "alpha / down.shape[1]"), "width of the layer"),
        "no layer": (Edit("linear(x, weight) + ", ""), "frozen layer is missing"),
        "no adapter": (Edit("alpha / len(down)", "0"), "adapter is missing"),
        "adapter transposed": (
            Edit("linear(linear(x, down), up)", "x @ (up @ down)"),
            "adapter's matrix is transposed",
        ),
        "layer transposed": (
            Edit("linear(x, weight)", "x @ weight"),
            "layer's matrix is transposed",
        ),
        "on the output": (
            Edit("linear(linear(x, down), up)", "linear(linear(linear(x, weight), down), up)"),
            "layer's output",
        ),
        "three axes only": (
            Edit("    return", "    assert x.ndim == 3\n    return"),
            "runs without an error",
        ),
        "square layers only": (
            Edit("linear(linear(x, down), up)", "linear(linear(x, down), up)[..., : x.shape[-1]]"),
            "runs without an error",
        ),
        "down detached": (Edit("linear(x, down)", "linear(x, down.detach())"), "through `down`"),
        "up detached": (Edit(", up)", ", up.detach())"), "through `up`"),
        "input detached": (
            Edit("    return", "    x = x.detach()\n    return"),
            "through `x`",
        ),
        "scaled by the shape": (
            Edit("alpha / len(down)", "alpha / len(down) * weight.shape[1] / weight.shape[0]"),
            "more outputs than inputs",
        ),
    },
    "23L.2": {
        "up is not zero": (
            Edit("torch.zeros(rows, rank)", "torch.randn(rows, rank, generator=dice)"),
            "`up` is zero",
        ),
        "both zero": (
            Edit("torch.randn(rank, columns, generator=dice)", "torch.zeros(rank, columns)"),
            "drawn at random",
        ),
        "roles exchanged": (
            Edit(
                "(down, torch.zeros(rows, rank))",
                "(0 * down, torch.randn(rows, rank, generator=dice))",
            ),
            "`up` is zero",
        ),
        "variance one": (Edit(" / math.sqrt(columns)", ""), "variance 1"),
        "divided by the inputs": (Edit("math.sqrt(columns)", "columns"), "variance 1"),
        "all positive": (Edit("torch.randn(", "torch.rand("), "mean 0"),
        "ones": (
            Edit("torch.randn(rank, columns, generator=dice)", "torch.ones(rank, columns)"),
            "drawn at random",
        ),
        "by the rank": (Edit("math.sqrt(columns)", "math.sqrt(rank)"), "variance 1"),
        "the same width for all": (Edit("math.sqrt(columns)", "math.sqrt(44)"), "of its own layer"),
        "a generator for each layer": (
            Edit(
                "            rows, columns = ",
                "            dice = torch.Generator().manual_seed(seed)\n"
                "            rows, columns = ",
            ),
            "of its own",
        ),
        "no generator": (Edit("columns, generator=dice", "columns"), "same seed gives"),
        "fixed seed": (Edit("manual_seed(seed)", "manual_seed(0)"), "another seed"),
        "embedding and head": (Edit(' and ".layers." in name', ""), "nothing else has one"),
        "head": (
            Edit('".layers." in name', '(".layers." in name or "lm_head" in name)'),
            "nothing else has one",
        ),
        "attention only": (
            Edit('".layers." in name', '"self_attn" in name'),
            "nothing else has one",
        ),
        "square only": (
            Edit("weight.ndim == 2 and", "weight.ndim == 2 and len(set(weight.shape)) == 1 and"),
            "nothing else has one",
        ),
        "first layer only": (Edit('".layers." in', '".layers.0." in'), "nothing else has one"),
        "transposed": (
            Edit("rows, columns = weight.shape", "columns, rows = weight.shape"),
            "shape",
        ),
        "rank fixed": (Edit("    dice = ", "    rank = 2\n    dice = "), "shape"),
        "up before down": (
            Edit("(down, torch.zeros(rows, rank))", "(torch.zeros(rows, rank), down)"),
            "shape",
        ),
    },
    "23L.3": {
        "no scale": (Edit("alpha / len(down) * up", "up"), "alpha / r is missing"),
        "alpha alone": (Edit("alpha / len(down)", "alpha"), "not divided by the rank"),
        "no alpha": (Edit("alpha / len(down)", "1 / len(down)"), "alpha is missing"),
        "twice": (Edit("alpha / len(down)", "2 * alpha / len(down)"), "merged twice"),
        "taken off": (Edit("weights[name] + alpha", "weights[name] - alpha"), "taken off"),
        "transposed": (
            Edit("alpha / len(down) * up @ down", "alpha / len(down) * (up @ down).mT"),
            "transposed|runs without an error",
        ),
        "adapter alone": (Edit("weights[name] + ", ""), "weight itself is missing"),
        "in place": (
            Edit("found[name] = weights[name] + ", "found[name] += "),
            "arguments are left as they were",
        ),
        "only the adapted ones": (Edit("found = dict(weights)", "found = {}"), "all weights"),
        "one name only": (
            Edit("    return found", "        break\n    return found"),
            "adapter is missing",
        ),
        "every matrix needs one": (
            Edit(
                "for name, (down, up) in adapter.items():",
                "for name in [n for n in weights if '.layers.' in n and weights[n].ndim == 2]:\n"
                "        down, up = adapter[name]",
            ),
            "runs without an error",
        ),
        "other names": (
            Edit("    return found", "    return {'merged.' + n: w for n, w in found.items()}"),
            "all weights",
        ),
        "norms scaled": (
            Edit(
                "    return found",
                "    return {n: w if n in adapter else 1.1 * w for n, w in found.items()}",
            ),
            "stays as it is",
        ),
    },
    "23L.4": {
        "no step": (Edit("            optimizer.step()\n", ""), "changes the adapter"),
        "the optimiser has the model": (
            Edit("AdamW(learning,", "AdamW([p.requires_grad_() for p in policy.parameters()],"),
            "changes the adapter",
        ),
        "up is not zero": (
            Edit("up.clone().requires_grad_()", "(up + 0.1).requires_grad_()"),
            "with a fresh adapter",
        ),
        "other start": (
            Edit("attach(start_model(start)", "attach(start_model((start + 1) % 5)"),
            "with a fresh adapter",
        ),
        "reference is the policy": (
            (
                Edit(
                    "    policy = attach(start_model(start).requires_grad_(False), own, alpha)\n",
                    "",
                ),
                Edit(
                    "    learning = ",
                    "    policy = reference = attach(reference, own, alpha)\n    learning = ",
                ),
            ),
            "log-ratios are not 0|changes the adapter",
        ),
        "reference with the adapter on": (
            Edit("response_logps(reference, batch)", "response_logps(policy, batch).detach()"),
            "reference has no adapter",
        ),
        "base not frozen": (
            Edit(
                "    learning = [part for pair in own.values() for part in pair]\n",
                "    learning = [part for pair in own.values() for part in pair]\n"
                "    learning += [p.requires_grad_() for p in policy.parameters()]\n",
            ),
            "own weights learn",
        ),
        "no scale": (Edit("own, alpha)", "own, len(next(iter(own.values()))[0]))"), "step on all"),
        "alpha alone": (
            Edit("own, alpha)", "own, alpha * len(next(iter(own.values()))[0]))"),
            "not divided by the rank",
        ),
        "alpha fixed": (Edit("own, alpha)", "own, 4.0)"), "alpha is fixed"),
        "beta fixed": (Edit("(beta * (h", "(0.5 * (h"), "beta is fixed"),
        "down does not learn": (
            Edit("in own.values() for part in pair]", "in own.values() for part in pair[1:]]"),
            "`down` does not learn",
        ),
        "a fresh adapter": (
            Edit("up.clone()", "torch.zeros_like(up)"),
            "step on all",
        ),
        "exchanged": (Edit("[better, worse]) for", "[worse, better]) for"), "step on all"),
        "weight decay": (Edit(", weight_decay=0.0", ""), "the weights decay"),
        "a learning rate a tenth too small": (
            Edit("lr=3e-3", "lr=2.7e-3"),
            "learning rate of 0.003",
        ),
        "another learning rate": (Edit("lr=3e-3", "lr=6e-3"), "learning rate of 0.003"),
        "no seed": (
            Edit("randperm(len(pairs), generator=dice)", "randperm(len(pairs))"),
            "same seed gives",
        ),
        "not shuffled": (
            Edit("torch.randperm(len(pairs), generator=dice)", "torch.arange(len(pairs))"),
            "are shuffled",
        ),
        "with replacement": (
            Edit(
                "torch.randperm(len(pairs), generator=dice)",
                "torch.randint(len(pairs), (len(pairs),), generator=dice)",
            ),
            "step on all",
        ),
        "five steps only": (
            Edit(
                "            optimizer.step()\n",
                "            if len(history) < 5:\n                optimizer.step()\n",
            ),
            "gold reward",
        ),
        "three times as far": (
            Edit("up.detach())", "(3 if len(history) > 5 else 1) * up.detach())"),
            "nats per response away",
        ),
        "last batch dropped": (Edit(".split(32):", ".split(32)[: len(pairs) // 32]:"), "shape"),
        "in place": (
            (
                Edit("down.clone().requires_grad_()", "down.requires_grad_()"),
                Edit("up.clone().requires_grad_()", "up.requires_grad_()"),
            ),
            "arguments are left as they were",
        ),
        "merged weights": (
            Edit('"adapter": trained', '"adapter": merged(reference.state_dict(), own, alpha)'),
            "nothing else has one",
        ),
        "no history": (
            Edit('return {"adapter": trained, "history": history}', "return trained"),
            "keys",
        ),
    },
    "23L.5": {
        "by KL": (Edit("np.argsort(strengths)", "np.argsort(kl)"), "smallest strength"),
        "not sorted": (Edit("np.argsort(strengths)", "np.arange(len(kl))"), "smallest strength"),
        "gold not sorted": (Edit("gold[order],", "gold,"), "smallest strength"),
        "axes exchanged": (Edit("kl[order], gold[order]", "gold[order], kl[order]"), "adapter's"),
        "against the strength": (
            Edit("ax.plot(kl[order]", "ax.plot(np.asarray(strengths)[order]"),
            "adapter's",
        ),
        "no markers": (Edit('marker="o", ', ""), "is a point"),
        "no tilt": (
            Edit(
                '    ax.plot(tilt_kl, tilt_gold, ls="--", label="the tilt of the start")\n',
                "",
            ),
            "shows the tilt",
        ),
        "tilt exchanged": (
            Edit("tilt_kl, tilt_gold, ls", "tilt_gold, tilt_kl, ls"),
            "shows the tilt",
        ),
        "largest strength starred": (
            Edit("np.asarray(strengths) == 1", "np.asarray(strengths) == max(strengths)"),
            "a point of its own",
        ),
        "no star": (
            Edit(
                "ax.scatter(kl[trained], gold[trained], s=120,",
                "ax.scatter([], [], s=120,",
            ),
            "a point of its own",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend names both"),
        "one name": (Edit(', label="the tilt of the start"', ""), "legend names both"),
        "names exchanged": (
            (
                Edit(
                    'marker="o", label="the adapter, at several strengths"',
                    'marker="o", label="the tilt"',
                ),
                Edit('label="the tilt of the start"', 'label="the adapter"'),
            ),
            'hold the word "adapter"',
        ),
        "no unit": (Edit(" (nats per response)", ""), "gives the unit"),
        "no label": (Edit(', ylabel="gold"', ""), "y axis"),
    },
}
