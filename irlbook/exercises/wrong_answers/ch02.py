"""Wrong answers to the exercises of chapter 2, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "02.1": {
        "best of the table": (
            Edit("q[next_state].max()", "q.max()"),
            "best of the whole table",
        ),
        "terminal entry set": (
            Edit(
                "    q[state, action] +=",
                "    step_size = 1.0 if terminated else step_size\n    q[state, action] +=",
            ),
            "became the reward",
        ),
        "no step size": (Edit("step_size * (", "("), "became the target"),
        "nothing learned at the end": (
            Edit(
                "    q[state, action] +=",
                "    if terminated:\n        return q\n    q[state, action] +=",
            ),
            "nothing was learned",
        ),
        "nothing below zero": (
            Edit("discount * q[next_state].max()", "discount * max(0.0, q[next_state].max())"),
            "may be negative",
        ),
        "reward discounted": (
            Edit("reward + rest", "(reward if terminated else discount * reward) + rest"),
            "reward was discounted",
        ),
        "no stay": (
            Edit(
                "discount * q[next_state].max()",
                "discount * q[next_state].max() * (next_state != state)",
            ),
            "back to the state",
        ),
        "the clock wins": (
            Edit("0.0 if terminated else", "0.0 if terminated and not truncated else"),
            "terminates on the last tick",
        ),
        "all actions of the state": (
            Edit(
                "q[state, action] += step_size * (reward + rest - q[state, action])",
                "q[state] += step_size * (reward + rest - q[state])",
            ),
            "moves one entry",
        ),
        "bootstraps at the end": (
            Edit("0.0 if terminated else", "0.0 if False else"),
            "still bootstraps",
        ),
        "truncation as termination": (
            Edit("0.0 if terminated", "0.0 if terminated or truncated"),
            "like the end of the world",
        ),
        "only truncation cuts": (Edit("if terminated", "if truncated"), "still bootstraps"),
        "row of the old state": (
            Edit("q[next_state]", "q[state]"),
            "row of the state you left",
        ),
        "mean over actions": (Edit(".max()", ".mean()"), "mean over next actions"),
        "no discount": (Edit("discount * q", "q"), "discount is missing"),
        "forgets to subtract": (Edit(" - q[state, action]", ""), "not subtracted"),
        "minus": (Edit("+= step_size", "-= step_size"), "away from the target"),
        "in place": (Edit("q.copy()", "q"), "in place"),
    },
    "02.2": {
        "factor twice": (
            Edit("discount**t * (returns[t]", "discount**t * (discount**t * returns[t]"),
            "stands twice",
        ),
        "mean over steps": (
            Edit("return gradient", "return gradient / len(states)"),
            "mean over steps",
        ),
        "a state counts once": (
            (Edit("gradient[s] -= weight * policy[s]", "gradient[s] = -weight * policy[s]")),
            "sum of scores",
        ),
        "last step forgotten": (
            Edit("zip(states, actions, strict=True)", "zip(states[:-1], actions[:-1])"),
            "sum of scores",
        ),
        "first step forgotten": (
            Edit(
                "        weight = ",
                "        if t == 0:\n            continue\n        weight = ",
            ),
            "sum of scores",
        ),
        "baseline of the first state": (
            Edit("baseline[s]", "baseline[states[0]]"),
            "sum of scores",
        ),
        "mean baseline": (Edit("baseline[s]", "baseline.mean()"), "sum of scores"),
        "uniform policy in the score": (
            Edit("weight * policy[s]", "weight / len(policy[s])"),
            "sum of scores",
        ),
        "reward of the step only": (
            Edit("rest = rewards[t] + discount * rest", "rest = rewards[t]"),
            "sum of scores",
        ),
        "baseline discounted": (
            Edit("(returns[t] - baseline[s])", "(returns[t] - discount * baseline[s])"),
            "sum of scores",
        ),
        "whole return": (
            Edit("returns[t] - baseline", "returns[0] - baseline"),
            "rewards before it",
        ),
        "no factor in front": (Edit("discount**t * ", ""), "in front is missing"),
        "adds the baseline": (Edit("- baseline[s]", "+ baseline[s]"), "baseline is added"),
        "no baseline": (Edit(" - baseline[s]", ""), "baseline is ignored"),
        "no discount inside": (
            Edit("rewards[t] + discount * ", "rewards[t] + "),
            "inside the return",
        ),
        "score without minus pi": (
            Edit("gradient[s] -= weight * policy[s]", "pass"),
            "minus pi",
        ),
        "sign of a loss": (
            Edit("return gradient", "return -gradient"),
            "sign is that of a loss",
        ),
    },
    "02.3": {
        "value of the next row": (
            Edit(
                "    after = 0.0\n",
                "    next_values = np.append(values[1:], next_values[-1])\n    after = 0.0\n",
            ),
            "value of the next row",
        ),
        "end of the batch not bootstrapped": (
            Edit(
                "    after = 0.0\n",
                "    next_values = np.append(next_values[:-1], 0.0)\n    after = 0.0\n",
            ),
            "faded sum",
        ),
        "the clock wins": (
            Edit(
                "0.0 if terminated[t] else 1.0",
                "0.0 if terminated[t] and not truncated[t] else 1.0",
            ),
            "terminates on the last tick",
        ),
        "one step only": (Edit("discount * lam * carry * after", "0.0"), "only one step"),
        "normalised": (
            Edit(
                "return advantages",
                "return (advantages - advantages.mean()) / (advantages.std() + 1e-8)",
            ),
            "faded sum",
        ),
        "value not subtracted": (Edit(" - values[t]", ""), "faded sum|values added"),
        "discount of the value missing": (
            Edit("discount * next_values[t]", "next_values[t]"),
            "faded sum",
        ),
        "carried from the step before the end": (
            Edit(
                "carry = 0.0 if terminated[t] or truncated[t] else 1.0",
                "carry = 0.0 if t + 1 < len(rewards) and (terminated[t + 1] or truncated[t "
                "+ 1]) else 1.0",
            ),
            "faded sum",
        ),
        "last step nothing": (
            Edit("return advantages", "advantages[-1] = 0.0\n    return advantages"),
            "faded sum",
        ),
        "index t for t + 1": (
            Edit("next_values[t] * alive", "values[t] * alive"),
            "where the value after the step belongs",
        ),
        "termination bootstraps": (
            Edit("0.0 if terminated[t] else 1.0", "1.0"),
            "termination still bootstraps",
        ),
        "truncation cuts": (
            Edit("alive = 0.0 if terminated[t]", "alive = 0.0 if terminated[t] or truncated[t]"),
            "truncation does not bootstrap",
        ),
        "leak over truncation": (
            Edit("0.0 if terminated[t] or truncated[t] else 1.0", "0.0 if terminated[t] else 1.0"),
            "leaks over truncations",
        ),
        "leak everywhere": (
            Edit("0.0 if terminated[t] or truncated[t] else 1.0", "1.0"),
            "leaks into the next episode",
        ),
        "no lambda": (Edit("discount * lam * ", "discount * "), "lambda is ignored"),
        "no discount on the sum": (Edit("discount * lam * ", "lam * "), "discount is missing"),
        "targets": (Edit("return advantages", "return advantages + values"), "values added"),
    },
    "02.4": {
        "silent where nothing has moved": (
            Edit("silent = good | bad", "silent = good | bad | (ratio == 1.0)"),
            "nothing has moved yet",
        ),
        "advantages normalised": (
            Edit(
                "    loss = ",
                "    advantages = (advantages - advantages.mean()) / advantages.std()\n    loss = ",
            ),
            "smaller of the two",
        ),
        "clipped above only": (
            Edit("np.clip(ratio, 1 - clip, 1 + clip)", "np.minimum(ratio, 1 + clip)"),
            "smaller of the two",
        ),
        "only the clipped product": (
            Edit("np.minimum(ratio * advantages, clipped * advantages)", "(clipped * advantages)"),
            "only the clipped product",
        ),
        "interval in the logarithm": (
            Edit(
                "np.clip(ratio, 1 - clip, 1 + clip)",
                "np.exp(np.clip(np.log(ratio), -clip, clip))",
            ),
            "smaller of the two",
        ),
        "half the interval": (
            Edit("    ratio = ", "    clip = clip / 2\n    ratio = "),
            "smaller of the two",
        ),
        "a clip of its own": (
            Edit("    ratio = ", "    clip = 0.2\n    ratio = "),
            "smaller of the two",
        ),
        "loss of each sample": (Edit(".mean()", ""), "single number|shape"),
        "gradient of the clipped ratio": (
            Edit(
                "np.where(silent, 0.0, -ratio * advantages / len(ratio))",
                "-clipped * advantages / len(ratio)",
            ),
            "gradient of a sample",
        ),
        "silent for good actions only": (
            Edit("silent = good | bad", "silent = good"),
            "gradient of a sample",
        ),
        "silent for bad actions only": (
            Edit("silent = good | bad", "silent = bad"),
            "gradient of a sample",
        ),
        "silent the wrong way round": (
            Edit(
                "silent = good | bad",
                "silent = (advantages < 0) & (ratio > 1 + clip) | (advantages > 0) & (ratio "
                "< 1 - clip)",
            ),
            "gradient of a sample",
        ),
        "gradient to climb": (
            Edit("return loss, gradient", "return loss, -gradient"),
            "sign is turned",
        ),
        "maximum": (Edit("np.minimum(", "np.maximum("), "larger of the two"),
        "no clip": (Edit("np.clip(ratio, 1 - clip, 1 + clip)", "ratio"), "nothing is clipped"),
        "upside down": (
            Edit("log_probs - old_log_probs", "old_log_probs - log_probs"),
            "upside down",
        ),
        "sign": (Edit("loss = -", "loss = "), "something to maximise"),
        "sum": (Edit(".mean()", ".sum()"), "mean is asked"),
        "silent on both sides": (
            Edit("silent = good | bad", "silent = (ratio > 1 + clip) | (ratio < 1 - clip)"),
            "way back",
        ),
        "never silent": (
            Edit("silent = good | bad", "silent = np.zeros(len(ratio), dtype=bool)"),
            "never vanishes",
        ),
        "gradient without the ratio": (
            Edit("-ratio * advantages / len(ratio)", "-advantages / len(ratio)"),
            "ratio is missing",
        ),
        "gradient of the sum": (
            Edit("advantages / len(ratio)", "advantages"),
            "number of samples",
        ),
    },
    "02.5": {
        "rolled round": (
            Edit("np.concatenate([previous_done[None], done[:-1]])", "np.roll(done, 1, axis=0)"),
            "end of the batch is carried to its beginning|exactly the steps",
        ),
        "any environment's end": (
            Edit(
                "keep = ~reset_step",
                "keep = np.repeat(~reset_step.any(axis=1, keepdims=True), reset_step.shape[1], 1)",
            ),
            "exactly the steps",
        ),
        "one environment after the other": (
            (
                Edit(
                    "return observations[keep], actions[keep]",
                    "return observations.swapaxes(0, 1)[keep.T], actions.T[keep.T]",
                ),
            ),
            "order of time",
        ),
        "flattened in time": (
            Edit(
                "reset_step = np.concatenate([previous_done[None], done[:-1]])",
                "flat = np.append(previous_done[0], done.ravel()[:-1])\n"
                "    reset_step = flat.reshape(done.shape)",
            ),
            "exactly the steps",
        ),
        "two steps after an end": (
            Edit(
                "    keep = ",
                "    reset_step = reset_step | np.concatenate([reset_step[:1] & False, "
                "reset_step[:-1]])\n    keep = ",
            ),
            "exactly the steps",
        ),
        "the first step always left out": (
            Edit("    keep = ", "    reset_step[0] = True\n    keep = "),
            "exactly the steps",
        ),
        "the last step always left out": (
            Edit("    keep = ", "    reset_step[-1] = True\n    keep = "),
            "exactly the steps",
        ),
        "exclusive ends": (
            Edit("terminated | truncated", "terminated ^ truncated"),
            "exactly the steps",
        ),
        "the bug unchanged": (
            Edit("np.concatenate([previous_done[None], done[:-1]])", "done"),
            "step that ended the episode was dropped",
        ),
        "keeps everything": (
            Edit("keep = ~reset_step", "keep = np.ones_like(reset_step)"),
            "still among the samples",
        ),
        "only terminations": (
            Edit("terminated | truncated", "terminated"),
            "only terminations are seen",
        ),
        "only truncations": (
            Edit("terminated | truncated", "truncated"),
            "only truncations are seen",
        ),
        "forgets the batch before": (
            Edit("previous_done[None]", "np.zeros_like(previous_done)[None]"),
            "carried over",
        ),
        "drops both": (
            Edit("keep = ~reset_step", "keep = ~reset_step & ~done"),
            "together with the reset steps",
        ),
        "two masks": (
            Edit("actions[keep]", "actions[~done][: keep.sum()]"),
            "actions are those|actions",
        ),
    },
}
