"""Wrong answers to the lab of chapter 13, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "13L.1": {
        "no price": (Edit("rewards - beta *", "rewards - 0 *"), "no price"),
        "price added": (Edit("rewards - beta *", "rewards + beta *"), "price is added"),
        "no beta": (Edit("rewards - beta *", "rewards -"), "ignores beta"),
        "one price per prompt": (
            Edit(
                "(logps.detach() - reference_logps)",
                "(logps.detach() - reference_logps).mean(1, keepdim=True)",
            ),
            "no price|the same for all",
        ),
        "baseline of bare rewards": (
            Edit("(net.sum(1, keepdim=True) - net)", "(rewards.sum(1, keepdim=True) - rewards)"),
            "knows no price",
        ),
        "price never negative": (
            Edit(
                "(logps.detach() - reference_logps)",
                "(logps.detach() - reference_logps).clamp(min=0)",
            ),
            "never negative",
        ),
        "own reward in the baseline": (
            Edit("(net.sum(1, keepdim=True) - net) / (k - 1)", "net.mean(1, keepdim=True)"),
            "holds the response itself",
        ),
        "own reward in the sum": (
            Edit("(net.sum(1, keepdim=True) - net)", "net.sum(1, keepdim=True)"),
            "sum of all",
        ),
        "all prompts": (
            Edit("(net.sum(1, keepdim=True) - net) / (k - 1)", "net.mean()"),
            "mixes the prompts",
        ),
        "no baseline": (Edit("return net - others", "return net"), "no baseline"),
        "sign": (Edit("return net - others", "return others - net"), "sign is turned"),
        "standardised": (
            Edit(
                "(net.sum(1, keepdim=True) - net) / (k - 1)\n    return net - others",
                "net.mean(1, keepdim=True)\n    return (net - others) / net.std(1, keepdim=True)",
            ),
            "standard deviation",
        ),
        "not detached": (Edit("logps.detach()", "logps"), "plain numbers"),
    },
    "13L.2": {
        "sign": (Edit("return -(", "return ("), "sign is turned"),
        "sum": (Edit(".mean()", ".sum()"), "you summed and did not"),
        "sum in a group": (Edit(".mean()", ".sum(1).mean()"), "responses of a prompt"),
        "advantages only": (Edit("advantages * logps", "advantages"), "advantages alone"),
        "log-probabilities only": (Edit("advantages * logps", "logps"), "log-probabilities alone"),
        "probabilities": (Edit("advantages * logps", "advantages * logps.exp()"), "probabilities"),
        "sizes only": (Edit("advantages * logps", "advantages.abs() * logps"), "lost their sign"),
        "detached": (Edit("advantages * logps", "advantages * logps.detach()"), "gradient flows"),
        "a float": (
            "def rloo_loss(logps, advantages):\n    return float(-(advantages * logps).mean())",
            "gradient flows",
        ),
        "vector": (Edit(".mean()", ""), "single number|a number"),
    },
    "13L.3": {
        "no step": (Edit("        optimizer.step()\n", ""), "changes the policy"),
        "other start": (
            Edit("start_model(start)", "start_model((start + 1) % 5)"),
            "starts from the model",
        ),
        "reference is the policy": (
            Edit("copy.deepcopy(policy).requires_grad_(False)", "policy"),
            "differs from the",
        ),
        "reference is another model": (
            Edit("copy.deepcopy(policy)", "start_model((start + 1) % 5)"),
            "log-ratio is 0",
        ),
        "no seed": (
            Edit("manual_seed(seed)", "manual_seed(int(np.random.default_rng().integers(10**9)))"),
            "same seed gives",
        ),
        "seed ignored": (Edit("manual_seed(seed)", "manual_seed(7)"), "another seed"),
        "weights only": (
            Edit(
                'return {"weights": policy.state_dict(), "reward": rewards, "kl": kl}',
                "return policy.state_dict()",
            ),
            "keys",
        ),
        "history of the last step": (
            Edit('"reward": rewards, "kl": kl', '"reward": rewards[-1:], "kl": kl[-1:]'),
            "shape",
        ),
        "another learning rate": (Edit("lr=1e-3", "lr=3e-4"), "learning rate of 0.001"),
        "beta fixed": (Edit("base, beta)", "base, 0.1)"), "the argument `beta`"),
        "priced rewards logged": (
            Edit(
                "rewards.append(float(r.mean()))",
                "rewards.append(float((r - beta * (logps.detach() - base)).mean()))",
            ),
            "no price subtracted",
        ),
        "no rewards logged": (
            Edit("rewards.append(float(r.mean()))", "rewards.append(0.0)"),
            "mean learned reward",
        ),
        "sum of rewards logged": (
            Edit("rewards.append(float(r.mean()))", "rewards.append(float(r.sum()))"),
            "mean learned reward",
        ),
        "downhill": (  # away from the reference, since the price is turned, too
            Edit("loss = rloo_loss", "loss = -rloo_loss"),
            "nats per response away|gold reward",
        ),
        "no price": (Edit("base, beta)", "base, 0.0)"), "the argument `beta`"),
        "rewards of another response": (
            Edit("r = reward_of(groups).view(-1, K)", "r = reward_of(groups).view(-1, K).flip(1)"),
            "gold reward",
        ),
        "three times as far": (
            Edit(
                '    return {"weights": policy.state_dict(),',
                "    base = reference.state_dict()\n"
                "    far = {n: b + 3 * (policy.state_dict()[n] - b) for n, b in base.items()}\n"
                '    return {"weights": far if steps > 2 else policy.state_dict(),',
            ),
            "nats per response away",
        ),
    },
    "13L.4": {
        "not sorted": (Edit("order = np.argsort(kl)", "order = np.arange(len(kl))"), "learned"),
        "only x sorted": (Edit("reward[order]", "reward"), "learned reward against"),
        "where the learned reward is best": (
            Edit("np.argmax(gold)", "np.argmax(reward)"),
            "vertical line",
        ),
        "worst gold": (Edit("np.argmax(gold)", "np.argmin(gold)"), "vertical line"),
        "no mark": (
            Edit('    ax.axvline(kl[np.argmax(gold)], color="0.5", ls=":")\n', ""),
            "vertical line",
        ),
        "no legend": (Edit("    ax.legend()\n", ""), "legend"),
        "one name": (Edit('"gold reward"', '"learned reward"'), "one name for each"),
        "names exchanged": (
            (
                Edit('"o-", label="learned reward"', '"o-", label="gold reward"'),
                Edit('"s-", label="gold reward"', '"s-", label="learned reward"'),
            ),
            'hold the word "learned"',
        ),
        "no unit": (Edit(" (nats per response)", ""), "unit of the KL"),
        "no label": (Edit(', ylabel="mean reward"', ""), "y axis"),
        "gold forgotten": (Edit("gold[order]", "reward[order]"), "gold reward against"),
        "axes swapped": (Edit("kl[order], gold[order]", "gold[order], kl[order]"), "gold reward"),
    },
}
