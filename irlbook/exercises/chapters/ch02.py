"""Exercises of chapter 2: learning from interaction."""

from __future__ import annotations

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length
from irlbook.rl.advantages import gae, returns_to_go
from irlbook.rl.tabular_gradient import score, softmax_policy

# 02.1 ---------------------------------------------------------------------------------------------


def check_q_update(answer, rng):
    n_states, n_actions = int(rng.integers(4, 7)), int(rng.integers(2, 5))
    q = rng.normal(size=(n_states, n_actions)) + 2.0
    state, next_state = (int(i) for i in rng.choice(n_states, size=2, replace=False))
    action = int(rng.integers(n_actions))
    q[[s for s in range(n_states) if s not in (state, next_state)][0]] += 5.0  # best of the table
    reward, alpha, discount = (float(rng.uniform(*r)) for r in ((-2, 2), (0.1, 0.6), (0.5, 0.95)))

    def updated(target: float, rate: float = alpha) -> np.ndarray:
        new = q.copy()
        new[state, action] += rate * (target - q[state, action])
        return new

    bootstrapped = updated(reward + discount * q[next_state].max())
    cut = updated(reward)
    replaced = q.copy()
    replaced[state, action] = alpha * (reward + discount * q[next_state].max())
    added = q.copy()
    added[state, action] += alpha * (reward + discount * q[next_state].max())
    args = (q, state, action, reward, next_state)
    mistakes = {
        "you took the best of the whole table, not of the next state's row": updated(
            reward + discount * q.max()
        ),
        "the step size is forgotten: the entry became the target": updated(
            reward + discount * q[next_state].max(), rate=1.0
        ),
        "the reward was discounted too": updated(discount * (reward + q[next_state].max())),
        "you took the mean over next actions, not the best": updated(
            reward + discount * q[next_state].mean()
        ),
        "you looked at the row of the state you left": updated(reward + discount * q[state].max()),
        "the discount is missing": updated(reward + q[next_state].max()),
        "the old value was not subtracted from the target": added,
        "the old value was thrown away": replaced,
        "you moved away from the target": updated(
            reward + discount * q[next_state].max(), rate=-alpha
        ),
    }
    expect_close(
        answer(*args, False, False, alpha, discount),
        bootstrapped,
        property="an ordinary step moves one entry a part of the way to its target",
        hint="(2.2) with the target (2.3); every other entry stays",
        mistakes=mistakes,
    )
    expect_close(
        answer(*args, True, False, alpha, discount),
        cut,
        property="after a termination the entry moves a part of the way to the reward alone",
        hint="the world is over: what is it worth to be there? The rest is as in any step",
        mistakes={
            "the update still bootstraps": bootstrapped,
            "the step size is forgotten: the entry became the reward": updated(reward, rate=1.0),
            "nothing was learned from the last step": q,
        },
    )
    expect_close(
        answer(*args, False, True, alpha, discount),
        bootstrapped,
        property="a truncation does not change the target",
        hint="only the clock stopped; would the world have gone on?",
        mistakes={"you treat the clock like the end of the world": cut},
    )
    low = q - q.max() - 1.0
    moved = low.copy()
    moved[state, action] += alpha * (reward + discount * low[next_state].max() - low[state, action])
    expect_close(
        answer(low, *args[1:], False, False, alpha, discount),
        moved,
        property="the best value may be negative",
        hint="with what does your maximum begin?",
    )
    again = q.copy()
    again[state, action] += alpha * (reward + discount * q[state].max() - q[state, action])
    expect_close(
        answer(q, state, action, reward, state, False, False, alpha, discount),
        again,
        property="a step may lead back to the state it came from",
        hint="(2.3) needs the old values of the next state, whichever it is",
    )
    expect_close(
        answer(*args, True, True, alpha, discount),
        cut,
        property="a step that terminates on the last tick of the clock counts as terminated",
        hint="both flags can be set at once; which one speaks about the world?",
    )


register(
    Exercise(
        id="02.1",
        title="One step of Q-learning",
        function="q_update",
        points=3,
        difficulty=1,
        minutes=10,
        importance=5,
        goal="You can write the Q-learning update and treat both ways to end an episode rightly.",
        hints=(
            "Say in words what the target is when the world goes on, and when it does not.",
            "Two flags come in. Does the target need both?",
            "Copy the table, compute the target with the best value of the next row or without it, "
            "and move the one entry by step_size times what is missing.",
        ),
        check=check_q_update,
    )
)

# 02.2 ---------------------------------------------------------------------------------------------


def check_gradient_estimate(answer, rng):
    n_states, n_actions, steps = 3, int(rng.integers(2, 5)), int(rng.integers(5, 9))
    logits = rng.normal(size=(n_states, n_actions))
    states = rng.integers(n_states, size=steps)
    actions = rng.integers(n_actions, size=steps)
    rewards = rng.normal(size=steps) + 1.0
    baseline = rng.normal(size=n_states) + 2.0
    discount = float(rng.uniform(0.6, 0.9))
    policy = softmax_policy(logits)
    g, time = returns_to_go(rewards, discount), np.arange(steps)
    whole = np.full(steps, g[0])
    tail = np.array([(discount ** time[t:] * rewards[t:]).sum() for t in range(steps)])
    undiscounted = returns_to_go(rewards, 1.0)

    def estimate(weights: np.ndarray, scored: bool = True) -> np.ndarray:
        total = np.zeros_like(logits)
        for w, s, a in zip(weights, states, actions, strict=True):
            part = score(policy, int(s), int(a))
            if not scored:
                part = np.zeros_like(logits)
                part[s, a] = 1.0
            total += w * part
        return total

    fade, b = discount**time, baseline[states]
    expect_close(
        answer(logits, states, actions, rewards, baseline, discount),
        estimate(fade * (g - b)),
        property="the estimate is the sum of scores, each weighted by how much better than the "
        "baseline things went from there on",
        hint="take (2.10) apart: the return to go, the baseline of the state, the factor in front, "
        "and the score (2.8)",
        mistakes={
            "each action is credited with the rewards before it too": estimate(fade * (whole - b)),
            "the factor discount^t in front is missing": estimate(g - b),
            "the factor discount^t stands twice": estimate(fade * (tail - b)),
            "the baseline is added": estimate(fade * (g + b)),
            "the baseline is ignored": estimate(fade * g),
            "the rewards inside the return are not discounted": estimate(fade * (undiscounted - b)),
            "the score lacks the part with minus pi": estimate(fade * (g - b), scored=False),
            "the result is a mean over steps, not a sum": estimate(fade * (g - b)) / steps,
            "the sign is that of a loss": -estimate(fade * (g - b)),
        },
    )


register(
    Exercise(
        id="02.2",
        title="A policy gradient from one trajectory",
        function="gradient_estimate",
        points=4,
        difficulty=2,
        minutes=20,
        importance=5,
        goal="You can turn one trajectory into an unbiased estimate of the policy gradient.",
        hints=(
            "Write (2.10) for a trajectory of two steps on paper.",
            "The return to go is easiest backwards: today's reward plus the discounted rest.",
            "For each step: the score row is minus the policy's row, plus one at the action taken; "
            "weigh it by discount^t times (return to go minus baseline), and add it to its row.",
        ),
        check=check_gradient_estimate,
    )
)

# 02.3 ---------------------------------------------------------------------------------------------


def _batch_with_both_ends(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A batch of one environment with three episodes ended, each way at least once."""
    steps = int(rng.integers(14, 20))
    rewards, values, next_values = rng.normal(size=(3, steps)) + 1.0
    terminated, truncated = np.zeros((2, steps), dtype=bool)
    first, second, third = np.sort(rng.choice(np.arange(1, 6), 3, replace=False)) * 2
    terminated[first], truncated[second], terminated[third] = True, True, True
    inside = ~(terminated | truncated)[:-1]
    next_values[:-1][inside] = values[1:][inside]
    return rewards, values, next_values, terminated, truncated


def check_gae(answer, rng):
    r, v, nv, terminated, truncated = _batch_with_both_ends(rng)
    discount, lam = float(rng.uniform(0.7, 0.95)), float(rng.uniform(0.5, 0.9))
    none = np.zeros_like(terminated)

    def right(*arrays, **kw):
        return gae(*arrays, **{"discount": discount, "lam": lam, **kw})

    done = terminated | truncated
    leak = np.zeros(len(r))
    one_step = right(r, v, nv, terminated, truncated, lam=0.0)
    running = undiscounted = 0.0
    no_gamma = np.zeros(len(r))
    for t in range(len(r) - 1, -1, -1):
        running = one_step[t] + discount * lam * (0.0 if terminated[t] else running)
        leak[t] = running
        undiscounted = one_step[t] + lam * (0.0 if done[t] else undiscounted)
        no_gamma[t] = undiscounted
    everything_leaks = right(r, v, np.where(terminated, 0.0, nv), none, none)
    expect_close(
        answer(r, v, nv, terminated, truncated, discount, lam),
        right(r, v, nv, terminated, truncated),
        property="the advantage is the faded sum of the TD errors up to the end of the episode",
        hint="two masks, two places: which end cuts the value of the next observation, and which "
        "cuts the sum?",
        mistakes={
            "the value at t stands where the value after the step belongs": right(
                r, v, v, terminated, truncated
            ),
            "the value of the next row was used; after an end it belongs to another episode": right(
                r, v, np.append(v[1:], nv[-1]), terminated, truncated
            ),
            "a termination still bootstraps": right(r, v, nv, none, done),
            "a truncation does not bootstrap": right(r, v, nv, done, none),
            "the sum leaks over truncations": leak,
            "the sum leaks into the next episode": everything_leaks,
            "lambda is ignored": right(r, v, nv, terminated, truncated, lam=1.0),
            "only one step is used": one_step,
            "the discount is missing where the sum is carried on": no_gamma,
            "you returned the targets of the critic, values added": right(
                r, v, nv, terminated, truncated
            )
            + v,
        },
    )
    once = np.array([True])
    expect_close(
        answer(r[:1], v[:1], nv[:1], once, once, discount, lam),
        r[:1] - v[:1],
        property="a step that terminates on the last tick of the clock counts as terminated",
        hint="both flags can be set at once; which one speaks about the world?",
    )


register(
    Exercise(
        id="02.3",
        title="GAE with both ways to end",
        function="gae_advantages",
        points=5,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can compute advantages on a batch that holds several episodes, ended either way.",
        hints=(
            "First compute all TD errors (2.13), then think about the sum.",
            "Run backwards with one number that holds the advantage of the step after.",
            "terminated multiplies the next value by 0; terminated or truncated multiplies the "
            "carried number by 0.",
        ),
        check=check_gae,
    )
)

# 02.4 ---------------------------------------------------------------------------------------------


def check_clipped_loss(answer, rng):
    size, clip = 24, float(rng.uniform(0.1, 0.3))
    old = -rng.uniform(0.5, 2.0, size=size)
    # every case occurs: below, inside, above the interval, with either sign
    ratio = np.tile([1 - 2 * clip, 1 - 0.4 * clip, 1 + 0.4 * clip, 1 + 2 * clip], size // 4)
    ratio = ratio + rng.uniform(-0.2, 0.2, size=size) * clip
    advantages = np.repeat([1.0, -1.0, 1.0], size // 3) * rng.uniform(0.5, 2.0, size=size)
    new = old + np.log(ratio)
    clipped = np.clip(ratio, 1 - clip, 1 + clip)
    outside = ratio != clipped
    used = ~(((advantages > 0) & (ratio > 1 + clip)) | ((advantages < 0) & (ratio < 1 - clip)))
    loss = -np.minimum(ratio * advantages, clipped * advantages).mean()
    slope = -ratio * advantages / size
    inverse = 1 / ratio
    got = expect_length(
        answer(new, old, advantages, clip),
        2,
        hint="return the loss (a number) and its gradient by log_probs, in this order",
    )
    expect_close(
        got[0],
        loss,
        property="the loss is minus the mean of the smaller of the two products",
        hint="(2.16), with the sign of something to minimise",
        what="the loss",
        mistakes={
            "you took the larger of the two": -np.maximum(
                ratio * advantages, clipped * advantages
            ).mean(),
            "only the clipped product is used": -(clipped * advantages).mean(),
            "nothing is clipped": -(ratio * advantages).mean(),
            "the sign is that of something to maximise": -loss,
            "you summed where a mean is asked": loss * size,
            "the ratio is upside down": -np.minimum(
                inverse * advantages, np.clip(inverse, 1 - clip, 1 + clip) * advantages
            ).mean(),
        },
    )
    gradient = as_array(got[1], (size,), what="the gradient")
    expect_close(
        gradient,
        np.where(used, slope, 0.0),
        property="the gradient of a sample is zero only where the clip is active and the sign of "
        "the advantage agrees",
        hint="go through the four cases: good or bad action, too likely or too rare",
        what="the gradient",
        mistakes={
            "it vanishes wherever the ratio is outside, also on the way back": np.where(
                outside, 0.0, slope
            ),
            "it never vanishes": slope,
            "the sign is turned": np.where(used, -slope, 0.0),
            "the ratio is missing from it (it is the gradient by the log-probability)": np.where(
                used, -advantages / size, 0.0
            ),
            "the division by the number of samples is missing": np.where(used, slope, 0.0) * size,
        },
    )
    at_one = expect_length(answer(old, old, advantages, clip), 2, hint="loss and gradient")
    expect(
        np.allclose(at_one[1], -advantages / size),
        property="where nothing has moved yet, the gradient is that of the plain policy gradient",
        hint="what is the ratio when both log-probabilities are equal?",
    )


register(
    Exercise(
        id="02.4",
        title="PPO's loss and where its gradient vanishes",
        function="clipped_loss",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You can write PPO's loss, and say for each sample whether it still teaches anything.",
        hints=(
            "Plot the two products against the ratio for a good and for a bad action.",
            "The derivative of the ratio by the log-probability is the ratio itself.",
            "A sample is silent when advantage > 0 and ratio > 1 + clip, or advantage < 0 and "
            "ratio < 1 - clip. Else its gradient is minus ratio times advantage over the size.",
        ),
        check=check_clipped_loss,
    )
)

# 02.5 ---------------------------------------------------------------------------------------------


def check_training_samples(answer, rng):
    steps, envs, size = int(rng.integers(12, 18)), int(rng.integers(3, 5)), 2
    observations = rng.normal(size=(steps, envs, size))
    actions = rng.integers(5, size=(steps, envs))
    terminated, truncated = np.zeros((2, steps, envs), dtype=bool)
    for env in range(envs):  # both kinds of end in every column, never on two steps running
        one, two = np.sort(rng.choice(np.arange(1, (steps - 2) // 2), 2, replace=False)) * 2
        terminated[one, env], truncated[two, env] = True, True
    previous_done = np.zeros(envs, dtype=bool)
    other, carried = rng.choice(envs, 2, replace=False)
    previous_done[carried] = True
    terminated[-1, other] = True  # an end on the last step says nothing about the first
    both = tuple(np.argwhere(terminated)[0])
    truncated[both] = True  # an end can be both
    done = terminated | truncated

    def after(ends: np.ndarray, first: np.ndarray) -> np.ndarray:
        return ~np.concatenate([first[None], ends[:-1]])

    def chosen(mask: np.ndarray) -> np.ndarray:
        return observations[mask]

    want = after(done, previous_done)
    got = expect_length(
        answer(observations, actions, terminated, truncated, previous_done),
        2,
        hint="return the observations and the actions that may be learned from",
    )
    got_obs = as_array(got[0], (-1, size), what="the observations")
    got_act = as_array(got[1], (-1,), what="the actions")
    suspects = {
        "the step that ended the episode was dropped, and the reset step after it kept": ~done,
        "reset steps are still among the samples": np.ones_like(done),
        "the end of the batch is carried to its beginning": after(done, done[-1]),
        "only terminations are seen, not truncations": after(terminated, previous_done),
        "only truncations are seen, not terminations": after(truncated, previous_done),
        "the step carried over from the last batch is forgotten": after(
            done, 0 * previous_done > 0
        ),
        "good steps are dropped together with the reset steps": want & ~done,
    }
    seen = next(
        (
            name
            for name, mask in suspects.items()
            if got_obs.shape == chosen(mask).shape and np.allclose(got_obs, chosen(mask))
        ),
        "",
    )
    ok = got_obs.shape == chosen(want).shape and np.allclose(got_obs, chosen(want))
    expect(
        ok,
        property="exactly the steps whose action was carried out are kept, in the order of time",
        hint="which step ignores its action: the one that ends an episode, or another?",
        detail=f"it looks as if {seen}" if seen else "",
    )
    expect(
        got_act.shape == actions[want].shape and np.array_equal(got_act, actions[want]),
        property="the actions are those of the observations that are kept",
        hint="use one mask for both",
    )


register(
    Exercise(
        id="02.5",
        title="The step that never happened",
        kind="bug hunt",
        function="training_samples",
        points=4,
        difficulty=3,
        minutes=20,
        importance=4,
        goal="You know which row of a vector environment's log must not be learned from.",
        hints=(
            "Write down three rows around the end of an episode: what is the observation, which "
            "action was sent, was it carried out?",
            "Gymnasium resets on the step after the end. So the step that ended is a real one.",
            "Shift the flags down by one row; the first row needs `previous_done`.",
        ),
        check=check_training_samples,
    )
)

# 02.6 ---------------------------------------------------------------------------------------------

register(
    Exercise(
        id="02.6",
        title="Whose mistakes count?",
        kind="written",
        points=4,
        difficulty=2,
        minutes=20,
        importance=4,
        goal="You can tell on-policy from off-policy learning, and say what that means for RLHF.",
        hints=(
            "Start from the targets (2.3) and (2.4): who chooses the next action in each?",
            "What happens to SARSA's path when epsilon goes to 0?",
            "For the language model: whose texts are in the batch, and what does (2.15) do "
            "when they come from somebody else?",
        ),
        rubric=(
            Criterion(
                1,
                "Q-learning's target takes the best next action, so its values ignore the "
                "exploration; SARSA's takes the action really chosen, so they include it",
            ),
            Criterion(
                1,
                "hence SARSA's path keeps away from the cliff while epsilon > 0, and would "
                "move to the edge as epsilon falls to 0",
            ),
            Criterion(
                1,
                "PPO's data must come from (nearly) the present policy: far from it the ratio "
                "is wild or clipped, and the gradient is wrong or gone",
            ),
            Criterion(
                1,
                "a consequence for language models: fresh samples after each update are the "
                "cost of PPO; learning from stored texts needs an off-policy method",
            ),
        ),
    )
)
