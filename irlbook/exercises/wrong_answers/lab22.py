"""Wrong answers to the lab of chapter 22, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

_KEY = "labels[row[0], frozenset(row[1:3])].append((i, row[1]))"
_KEEP = "kept.append(next(i for i, chosen in given if chosen == best))"
_NOISE = "return sorted(kept), (1 - math.sqrt(max(0.0, 1 - 2 * d))) / 2"
_SIGN = "sign = (len(chosen) > len(rejected)) - (len(chosen) < len(rejected))"
_FAR = "far = abs(np.arange(-room, room + 1)) >= abs(sum(sums.values()))"
_P = "return signs.count(1) / len(signs), chance[far].sum()"
_FAMILY = 'family = [first_of(("prompt", row[0])) for row in rows]'
_ORDER = "for i in rng.permutation(len(families)):"
_STOP = "        if held.mean() >= share:\n            break\n"
_LINK = 'leader[first_of(("response", response))] = first_of(("prompt", prompt))'
_ERROR = "means.std(ddof=1) / math.sqrt(n)"
_BETWEEN = "max(0.0, means.var(ddof=1) - within / k)"
_RHO = "rho = between / (between + within) if between + within else 0.0"
_Q = "q = noise + (1 - 2 * noise) * rate"
_VARIANCE = "variance = q * (1 - q) * (1 + (k - 1) * rho) / k"
_Z = "errors = norm.ppf(0.975) + norm.ppf(power)"
_N = "return math.ceil(variance * (errors / (q - 0.5)) ** 2)"
_LAYER = "layer = sum(a * b for a, b in matrices(sizes)) + 2 * h"
_ALL = 'parameters = layers * layer + h + (1 if sizes["tied"] else 2) * v * h'
_GATHERED = (
    "    if stage == 3 and gpus > 1:\n"
    '        weights += layer * number["weight"]\n'
)  # fmt: skip
_EACH = 'each = 6 * h + 5 * sizes["heads"] * sizes["head_size"] + 4 * sizes["intermediate"]'
_KEPT = 'kept = layers * h if job["checkpointing"] else layers * each'
_AGAIN = 'again = whole if job["checkpointing"] else 0'
_FIRST = "first = activations + max(logits, again)"
_STEP = 'step = first + gradients if job["accumulated"] else max(first, again + gradients)'
_PEAK = "peak = weights + optimiser + max(cache, step)"
_FITS = 'peak <= 0.75 * offer["memory"] and '
_STEPS = 'steps = order["epochs"] * math.ceil(len(train) / order["batch"])'
_HELD = '"held_out": [i for i, out in zip(kept, held, strict=True) if out],'

_ONE_PASS = """
def split(rows, share, rng):
    seen, family = {}, []
    for i, row in enumerate(rows):
        known = [seen[text] for text in row[:3] if text in seen]
        family.append(known[0] if known else i)
        seen.update(dict.fromkeys(row[:3], family[-1]))
    held, families = np.zeros(len(rows), dtype=bool), sorted(set(family))
    for i in rng.permutation(len(families)):
        if held.mean() >= share:
            break
        held |= np.array(family) == families[i]
    return held
"""

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "22L.1": {
        "copies are labels": (Edit("if row not in seen:", "if True:"), "copies were counted"),
        "copies alone": (
            Edit(
                "sorted(kept), (1",
                "[i for i, row in enumerate(rows) if row not in rows[:i]], (1",
            ),
            "only copies were left out",
        ),
        "nothing left out": (
            Edit("sorted(kept), (1", "list(range(len(rows))), (1"),
            "all rows of a question",
        ),
        "order of the responses": (
            Edit(_KEY, "labels[row[:3]].append((i, row[1]))"),
            "turned round is another question",
        ),
        "without the prompt": (
            Edit(_KEY, "labels[frozenset(row[1:3])].append((i, row[1]))"),
            "the prompt does not belong",
        ),
        "without the annotator": (
            (
                Edit("if row not in seen:", "if row[:3] not in seen:"),
                Edit("seen.add(row)", "seen.add(row[:3])"),
            ),
            "two labels differ",
        ),
        "one answer for each annotator": (
            (
                Edit(
                    "if row not in seen:", "if (row[0], frozenset(row[1:3]), row[3]) not in seen:"
                ),
                Edit("seen.add(row)", "seen.add((row[0], frozenset(row[1:3]), row[3]))"),
            ),
            "second answer of the same",
        ),
        "last row": (
            Edit(_KEEP, "kept.append([i for i, chosen in given if chosen == best][-1])"),
            "last row",
        ),
        "ties kept": (Edit("if 2 * most > n:", "if True:"), "ties are kept"),
        "first label": (
            (Edit("if 2 * most > n:", "if True:"), Edit(_KEEP, "kept.append(given[0][0])")),
            "first label wins",
        ),
        "unanimous": (Edit("if 2 * most > n:", "if most == n:"), "two labels differ"),
        "minority": (
            Edit("best, most = votes[0]", "(_, most), (best, _) = votes[0], votes[-1]"),
            "label of most annotators",
        ),
        "disagreement": (Edit(_NOISE, "return sorted(kept), d"), "disagreement itself"),
        "half of it": (Edit(_NOISE, "return sorted(kept), d / 2"), "half the disagreement"),
        "pooled": (
            (
                Edit(
                    "2 * most * (n - most) / (n * (n - 1))", "(most * (n - most), n * (n - 1) / 2)"
                ),
                Edit("d = np.mean(apart)", "d = np.sum(apart, axis=0)\n    d = d[0] / d[1]"),
            ),
            "pooled",
        ),
        "single labels agree": (
            Edit("np.mean(apart)", "np.sum(apart) / len(labels)"),
            "one label were counted",
        ),
        "noise of the kept": (
            Edit("if n > 1:", "if n > 1 and 2 * most > n:"),
            "a kept question",
        ),
        "copies in the rate": (
            Edit(
                _NOISE,
                "fresh = [(*row[:3], i) for i, row in enumerate(rows)]\n"
                "    rate = (1 - math.sqrt(max(0.0, 1 - 2 * d))) / 2\n"
                "    return sorted(kept), rate if rows == fresh else clean(fresh)[1]",
            ),
            "copies were counted as labels",
        ),
        "no cap": (
            Edit(_NOISE, "return sorted(kept), (1 - np.sqrt(1 - 2 * d)) / 2"),
            "finite|not NaN",
        ),
        "borrowed": (
            Edit("    d = np.mean(apart)", "    import irlbook.data.audit\n    d = np.mean(apart)"),
            "irlbook.data",
        ),
        "without the sign of the root": (
            Edit("max(0.0, 1 - 2 * d)", "abs(1 - 2 * d)"),
            "the rate is 1/2",
        ),
        "all rows where none is left": (
            Edit("return sorted(kept)", "return sorted(kept or range(len(rows)))"),
            "nothing but ties",
        ),
        "middle of the rows with the label": (
            Edit(_KEEP, "kept.append(np.mean([i for i, chosen in given if chosen == best]))"),
            "whole numbers",
        ),
    },
    "22L.2": {
        "rows alone": (
            (Edit("sums[prompt] += sign", "sums[len(signs), prompt] += sign"),),
            "turned round alone",
        ),
        "votes of prompts": (
            Edit(
                "    room = ",
                "    sums = Counter({x: int(np.sign(s)) for x, s in sums.items()})\n    room = ",
            ),
            "has one vote",
        ),
        "one side": (
            Edit(_FAR, "far = np.arange(-room, room + 1) >= sum(sums.values())"),
            "one side",
        ),
        "beyond": (Edit(">= abs(sum", "> abs(sum"), "were not counted"),
        "normal": (
            Edit(
                "chance[far].sum()",
                "2 * norm.sf(abs(sum(sums.values())) / np.linalg.norm(list(sums.values())))",
            ),
            "normal approximation",
        ),
        "a thousand flips": (
            Edit(
                "chance[far].sum()",
                "np.mean(abs(np.random.default_rng(0).choice([-1, 1], (1000, len(sums))) "
                "@ np.array(list(sums.values()))) >= abs(sum(sums.values())))",
            ),
            "exactly",
        ),
        "ties are shorter": (
            Edit(_SIGN, "sign = 1 if len(chosen) > len(rejected) else -1"),
            "denominator",
        ),
        "ties shorter in the test": (
            Edit("sums[prompt] += sign", "sums[prompt] += sign or -1"),
            "counted as shorter",
        ),
        "ties are longer": (
            Edit("signs.count(1) / len(signs)", "1 - signs.count(-1) / len(rows)"),
            "counted as longer",
        ),
        "words": (
            Edit(
                _SIGN,
                "sign = int(np.sign(len(chosen.split()) - len(rejected.split())))",
            ),
            "in words",
        ),
        "words in the test": (
            Edit(
                "sums[prompt] += sign",
                "sums[prompt] += int(np.sign(len(chosen.split()) - len(rejected.split())))",
            ),
            "in words",
        ),
        "shorter": (Edit("signs.count(1)", "signs.count(-1)"), "shorter one"),
        "exchanged": (
            Edit(_P, "return chance[far].sum(), signs.count(1) / len(signs)"),
            "share",
        ),
        "borrowed": (
            Edit(
                _P,
                "from irlbook.data.audit import clustered_share\n"
                "    rows = [row for row in rows if len(row[1]) != len(row[2])]\n"
                "    found = clustered_share(signs, [row[0] for row in rows])\n"
                "    return found.share, found.p_value",
            ),
            "irlbook.data",
        ),
        "signed total": (
            Edit(">= abs(sum(sums.values()))", ">= sum(sums.values())"),
            "as far from 0",
        ),
        "one prompt is tested row by row": (
            Edit(
                "    room = sum",
                "    if len(sums) == 1:\n"
                "        return signs.count(1) / len(signs), 0.5 ** (len(signs) - 1)\n"
                "    room = sum",
            ),
            "nine rows of one prompt",
        ),
    },
    "22L.3": {
        "rows": (
            Edit(_FAMILY, "family = list(range(len(rows)))"),
            "no prompt is on both sides",
        ),
        "prompts": (Edit(_FAMILY, "family = [row[0] for row in rows]"), "no response is on both"),
        "chosen responses alone": (
            Edit("for response in (chosen, rejected):", "for response in (chosen,):"),
            "no response is on both",
        ),
        "chosen and rejected apart": (
            Edit(
                'leader[first_of(("response", response))]',
                'leader[first_of(("response", response, response == chosen))]',
            ),
            "no response is on both",
        ),
        "families are not joined": (_ONE_PASS, "no response is on both|no prompt is on both"),
        "a link is overwritten": (
            Edit(_LINK, 'leader[("response", response)] = first_of(("prompt", prompt))'),
            "no response is on both",
        ),
        "share of the families": (
            (
                Edit(_ORDER, f"{_ORDER[:-1]}[: round(share * len(families))]:"),
                Edit(_STOP, ""),
            ),
            "at least the share|no more families",
        ),
        "below the share": (
            Edit(
                _STOP,
                "        if (held | [f == families[i] for f in family]).mean() > share:\n"
                "            break\n",
            ),
            "at least the share",
        ),
        "one more": (
            (
                Edit("held = np.zeros", "before, held = 0.0, np.zeros"),
                Edit(
                    _STOP,
                    "        if before >= share:\n            break\n"
                    "        before = held.mean()\n",
                ),
            ),
            "no more families",
        ),
        "largest first": (
            Edit(_ORDER, "for i in np.argsort([-family.count(f) for f in families]):"),
            "drawn with rng",
        ),
        "always the same seed": (
            Edit("rng.permutation", "np.random.default_rng(0).permutation"),
            "drawn with rng",
        ),
        "another source": (
            Edit("rng.permutation", "np.random.default_rng().permutation"),
            "drawn with rng",
        ),
        "neighbours": (
            Edit(
                _ORDER, "for i in np.roll(np.arange(len(families)), -rng.integers(len(families))):"
            ),
            "every set",
        ),
        "rows are drawn": (
            Edit(
                _ORDER,
                "drawn = [families.index(family[j]) for j in rng.permutation(len(rows))]\n"
                "    for i in dict.fromkeys(drawn):",
            ),
            "equally likely|every set",
        ),
        "the other side": (Edit("return held", "return ~held"), "no more families"),
        "borrowed": (
            Edit("    leader = {}", "    import irlbook.data.audit\n    leader = {}"),
            "irlbook.data",
        ),
        "numbers": (Edit("return held", "return np.flatnonzero(held)"), "shape"),
    },
    "22L.4": {
        "naive error": (
            Edit(_ERROR, "math.sqrt(wins.mean() * (1 - wins.mean()) / wins.size)"),
            "all judgements are independent",
        ),
        "naive deviation": (
            Edit(_ERROR, "wins.std(ddof=1) / math.sqrt(wins.size)"),
            "with their own deviation",
        ),
        "N for N - 1": (Edit("means.std(ddof=1)", "means.std()"), "and not N - 1"),
        "deviation": (Edit(_ERROR, "means.std(ddof=1)"), "standard deviation of a prompt"),
        "root of all": (Edit(_ERROR, "means.std(ddof=1) / math.sqrt(n * k)"), "of all judgements"),
        "variance": (Edit(_ERROR, "means.var(ddof=1) / n"), "it is the variance"),
        "prompts won": (
            Edit("return means.mean(),", "return (means > 0.5).mean(),"),
            "share of prompts",
        ),
        "not corrected": (Edit(_BETWEEN, "means.var(ddof=1)"), "was not corrected"),
        "corrected by all of it": (
            Edit("within / k)", "within)"),
            "subtracted whole",
        ),
        "of the variance of means": (
            Edit(_RHO, "rho = between / means.var(ddof=1) if between else 0.0"),
            "divided by the variance of the means",
        ),
        "of the variance within": (
            Edit(_RHO, "rho = between / within if within else 0.0"),
            "divided by V_in",
        ),
        "N k in V_in": (Edit("(n * (k - 1))", "(n * k)"), "N k and not"),
        "N in V_means": (Edit("means.var(ddof=1)", "means.var()"), "and not N - 1"),
        "design effect": (
            Edit("math.sqrt(n), rho", "math.sqrt(n), 1 + (k - 1) * rho"),
            "design effect",
        ),
        "negative": (Edit(_BETWEEN, "means.var(ddof=1) - within / k"), "never negative"),
        "0 by 0": (
            Edit(_RHO, "rho = np.float64(between) / (between + within)"),
            "NaN|finite",
        ),
        "two results": (Edit("math.sqrt(n), rho", "math.sqrt(n)"), "3 values"),
        "borrowed": (Edit("    rho = ", "    import irlbook.stats\n    rho = "), "irlbook.stats"),
        "no variance is full agreement": (
            Edit(_RHO, _RHO.replace("else 0.0", "else 1.0")),
            "without any variance",
        ),
    },
    "22L.5": {
        "noise forgotten": (Edit(_Q, "q = rate"), "were forgotten"),
        "wins are lost": (Edit(_Q, "q = (1 - noise) * rate"), "only lose wins"),
        "true variance": (
            Edit(_VARIANCE, "variance = rate * (1 - rate) * (1 + (k - 1) * rho) / k"),
            "variance is that of the true rate",
        ),
        "variance of a coin": (
            Edit(_VARIANCE, "variance = 0.25 * (1 + (k - 1) * rho) / k"),
            "variance is that of the rate 1/2",
        ),
        "independent": (
            Edit(_VARIANCE, "variance = q * (1 - q) / k"),
            "are independent",
        ),
        "judgements": (
            Edit("math.ceil(variance", "math.ceil(k * variance"),
            "judgements were counted",
        ),
        "judged once": (Edit(_VARIANCE, "variance = q * (1 - q)"), "judged once"),
        "one-sided": (Edit("norm.ppf(0.975)", "norm.ppf(0.95)"), "one-sided"),
        "no power": (Edit(_Z, "errors = norm.ppf(0.975)"), "power is one half"),
        "1 - power": (Edit("norm.ppf(power)", "norm.ppf(1 - power)"), "1 - power"),
        "two-sided power": (
            Edit("norm.ppf(power)", "norm.ppf((1 + power) / 2)"),
            "taken two-sided",
        ),
        "rounded down": (Edit("math.ceil", "math.floor"), "rounded down"),
        "not rounded": (
            Edit(_N, "return variance * (errors / (q - 0.5)) ** 2"),
            "whole numbers",
        ),
        "borrowed": (
            Edit(
                _N,
                "from irlbook.stats import prompts_needed\n"
                "    return prompts_needed(abs(q - 0.5), math.sqrt(variance), 0.0, 1, power)",
            ),
            "irlbook.stats",
        ),
        "one side of a half": (
            Edit(_N, "return math.ceil(variance * (errors / max(q - 0.5, 1e-3)) ** 2)"),
            "needs as many",
        ),
        "one prompt more": (Edit(_N, f"{_N} + 1"), "smallest number of prompts"),
        "rho at most a half": (
            Edit(_VARIANCE, f"rho = min(rho, 0.6)\n    {_VARIANCE}"),
            "with rho = 1",
        ),
    },
    "22L.6": {
        "tied twice": (
            Edit('(1 if sizes["tied"] else 2)', "2"),
            "head is counted for tied",
        ),
        "head missing": (Edit('(1 if sizes["tied"] else 2)', "1"), "head of untied"),
        "norms missing": (
            Edit(_LAYER, "layer = sum(a * b for a, b in matrices(sizes))"),
            "weights",
        ),
        "last norm's weights": (Edit("layers * layer + h +", "layers * layer +"), "weights"),
        "adapter's weights": (Edit("(parameters + adapter)", "parameters"), "adapter's own"),
        "adapter of one layer": (Edit('layers * job["rank"]', 'job["rank"]'), "weights"),
        "adapter of attention": (
            Edit(
                "sum(a + b for a, b in matrices(sizes))",
                "sum(a + b for a, b in matrices(sizes)[:4])",
            ),
            "four matrices of attention",
        ),
        "adapter of the inputs": (
            Edit("sum(a + b for a, b", "sum(a for a, b"),
            "weights",
        ),
        "frozen are trained": (
            Edit(
                'trained = adapter if job["rank"] else parameters', "trained = parameters + adapter"
            ),
            "`gradients`",
        ),
        "no whole layer": (Edit(_GATHERED, ""), "whole layer of stage 3 is missing"),
        "a whole layer always": (
            Edit("if stage == 3 and gpus > 1:", "if gpus > 1:"),
            "every stage",
        ),
        "a whole layer on one GPU": (
            Edit("if stage == 3 and gpus > 1:", "if stage == 3:"),
            "`weights`",
        ),
        "the layer is divided": (
            Edit(
                'weights += layer * number["weight"]', 'weights += layer * number["weight"] / gpus'
            ),
            "`weights`",
        ),
        "the adapter is gathered": (
            Edit(
                'weights += layer * number["weight"]',
                'weights += (layer + adapter / layers) * number["weight"]',
            ),
            "`weights`",
        ),
        "nothing divided": (
            Edit("return what / gpus if stage >= since else what", "return what"),
            "not divided in this stage",
        ),
        "everything divided": (
            Edit("if stage >= since else what", "if stage else what"),
            "`weights`|`gradients`",
        ),
        "gradients late": (
            Edit('number["gradient"], 2)', 'number["gradient"], 3)'),
            "not divided in this stage",
        ),
        "optimiser late": (
            Edit('number["optimiser"], 1)', 'number["optimiser"], 2)'),
            "not divided in this stage",
        ),
        "gradients early": (
            Edit('number["gradient"], 2)', 'number["gradient"], 1)'),
            "one more",
        ),
        "weights early": (Edit('number["weight"], 3)', 'number["weight"], 2)'), "`weights`"),
        "stages reversed": (
            (
                Edit('number["weight"], 3)', 'number["weight"], 1)'),
                Edit('number["optimiser"], 1)', 'number["optimiser"], 3)'),
            ),
            "`weights`",
        ),
        "key-value heads": (
            Edit(_EACH, _EACH.replace('sizes["heads"]', 'sizes["kv_heads"]')),
            "stand for all heads",
        ),
        "hidden for heads": (
            Edit(_EACH, _EACH.replace('sizes["heads"] * sizes["head_size"]', "h")),
            "a is the hidden size",
        ),
        "never checkpointed": (Edit(_KEPT, "kept = layers * each"), "checkpointing was forgotten"),
        "always checkpointed": (
            Edit(_KEPT, "kept = layers * h"),
            "checkpointing was assumed",
        ),
        "again in the activations": (
            Edit("layers * h if", "layers * h + each if"),
            "computed again is counted",
        ),
        "nothing again": (Edit(_AGAIN, "again = 0"), "no layer is computed again"),
        "always again": (Edit(_AGAIN, "again = whole"), "without checkpointing, too"),
        "all layers again": (Edit("again = whole", "again = layers * whole"), "all layers keep"),
        "its input is kept": (
            Edit('number["activation"]  # of one layer', 'number["activation"] * (1 - h / each)'),
            "its input is not counted",
        ),
        "activations in weights": (
            Edit('(kept + 3 * h) * number["activation"]', '(kept + 3 * h) * number["weight"]'),
            "bytes of weights",
        ),
        "again in weights": (
            Edit('number["activation"]  # of one layer', 'number["weight"]'),
            "bytes of weights",
        ),
        "again divided": (Edit("again = whole if", "again = whole / gpus if"), "were divided"),
        "no last norm": (Edit("(kept + 3 * h)", "kept"), "last norm is missing"),
        "the norm in each layer": (
            Edit("(kept + 3 * h)", "(kept + 3 * h * layers)"),
            "counted for each layer",
        ),
        "tokens divided": (
            Edit('job["tokens"] * (kept', 'job["tokens"] / gpus * (kept'),
            "tokens were divided",
        ),
        "all predicted": (Edit('3 * job["predicted"]', '3 * job["tokens"]'), "all tokens enter"),
        "logits once": (Edit('3 * job["predicted"]', 'job["predicted"]'), "held once"),
        "logits divided": (
            Edit('v * number["logit"]', 'v * number["logit"] / gpus'),
            "logits were divided",
        ),
        "logits in two bytes": (
            Edit('v * number["logit"]', 'v * number["activation"]'),
            "bytes of activations",
        ),
        "keys alone": (Edit("pairs = 2 * layers", "pairs = layers"), "keys alone"),
        "cache of all heads": (
            Edit('2 * layers * sizes["kv_heads"]', '2 * layers * sizes["heads"]'),
            "those of all heads",
        ),
        "cache of one layer": (
            Edit("pairs = 2 * layers *", "pairs = 2 *"),
            "one layer has a cache",
        ),
        "cache of the batch": (
            Edit('job["cached"] * number["activation"]', 'job["tokens"] * number["activation"]'),
            "tokens of training",
        ),
        "cache divided": (
            Edit(
                'job["cached"] * number["activation"]',
                'job["cached"] * number["activation"] / gpus',
            ),
            "cache was divided",
        ),
        "cache in weights": (
            Edit('job["cached"] * number["activation"]', 'job["cached"] * number["weight"]'),
            "bytes of weights",
        ),
        "sum": (
            Edit(
                _PEAK,
                "peak = weights + gradients + optimiser + activations + again + logits + cache",
            ),
            "all parts were added",
        ),
        "no cache in the peak": (
            Edit(_PEAK, "peak = weights + optimiser + step"),
            "the cache was forgotten",
        ),
        "always accumulated": (
            Edit(_STEP, "step = first + gradients"),
            "always there together",
        ),
        "never accumulated": (
            Edit(_STEP, "step = max(first, again + gradients)"),
            "earlier micro-batch",
        ),
        "no gradients in the peak": (
            Edit(_STEP, "step = first + (gradients if job['accumulated'] else 0)"),
            "gradients were forgotten",
        ),
        "logits stay": (
            Edit(_FIRST, "first = activations + logits + again"),
            "logits are still there",
        ),
        "logits forgotten": (Edit(_FIRST, "first = activations + again"), "logits were forgotten"),
        "nothing again in the peak": (
            Edit(_FIRST, "first = activations + logits"),
            "missing beside the activations",
        ),
        "nothing again beside the gradients": (
            Edit("max(first, again + gradients)", "max(first, gradients)"),
            "missing beside the gradients",
        ),
        "optimiser away": (
            Edit(_PEAK, "peak = max(weights + cache, weights + optimiser + step)"),
            "optimiser is away",
        ),
        "cache stays": (
            Edit(_PEAK, "peak = weights + optimiser + cache + step"),
            "cache stays|`peak`",
        ),
        "borrowed": (
            Edit(
                _ALL,
                "from irlbook.lm.costs import Architecture\n"
                "    parameters = Architecture(**sizes).parameters",
            ),
            "irlbook.lm",
        ),
        "no peak": (Edit(', "peak": peak', ""), "eight parts"),
    },
    "22L.7": {
        "one panel": (
            "def draw_studies(ns, alarms, found, power, needed):\n"
            "    import matplotlib.pyplot as plt\n"
            "    fig, ax = plt.subplots()\n"
            "    for way in alarms:\n"
            "        ax.plot(ns, alarms[way], label=way)\n"
            '    ax.set(xscale="log", xlabel="prompts", ylabel="share")\n'
            "    return fig\n",
            "2 panels",
        ),
        "exchanged": (
            Edit("(alarms, found), (0.05, power)", "(found, alarms), (0.05, power)"),
            "left panel",
        ),
        "twice the same": (Edit("(alarms, found),", "(alarms, alarms),"), "right panel"),
        "levels exchanged": (Edit("(0.05, power)", "(power, 0.05)"), "horizontal line in the left"),
        "level twice": (Edit("(0.05, power)", "(0.05, 0.05)"), "horizontal line in the right"),
        "no level": (
            Edit('        ax.axhline(level, color="0.5", ls=":")\n', ""),
            "horizontal line",
        ),
        "linear": (Edit('        ax.set_xscale("log")\n', ""), "logarithmic"),
        "no legend": (Edit("        ax.legend(fontsize=8)\n", ""), "legend"),
        "one legend": (
            Edit("        ax.legend(fontsize=8)\n", "    ax.legend()\n"),
            "legend in the left",
        ),
        "one name": (Edit("label=way", 'label="test"'), "legend"),
        "no prompts": (Edit('xlabel="prompts"', 'xlabel="N"'), "prompts and shares"),
        "no share": (Edit('"share that claims a difference"', '"power"'), "prompts and shares"),
        "labels of one panel": (
            Edit("    axes[1].axvline", '    axes[1].set(ylabel="")\n    axes[1].axvline'),
            "the y axis says what",
        ),
        "words of one panel": (
            Edit("    axes[1].axvline", '    axes[1].set(ylabel="power")\n    axes[1].axvline'),
            "of both panels",
        ),
        "borrowed": (
            Edit("    fig, axes = ", "    import irlbook.stats\n    fig, axes = "),
            "irlbook.stats",
        ),
        "needed in the left": (
            Edit("axes[1].axvline", "axes[0].axvline"),
            "vertical line in the right",
        ),
        "needed flat": (Edit("axes[1].axvline(needed", "axes[1].axhline(needed"), "vertical line"),
        "by number": (Edit("ax.plot(ns, y,", "ax.plot(range(len(ns)), y,"), "over the prompts"),
    },
    "22L.8": {
        "not cleaned": (
            Edit("    tidy = ", "    kept = list(range(len(rows)))\n    tidy = "),
            "was not cleaned",
        ),
        "numbers of the kept rows": (
            (
                Edit(
                    "train = [i for i, out in zip(kept, held, strict=True) if not out]",
                    "train = np.flatnonzero(~held).tolist()",
                ),
                Edit(_HELD, '"held_out": np.flatnonzero(held).tolist(),'),
            ),
            "by their numbers in the file",
        ),
        "trained on all": (
            Edit("if not out]", "]"),
            "together those",
        ),
        "no seed": (Edit("default_rng(seed)", "default_rng()"), "same seed"),
        "always the same seed": (Edit("default_rng(seed)", "default_rng(0)"), "another seed"),
        "split by rows": (
            Edit(
                'held = split(tidy, order["share"], np.random.default_rng(seed))',
                "held = np.random.default_rng(seed).permutation(len(tidy)) < 0.3 * len(tidy)",
            ),
            "on both sides",
        ),
        "a fixed share": (Edit('order["share"]', "0.5"), "share of the order"),
        "sides exchanged": (
            Edit("    train = ", "    held = ~held\n    train = "),
            "share of the order",
        ),
        "length in the whole file": (
            Edit("longer(tidy)[1]", "longer(rows)[1]"),
            "on the whole file",
        ),
        "length in training": (
            Edit("longer(tidy)[1]", "longer([rows[i] for i in train])[1]"),
            "on the rows of training",
        ),
        "share for the p-value": (Edit("longer(tidy)[1]", "longer(tidy)[0]"), "share and not"),
        "perfect judges": (
            Edit('order["rate"], noise, rho', 'order["rate"], 0.0, rho'),
            "make no mistakes",
        ),
        "independent judgements": (
            Edit('order["rate"], noise, rho', 'order["rate"], noise, 0.0'),
            "are independent",
        ),
        "judged once": (Edit("rho, wins.shape[1]", "rho, 1"), "judged once"),
        "rate of the pilot": (
            Edit('prompts_for(order["rate"]', "prompts_for(pilot(wins)[0]"),
            "rate of the pilot",
        ),
        "no power": (Edit('order["power"]', "0.6"), "with its power"),
        "memory to the brim": (Edit("0.75 * offer", "offer"), "of a GPU's memory"),
        "memory forgotten": (Edit(_FITS, ""), "of a GPU's memory"),
        "not in time": (Edit(' and hours <= order["hours"]', ""), "longer than the order"),
        "cheapest hour": (
            Edit('bills[i] = hours * offer["dollars"]', 'bills[i] = offer["dollars"]'),
            "smaller bill",
        ),
        "quickest": (
            Edit(
                "best = min(bills, key=bills.get, default=None)",
                'best = min(bills, key=lambda i: offers[i]["seconds"], default=None)',
            ),
            "smaller bill",
        ),
        "first that will do": (
            Edit(
                "best = min(bills, key=bills.get, default=None)",
                "best = max(bills, key=bills.get, default=None)",
            ),
            "smaller bill",
        ),
        "on one GPU": (Edit('"gpus": offer["gpus"]', '"gpus": 1'), "smaller bill|will do"),
        "nothing divided": (Edit('"stage": 3', '"stage": 0'), "smaller bill|will do"),
        "none is an error": (
            Edit("key=bills.get, default=None)", "key=bills.get)"),
            "ValueError|empty",
        ),
        "no bill is 0": (Edit("bills.get(best),", "bills.get(best, 0.0),"), "there is no bill"),
        "whole batches": (
            Edit('math.ceil(len(train) / order["batch"])', '(len(train) // order["batch"])'),
            "last rows of an epoch",
        ),
        "always one more": (
            Edit('math.ceil(len(train) / order["batch"])', '(len(train) // order["batch"] + 1)'),
            "no rows are left over",
        ),
        "80 % of the memory": (Edit("0.75 * offer", "0.8 * offer"), "of a GPU's memory"),
        "70 % of the memory": (Edit("0.75 * offer", "0.7 * offer"), "smaller bill|will do"),
        "parts of steps": (
            Edit('math.ceil(len(train) / order["batch"])', '(len(train) / order["batch"])'),
            "a part of a step|epochs were joined",
        ),
        "epochs joined": (
            Edit(_STEPS, 'steps = math.ceil(order["epochs"] * len(train) / order["batch"])'),
            "epochs were joined|a part of a step",
        ),
        "one epoch": (
            Edit(_STEPS, 'steps = math.ceil(len(train) / order["batch"])'),
            "longer than the order",
        ),
        "each GPU is paid": (
            Edit('hours * offer["dollars"]', 'hours * offer["dollars"] * offer["gpus"]'),
            "smaller bill",
        ),
        "each GPU is on the bill": (
            Edit("bills.get(best),", 'bills[best] * offers[best]["gpus"] if bills else None,'),
            "each GPU costs",
        ),
        "seconds": (
            Edit("bills.get(best),", "bills[best] * 3600 if bills else None,"),
            "for hours",
        ),
        "steps of all rows": (Edit("len(train) / order", "len(kept) / order"), "are trained on"),
        "borrowed": (
            Edit("    kept, noise = ", "    import irlbook.lm.costs\n    kept, noise = "),
            "irlbook.lm",
        ),
        "a bill by another name": (
            Edit('"dollars": bills', '"bill": bills'),
            "six entries by name",
        ),
        "half a prompt": (Edit('order["power"]),', 'order["power"]) + 0.5,'), "whole numbers"),
    },
}
