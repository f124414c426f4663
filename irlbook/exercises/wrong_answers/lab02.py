"""Wrong answers to the lab of chapter 2, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "02L.1": {
        "truncation ends the world": (
            Edit("* ~terminated[t] - values", "* ~(terminated[t] | truncated[t]) - values"),
            "a truncation counts as a termination",
        ),
        "never terminated": (Edit("* ~terminated[t] - values", "- values"), "as a truncation"),
        "runs into the next episode": (
            Edit("~(terminated[t] | truncated[t])", "~terminated[t]"),
            "runs on over a truncation",
        ),
        "no lambda": (Edit("discount * lam *", "discount *"), "lambda is missing"),
        "targets": (Edit("= after\n", "= after + values[t]\n"), "targets of the critic"),
        "no sum": (Edit("discount * lam *", "0.0 *"), "only the TD errors"),
        "either flag clears the other": (
            Edit("* ~terminated[t] -", "* ~(terminated[t] & ~truncated[t]) -"),
            "has terminated",
        ),
        "flags of the row after": (
            "def advantages_of(rewards, values, next_values, terminated, truncated, discount, lam):"
            "\n    advantages, after = np.zeros(rewards.shape), np.zeros(rewards.shape[1])\n"
            "    ends = np.concatenate([np.stack([terminated, truncated], 1),"
            " np.zeros((1, 2, rewards.shape[1]), bool)])[1:]\n"
            "    for t in reversed(range(len(rewards))):\n"
            "        delta = rewards[t] + discount * next_values[t] * ~ends[t, 0] - values[t]\n"
            "        after = delta + discount * lam * ~ends[t].any(axis=0) * after\n"
            "        advantages[t] = after\n"
            "    return advantages",
            "flags of the row after",
        ),
    },
    "02L.2": {
        "a single one stays as it is": (
            Edit(
                "    if (adv",
                "    if len(advantages) == 1:\n        return advantages\n    if (adv",
            ),
            "all the same become zeros(?!,)",
        ),
        "sample deviation": (
            Edit("centred.square().mean().sqrt()", "advantages.std()"),
            "B - 1",
        ),
        "no mean": (Edit("return centred", "return advantages"), "mean was not subtracted"),
        "variance": (Edit(".sqrt()", ""), "the variance"),
        "NaN": (
            Edit("    if (advantages == advantages[0]).all():", "    if False:"),
            "finite|NaN",
        ),
        "a tiny number": (
            (
                Edit("    if (advantages == advantages[0]).all():", "    if False:"),
                Edit(
                    "/ centred.square().mean().sqrt()", "/ (centred.square().mean().sqrt() + 1e-8)"
                ),
            ),
            "rounded in single precision",
        ),
        "one sample only": (
            (
                Edit("(advantages == advantages[0]).all()", "len(advantages) == 1"),
                Edit(
                    "/ centred.square().mean().sqrt()", "/ (centred.square().mean().sqrt() + 1e-8)"
                ),
            ),
            "rounded in single precision",
        ),
        "not divided": (Edit(" / centred.square().mean().sqrt()", ""), "not divided"),
        "largest": (
            Edit("centred.square().mean().sqrt()", "centred.abs().max()"),
            "by the largest",
        ),
    },
    "02L.3": {
        "sign": (Edit("return -", "return "), "sign is turned"),
        "no clip": (
            Edit("torch.minimum(ratio * advantages, clipped * advantages)", "(ratio * advantages)"),
            "not clipped",
        ),
        "always clipped": (
            Edit(
                "torch.minimum(ratio * advantages, clipped * advantages)", "(clipped * advantages)"
            ),
            "the wrong way",
        ),
        "larger": (Edit("torch.minimum", "torch.maximum"), "the larger"),
        "upside down": (
            Edit("log_probs - old_log_probs", "old_log_probs - log_probs"),
            "upside down",
        ),
        "sum": (Edit(".mean()", ".sum()"), "not a mean"),
        "one side": (
            Edit("torch.clamp(ratio, 1 - clip, 1 + clip)", "torch.clamp(ratio, max=1 + clip)"),
            "above only",
        ),
        "no gradient": (Edit("log_probs - old", "log_probs.detach() - old"), "gradients flow"),
    },
    "02L.4": {
        "no value": (Edit("advantages + values", "advantages"), "the value is missing"),
        "sign": (Edit("advantages + values", "advantages - values"), "sign of the value"),
        "invalid steps too": (
            (
                Edit("(advantages + values)[valid]", "(advantages + values).ravel()"),
                Edit("new_values - targets", "new_values - targets[: len(new_values)]"),
            ),
            "shape",
        ),
        "order": (
            Edit("(advantages + values)[valid]", "(advantages + values).T[valid.T]"),
            "order",
        ),
        "sum": (Edit("np.mean", "np.sum"), "it is a sum"),
        "half": (Edit("np.mean(", "0.5 * np.mean("), "half of it"),
        "root": (
            Edit(
                "np.mean((new_values - targets) ** 2)", "np.mean((new_values - targets) ** 2)**.5"
            ),
            "the root of it",
        ),
        "all steps": (
            Edit(
                "np.mean((new_values - targets) ** 2)",
                "np.sum((new_values - targets) ** 2) / valid.size",
            ),
            "valid or not|half of it",
        ),
    },
    "02L.5": {
        "untrained": (Edit("range(updates)", "range(min(updates, 2))"), "balances"),
        "torch has no seed": (Edit("torch.manual_seed(seed)", "pass"), "same seed gives the same"),
        "the environment has no seed": (
            Edit("env.reset(seed=seed)", "env.reset()"),
            "same seed gives the same",
        ),
        "NumPy has no seed": (
            Edit("default_rng(seed)", "default_rng()"),
            "same seed gives the same",
        ),
        "one seed for all": (
            Edit("    rng = np", "    seed = 0\n    rng = np"),
            "another seed gives other",
        ),
        "the critic": (Edit("agent.actor.state_dict()", "agent.critic.state_dict()"), "shape"),
        "both networks": (
            Edit("agent.actor.state_dict()", "agent.state_dict()"),
            "weights of the actor",
        ),
        "the agent itself": (Edit("agent.actor.state_dict()", "agent"), "plain containers"),
        "ascent": (
            (Edit("updates=120", "updates=10"), Edit("loss.backward()", "(-loss).backward()")),
            "balances|finite",
        ),
        "too short": (Edit("updates=120", "updates=6"), "balances"),
        "no step": (
            (Edit("updates=120", "updates=10"), Edit("optimizer.step()", "pass")),
            "balances",
        ),
        "advantages of nobody": (
            (
                Edit("updates=120", "updates=20"),
                Edit("normalise(adv[pick])", "normalise(0 * adv[pick])"),
            ),
            "balances",
        ),
        "borrowed": (
            "def train(seed, history=None, updates=120):\n"
            "    from irlbook.rl.ppo import PPOConfig, ppo\n"
            "    return ppo(PPOConfig(), seed=seed).agent.actor.state_dict()",
            "irlbook.rl",
        ),
    },
    "02L.6": {
        "no label": (Edit(', ylabel="return of an episode"', ""), "y axis"),
        "axes exchanged": (Edit("scatter(steps, returns", "scatter(returns, steps"), "is a point"),
        "no points": (Edit("ax.scatter(", "ax.fill_between("), "is a point|without an error"),
        "joined and not marked": (
            Edit("ax.scatter(steps, returns, s=6, ", "ax.plot(steps, returns, "),
            "without markers",
        ),
        "from the first on": (
            (
                Edit(
                    'np.convolve(returns, np.ones(20) / 20, mode="valid")',
                    "[returns[max(0, i - 19) : i + 1].mean() for i in range(len(returns))]",
                ),
                Edit("steps[19:]", "steps"),
            ),
            "mean of the last 20",
        ),
        "mean of all so far": (
            Edit(
                'np.convolve(returns, np.ones(20) / 20, mode="valid")',
                "(np.cumsum(returns) / np.arange(1, len(returns) + 1))[19:]",
            ),
            "mean of the last 20",
        ),
        "no line": (Edit("ax.plot(steps[19:], mean", "ax.plot([], []"), "mean of the last 20"),
        "shifted": (Edit("steps[19:]", "steps[:-19]"), "mean of the last 20"),
        "padded": (
            (Edit('mode="valid"', 'mode="same"'), Edit("steps[19:]", "steps")),
            "mean of the last 20",
        ),
        "ten": (
            (Edit("np.ones(20) / 20", "np.ones(10) / 10"), Edit("steps[19:]", "steps[9:]")),
            "mean of the last 20",
        ),
        "empty words": (Edit("environment steps", "x"), "labels contain"),
        "nothing returned": (Edit("return fig", "return None"), "Matplotlib figure"),
    },
}
