"""Wrong answers to the exercises of chapter 10, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "10.1": {
        "ends at the first end token of the row": (
            Edit(
                "        places =",
                "        lengths = list(lengths)\n"
                "        end = np.argmax(ids[b] == ids.max()) + 1\n"
                "        lengths[b] = max(end - prompt_lengths[b], 0)\n"
                "        places =",
            ),
            "sum over the response's tokens",
        ),
        "all as long as the first": (
            Edit("+ lengths[b])", "+ lengths[0])"),
            "sum over the response's tokens|IndexError",
        ),
        "all prompts as long as the first": (
            Edit(
                "places = np.arange(prompt_lengths[b], prompt_lengths[b] + lengths[b])",
                "places = np.arange(prompt_lengths[0], prompt_lengths[0] + lengths[b])",
            ),
            "sum over the response's tokens|IndexError",
        ),
        "end of the row left out": (
            Edit(
                "        sums.append",
                "        places = places[places < ids.shape[1] - 1]\n        sums.append",
            ),
            "sum over the response's tokens",
        ),
        "one maximum for the batch": (
            Edit("logits.max(axis=-1, keepdims=True)", "logits.max()"),
            "constant|finite|infinit|nan",
        ),
        "a batch's sum": (
            Edit("return np.array(sums)", "return np.full(len(ids), np.sum(sums))"),
            "sum over the response's tokens",
        ),
        "the log of the mean probability": (
            Edit("].sum())", "].max())"),
            "sum over the response's tokens",
        ),
        "prompt length one short": (
            Edit("np.arange(prompt_lengths[b], ", "np.arange(prompt_lengths[b] - 1, "),
            "sum over the response's tokens",
        ),
        "no shift": (Edit("places - 1", "places"), "one place too late"),
        "no end token": (
            Edit("prompt_lengths[b] + lengths[b])", "prompt_lengths[b] + lengths[b] - 1)"),
            "end token is left out",
        ),
        "first token lost": (
            Edit("np.arange(prompt_lengths[b],", "np.arange(prompt_lengths[b] + 1,"),
            "first token of the response",
        ),
        "prompt counted": (
            Edit("np.arange(prompt_lengths[b],", "np.arange(1,"),
            "prompt is counted",
        ),
        "padding counted": (
            Edit("prompt_lengths[b] + lengths[b])", "ids.shape[1])"),
            "padding is counted|more padding",
        ),
        "mean": (Edit("].sum())", "].mean())"), "mean over tokens"),
        "raw logits": (
            Edit("steps[b, places - 1", "logits[b, places - 1"),
            "not normalised",
        ),
        "overflow": (
            Edit("top = logits.max(axis=-1, keepdims=True)", "top = 0.0"),
            "constant|finite|infinit|nan",
        ),
    },
    "10.2": {
        "finished prefixes read their child -1": (
            Edit("if ahead[0] < 0:", "if False:"),
            "soft maximum over what",
        ),
        "price at most one": (
            Edit("    values = np", "    beta = min(beta, 1.0)\n    values = np"),
            "price above 1",
        ),
        "first child only": (
            Edit("x = np.log(policy[s]) + q / beta", "x = (np.log(policy[s]) + q / beta)[:1]"),
            "soft maximum over what",
        ),
        "last child left out": (
            Edit("x = np.log(policy[s]) + q / beta", "x = (np.log(policy[s]) + q / beta)[:-1]"),
            "soft maximum over what",
        ),
        "root only": (
            Edit("return values", "return np.where(np.arange(len(values)) == 0, values, 0.0)"),
            "soft maximum over what",
        ),
        "finished responses keep their reward": (
            Edit("return values", "return values + reward"),
            "ended response has a value|worth its reward",
        ),
        "one step ahead only": (
            Edit("reward[ahead] + values[ahead]", "reward[ahead]"),
            "soft maximum over what",
        ),
        "reward on leaving, not on entering": (
            Edit("reward[ahead] + values[ahead]", "reward[s] + values[ahead]"),
            "soft maximum over what",
        ),
        "exponents cut at 700": (
            Edit("        top =", "        x = x.clip(-700, 700)\n        top ="),
            "overflow",
        ),
        "normalised policy times values": (
            Edit("np.log(policy[s])", "np.log(policy[s] / policy[s].max())"),
            "soft maximum over what",
        ),
        "hard maximum": (
            Edit("beta * (top + np.log(np.exp(x - top).sum()))", "q.max()"),
            "hard maximum",
        ),
        "values of the reference": (
            Edit("beta * (top + np.log(np.exp(x - top).sum()))", "policy[s] @ q"),
            "took the mean",
        ),
        "no reference": (Edit("np.log(policy[s]) + q", "q"), "reference is missing"),
        "no beta in front": (Edit("beta * (top", "(top"), "factor beta"),
        "value at the end": (
            (
                Edit("reward[ahead] + values[ahead]", "values[ahead]"),
                Edit("values = np.zeros(len(children))", "values = reward.astype(float).copy()"),
            ),
            "ended response has a value",
        ),
        "from the front": (
            Edit("reversed(range(len(children)))", "range(len(children))"),
            "soft maximum over what",
        ),
        "overflow": (Edit("top = x.max()", "top = 0.0"), "overflow|finite"),
    },
    "10.3": {
        "chances kept above zero": (
            Edit("    reach = ", "    policy = np.maximum(policy, 1e-8)\n    reach = "),
            "neither ever says",
        ),
        "finished rows not zero": (
            Edit("reach = np.where(children[:, 0] >= 0, reach, 0.0)", "pass"),
            "finished responses are not zero",
        ),
        "weights sum to one": (
            Edit("return reach[:, None] *", "return reach[:, None] / reach.sum() *"),
            "as often as the expert",
        ),
        "mean over prefixes": (
            Edit("return reach[:, None] *", "return reach[:, None] / len(reach) *"),
            "as often as the expert",
        ),
        "first two levels only": (
            Edit(
                "reach[children[s]] = reach[s] * expert[s]",
                "reach[children[s]] = (s == 0) * expert[s]",
            ),
            "as often as the expert",
        ),
        "chance of the last token only": (
            Edit("reach[s] * expert[s]", "expert[s]"),
            "as often as the expert",
        ),
        "gradient in the probabilities": (
            Edit("(policy - expert)", "(-expert / policy)"),
            "as often as the expert",
        ),
        "the root counts nothing": (
            Edit("    return reach", "    reach[0] = 0.0\n    return reach"),
            "as often as the expert",
        ),
        "model's occupancy": (
            Edit("reach[s] * expert[s]", "reach[s] * policy[s]"),
            "where the model goes",
        ),
        "no weights": (
            Edit("reach[:, None] *", "(children[:, :1] >= 0) *"),
            "count the same",
        ),
        "sign": (Edit("(policy - expert)", "(expert - policy)"), "sign"),
        "prefix and token": (
            Edit("(policy - expert)", "expert * (policy - expert)"),
            "prefix AND token",
        ),
        "nothing subtracted": (Edit("(policy - expert)", "policy"), "nowhere subtracted"),
        "only the root": (
            Edit("reach[children[s]] = reach[s] * expert[s]", "pass"),
            "as often as the expert",
        ),
    },
    "10.4": {
        "width without the last row": (
            Edit(
                "for x, y in zip(prompts, responses, strict=True))",
                "for x, y in list(zip(prompts, responses))[:-1])",
            ),
            "ValueError|shape",
        ),
        "width of the first row": (
            Edit(
                "for x, y in zip(prompts, responses, strict=True))",
                "for x, y in list(zip(prompts, responses))[:1])",
            ),
            "ValueError|shape",
        ),
        "pads behind the last other token": (
            Edit(
                "labels[b, n:m] = ids[b, n:m]",
                "last = max(t for t in range(len(ids[b])) if ids[b, t] != pad_id)\n"
                "        labels[b, n : last + 1] = ids[b, n : last + 1]",
            ),
            "labels holds",
        ),
        "pads behind the last other token, and one end": (
            Edit(
                "labels[b, n:m] = ids[b, n:m]",
                "last = max(t for t in range(len(ids[b])) if ids[b, t] != pad_id)\n"
                "        last = min(last + (pad_id == 9), len(ids[b]) - 1)\n"
                "        labels[b, n : last + 1] = ids[b, n : last + 1]",
            ),
            "labels holds",
        ),
        "special case for pad and end": (
            Edit(
                "labels[b, n:m] = ids[b, n:m]",
                "m = m if pad_id == 9 else len(ids[b])\n"
                "        guess = (ids[b, n:m] == pad_id) & (pad_id != 9)\n"
                "        labels[b, n:m] = np.where(guess, -100, ids[b, n:m])",
            ),
            "labels holds",
        ),
        "cut responses get an end": (
            Edit(
                "    width =",
                "    responses = [y if y[-1] == 9 else [*y, 9] for y in responses]\n    width =",
            ),
            "ids holds",
        ),
        "cut responses carry no loss": (
            Edit(
                "labels[b, n:m] = ids[b, n:m]",
                "labels[b, n:m] = ids[b, n:m] if y[-1] == 9 else -100",
            ),
            "labels holds",
        ),
        "padded on the left": (
            Edit(
                "    return ids, labels",
                "    return ids[:, ::-1].copy(), labels[:, ::-1].copy()",
            ),
            "ids holds",
        ),
        "labels filled with the pad": (
            Edit("width), -100)", "width), pad_id)"),
            "labels holds",
        ),
        "one column too many": (Edit("    ids = np", "    width += 1\n    ids = np"), "shape"),
        "first response token lost": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, n + 1 : m] = ids[b, n + 1 : m]"),
            "labels holds",
        ),
        "unchanged": (
            Edit(
                "labels[b, n:m] = ids[b, n:m]",
                "labels[b, n:] = np.where(ids[b, n:] == pad_id, -100, ids[b, n:])",
            ),
            "decided by its token|end token is lost",
        ),
        "padding trained": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, n:] = ids[b, n:]"),
            "padding carries loss",
        ),
        "end cut": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, n : m - 1] = ids[b, n : m - 1]"),
            "learn to stop",
        ),
        "one pad kept": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, n : m + 1] = ids[b, n : m + 1]"),
            "pad behind the response",
        ),
        "prompt trained": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, :m] = ids[b, :m]"),
            "prompt carries loss",
        ),
        "shifted": (
            Edit("labels[b, n:m] = ids[b, n:m]", "labels[b, n - 1 : m - 1] = ids[b, n:m]"),
            "shifted",
        ),
    },
    "10.5": {
        "up to the shorter one's last position": (
            (
                Edit("if not here.any():", "if t > own_position.max():"),
                Edit("own_value[here].mean()", "own_value[here].sum() / np.float64(here.sum())"),
            ),
            "finite|numbers",
        ),
        "own text alone": (
            (
                Edit("np.unique(expert_position)", "np.unique(own_position)"),
                Edit(
                    "        if not here.any():\n            continue\n",
                    "        if not there.any():\n            total += own_value[here].mean()\n"
                    "            mass += 1\n            continue\n",
                ),
            ),
            "each position",
        ),
        "share of all the expert's tokens": (
            Edit("return total / mass", "return total / len(expert_position)"),
            "each position",
        ),
        "first position left out": (
            Edit("np.unique(expert_position)", "np.unique(expert_position)[1:]"),
            "each position",
        ),
        "median": (
            Edit("own_value[here].mean()", "np.median(own_value[here])"),
            "each position",
        ),
        "sum at a position": (
            Edit("own_value[here].mean()", "own_value[here].sum()"),
            "each position",
        ),
        "size of the gaps": (
            Edit(
                "weight * (own_value[here].mean() - expert_value[there].mean())",
                "weight * abs(own_value[here].mean() - expert_value[there].mean())",
            ),
            "each position",
        ),
        "both weights": (
            Edit("weight = there.sum()", "weight = there.sum() + here.sum()"),
            "each position",
        ),
        "sum for mean": (Edit("return total / mass", "return total"), "each position"),
        "plain means": (
            "def matched_gap(expert_position, expert_value, own_position, own_value):\n"
            "    return own_value.mean() - expert_value.mean()",
            "did not match",
        ),
        "own weights": (
            Edit("weight = there.sum()", "weight = here.sum()"),
            "model's positions",
        ),
        "equal weights": (Edit("weight = there.sum()", "weight = 1.0"), "count the same"),
        "zeros for missing": (
            (
                Edit(
                    "if not here.any():\n            continue",
                    "if False:\n            continue",
                ),
                Edit("own_value[here].mean()", "(own_value[here].sum() / max(1, here.sum()))"),
            ),
            "value of 0",
        ),
        "sign": (Edit("return total / mass", "return -total / mass"), "sign is turned"),
    },
}
