"""Right answers in another form than the reference's pass, in labs 10, 11, 21 and 22."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from irlbook.exercises import Edit, all_exercises, release
from irlbook.exercises.answers import local_answer
from irlbook.exercises.extract import parse_notebook, read_notebook
from irlbook.exercises.model import run_check

ROOT = Path(__file__).resolve().parents[1]
FINETUNE_BY_ROWS = """
def finetune(start, demonstrations, epochs, seed):
    model, rng = start_model(start), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0)
    for _ in range(epochs):
        order = rng.permutation(len(demonstrations))
        for first in range(0, len(order), 16):
            batch = [demonstrations[i] for i in order[first : first + 16]]
            tokens = sum(len(y) for _, y in batch)
            model.zero_grad()
            for x, y in batch:
                z = model(input_ids=torch.tensor([x + y])).logits[0, len(x) - 1 : -1]
                part = torch.nn.functional.cross_entropy(z, torch.tensor(y), reduction="sum")
                (part / tokens).backward()
            optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}
"""
REWARD_BY_A_LAYER = """
def train_reward_model(start, pairs, epochs, seed):
    torch.manual_seed(seed)
    model, head = start_model(start), torch.nn.Linear(96, 1, bias=False)
    torch.nn.init.zeros_(head.weight)
    parameters = [*head.parameters(), *model.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def rewards(rows):
        ids, lengths = pad_rows(rows)
        hidden = model.model(input_ids=ids).last_hidden_state
        return head(hidden)[torch.arange(len(rows)), lengths - 1, 0]

    order = torch.randperm(len(pairs)).tolist()
    for _ in range(epochs):
        for first in range(0, len(pairs), 32):
            batch = [pairs[i] for i in order[first : first + 32]]
            better = rewards([(x, y) for x, y, _ in batch])
            worse = rewards([(x, y) for x, _, y in batch])
            optimizer.zero_grad()
            torch.nn.functional.softplus(worse - better).mean().backward()
            optimizer.step()
    return {"weights": model.state_dict(), "head": head.weight[0].tolist()}
"""
OTHER_FORMS = {
    "10L.1": {
        "row by row": """
def sft_loss(logits, ids, prompt_lengths, lengths):
    total = 0.0
    for z, row, a, b in zip(logits, ids, prompt_lengths, lengths):
        part = z[a - 1 : b - 1], row[a:b]
        total = total + torch.nn.functional.cross_entropy(*part, reduction="sum")
    return total / (lengths - prompt_lengths).sum()
""",
        "labels of -100": """
def sft_loss(logits, ids, prompt_lengths, lengths):
    at = torch.arange(ids.shape[1])
    own = (at >= prompt_lengths[:, None]) & (at < lengths[:, None])
    labels = torch.where(own, ids, -100)[:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
""",
    },
    "10L.2": {
        "one prompt after the other": """
def sample_responses(weights, prompts, most, seed):
    model, rng, responses = load_weights(weights), np.random.default_rng(seed), []
    for prompt in prompts:
        y = []
        while len(y) < most and END not in y:
            with torch.no_grad():
                z = model(input_ids=torch.tensor([prompt + y])).logits[0, -1].double()
            y.append(int(rng.choice(len(z), p=z.softmax(-1).numpy())))
        responses.append(y)
    return responses
""",
        "a race of exponentials": Edit(
            "torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]",
            "(torch.empty_like(logits).exponential_(generator=dice).log() - logits).argmin(-1)",
        ),
    },
    "10L.3": {
        "Adam": Edit(
            "AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)",
            "Adam(model.parameters(), lr=2e-3)",
        ),
        "gradients row by row": FINETUNE_BY_ROWS,
    },
    "10L.4": {
        "vlines": Edit(
            'ax.axvline(epochs[np.argmin(held_out)], color="0.5", ls=":")',
            "ax.vlines(epochs[held_out.argmin()], 0, 2)",
        ),
        "pyplot": """
def draw_losses(epochs, training, held_out):
    plt.figure()
    plt.semilogy(epochs, held_out, "--", label="200 reviews held back")
    plt.semilogy(epochs, training, label="the 160 Training reviews")
    plt.axvline(min(zip(held_out, epochs))[1])
    plt.xlabel("passes over the data")
    plt.ylabel("Nats per token")
    plt.legend(loc="upper right")
    return plt.gcf()
""",
    },
    "11L.1": {
        "gather": """
def read_reward(hidden, lengths, head):
    at = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
    return (hidden.gather(1, at)[:, 0] * head).sum(-1)
""",
        "a loop": """
def read_reward(hidden, lengths, head):
    return torch.stack([row[n - 1] @ head for row, n in zip(hidden, lengths.tolist())])
""",
    },
    "11L.2": {
        "softplus": """
import torch

def preference_loss(chosen, rejected):
    return torch.nn.functional.softplus(rejected - chosen).mean()
""",
        "two classes": """
import torch

def preference_loss(chosen, rejected):
    logits = torch.stack([rejected, chosen], dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.ones(len(chosen), dtype=torch.long))
""",
    },
    "11L.3": {
        "a layer, two passes, one order": REWARD_BY_A_LAYER,
        "pairs side by side": (
            Edit(
                "pad_rows(chosen + rejected)",
                "pad_rows([row for both in zip(chosen, rejected) for row in both])",
            ),
            Edit("scores[: len(batch)], scores[len(batch) :]", "scores[0::2], scores[1::2]"),
        ),
    },
    "11L.4": {
        "digitize, points, axline": """
def draw_reliability(margins, won, bins):
    p = np.exp(-np.logaddexp(0, -margins))
    part = np.digitize(p, np.linspace(0, 1, bins + 1)[1:-1])
    fig, ax = plt.subplots()
    found = [(p[part == b].mean(), won[part == b].mean()) for b in np.unique(part)]
    ax.scatter(*zip(*found), label="model")
    ax.axline((0, 0), slope=1, label="calibrated")
    ax.set(xlabel="said", ylabel="seen", xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    return fig
""",
        "histogram": """
def draw_reliability(margins, won, bins):
    p = 1 / (1 + np.exp(-margins))
    n, said, seen = (
        np.histogram(p, bins, (0, 1), weights=w)[0] for w in (None, p, won.astype(float))
    )
    plt.plot([0, 0.5, 1], [0, 0.5, 1], label="calibrated")
    plt.plot((said / n)[n > 0][::-1], (seen / n)[n > 0][::-1], "s", label="model")
    plt.xlabel("mean predicted probability")
    plt.ylabel("share of wins")
    plt.legend()
    return plt.gcf()
""",
    },
    "21L.1": {
        "backwards, for all states": """
def search_cost(moves, ends, paid, start, horizon):
    chain = np.where(ends[:, None], 0.0, moves.mean(axis=1))
    hit = length = np.zeros(len(ends))
    for _ in range(horizon):
        hit = chain @ np.where(ends, paid > 0, hit)
        length = ~ends + chain @ length
    return hit[start], length[start] / hit[start]
""",
    },
    "21L.2": {
        "one equation at a time, without the columns of ends": """
def potential_of(extra, moves, ends, discount):
    rows, wanted, free = [], [], np.flatnonzero(~ends)
    for s in free:
        for a, t in np.argwhere(moves[s] > 0):
            row = np.zeros(len(ends))
            row[t] += discount
            row[s] -= 1
            rows.append(row[free])
            wanted.append(extra[s, a, t])
    rows, wanted, potential = np.array(rows), np.array(wanted), np.zeros(len(ends))
    potential[free] = np.linalg.solve(rows.T @ rows, rows.T @ wanted)
    return potential, np.linalg.norm(rows @ potential[free] - wanted, np.inf)
""",
    },
    "21L.3": {
        "episodes in a loop, choice": """
def explore(moves, ends, paid, start, extra, initial, settings, seed):
    rng, q, record = np.random.default_rng(seed), initial.copy(), []
    visits, found = np.zeros(q.shape, dtype=int), False
    while not found and len(record) < settings["limit"]:
        s = start
        for _ in range(settings["horizon"]):
            best = [a for a in range(q.shape[1]) if q[s, a] == max(q[s])]
            a = rng.choice(best)
            t = rng.choice(len(ends), p=moves[s, a])
            visits[s, a] += 1
            bonus = settings["scale"] * visits[s, a] ** -0.5
            ahead = settings["discount"] * (1 - ends[t]) * max(q[t])
            reward = paid[t] + extra[s, a, t] + bonus
            q[s, a] = (1 - settings["alpha"]) * q[s, a] + settings["alpha"] * (reward + ahead)
            record.append([s, a, t])
            s, found = t, paid[t] > 0
            if ends[t] or len(record) == settings["limit"]:
                break
    return record, q
""",
    },
    "21L.4": {
        "by the binomial distribution": """
def verdicts(first, pairs, level):
    from scipy.stats import binom

    p, side = [], []
    for one, other in pairs:
        a, b = np.sum(first[one] > first[other]), np.sum(first[other] > first[one])
        p.append(min(1.0, 2 * binom.cdf(min(a, b), a + b, 0.5)))
        side.append(1 if a > b else -1)
    raised, largest = [0.0] * len(p), 0.0
    for place, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        raised[number] = largest
    return raised, [s if x < level else 0 for s, x in zip(side, raised)]
""",
    },
    "21L.5": {
        "steps, sorted times": """
def draw_search(steps, first, chance):
    plt.semilogx(steps, chance, ":", label="chance alone")
    for name, found in first.items():
        share = np.searchsorted(np.sort(found), steps, side="right") / len(found)
        plt.step(steps, share, label=name)
    plt.xlabel("Steps")
    plt.ylabel("Share that found it")
    plt.legend(loc="upper left")
    return plt.gcf()
""",
    },
    "21L.6": {
        "differences of all pairs of steps": """
def decompose(pairs, totals, n_pairs, subset):
    rows, right = [], []
    for row, total in zip(pairs, totals):
        steps = np.eye(n_pairs)[row[row >= 0]]
        rows.append(steps.sum(axis=0))
        right.append(total)
        t, k = len(steps), min(subset, len(steps))
        for i in range(t):
            for j in range(i):
                rows.append(np.sqrt((t - k) / k / (t - 1)) * (steps[i] - steps[j]))
                right.append(0.0)
    return np.linalg.pinv(np.array(rows)) @ np.array(right)
""",
    },
    "21L.7": {
        "by pairs of times, last walk first": """
def hindsight(states, actions, cell):
    found = []
    for path, chosen in zip(states[::-1], actions[::-1]):
        path = path[path >= 0]
        t, later = np.triu_indices(len(path), 1)
        found.append(np.stack([path[t], chosen[t], path[t + 1], cell[path[later]]], axis=1))
    rows = np.concatenate(found)
    return rows, cell[rows[:, 2]] == rows[:, 3]
""",
    },
    "21L.8": {
        "Q-learning on all goals at once": """
def to_any_cell(states, actions, cell, discount):
    goals, rng = np.arange(cell.max() + 1), np.random.default_rng(0)
    q = np.zeros((len(goals), len(cell), actions.max() + 1))
    walked, t = np.nonzero(actions >= 0)
    steps = np.stack([states[walked, t], actions[walked, t], states[walked, t + 1]], axis=1)
    over = np.zeros(len(cell), dtype=bool)
    over[[path[path >= 0][-1] for path in states if path[-1] < 0]] = True
    for sweep in range(4):
        for s, a, after in rng.permutation(steps):
            ahead = np.where(cell[after] == goals, 1.0, (1 - over[after]) * q[:, after].max(axis=1))
            q[:, s, a] += 0.5 / (1 + sweep) * (discount * ahead - q[:, s, a])
    return q.argmax(axis=2)
""",
    },
    "22L.1": {
        "a dict of rows, in any order": """
def clean(rows):
    answers = {}
    for x, y, z, who in rows:
        answers.setdefault((x, min(y, z), max(y, z)), {}).setdefault((y, who))
    kept, shares = [], []
    for (x, y, z), given in answers.items():
        ones, n = sum(chosen == y for chosen, _ in given), len(given)
        if n > 1:
            shares.append(ones * (n - ones) / math.comb(n, 2))
        if ones * 2 != n:
            won, lost = (y, z) if ones * 2 > n else (z, y)
            kept.insert(0, next(i for i, row in enumerate(rows) if row[:3] == (x, won, lost)))
    return np.array(kept), 0.5 * (1 - np.sqrt(max(1 - 2 * sum(shares) / len(shares), 0)))
""",
    },
    "22L.2": {
        "a dict of totals": """
def longer(rows):
    votes = defaultdict(list)
    for x, y, z, _ in rows:
        if len(y) != len(z):
            votes[x].append(1 if len(y) > len(z) else -1)
    chance = {0: 1.0}
    for given in votes.values():
        moved = Counter()
        for total, p in chance.items():
            moved[total + sum(given)] += p / 2
            moved[total - sum(given)] += p / 2
        chance = moved
    every = sum(votes.values(), [])
    p = sum(p for total, p in chance.items() if abs(total) >= abs(sum(every)))
    return np.mean(np.array(every) > 0), p
""",
    },
    "22L.3": {
        "breadth first": """
def split(rows, share, rng):
    by_text = {}
    for i, (x, y, z, _) in enumerate(rows):
        for text in ((0, x), (1, y), (1, z)):
            by_text.setdefault(text, set()).add(i)
    left, families = set(range(len(rows))), []
    while left:
        family, waiting = set(), {min(left)}
        while waiting:
            i = waiting.pop()
            family.add(i)
            x, y, z, _ = rows[i]
            waiting |= (by_text[0, x] | by_text[1, y] | by_text[1, z]) - family
        families.append(sorted(family))
        left -= family
    rng.shuffle(families)
    held = []
    while len(held) < share * len(rows):
        held += families.pop()
    return [i in held for i in range(len(rows))]
""",
    },
    "22L.4": {
        "analysis of variance": """
def pilot(wins):
    n, k = wins.shape
    between = k * np.var(wins.mean(axis=1), ddof=1)
    within = np.var(wins, axis=1, ddof=1).mean()
    whole = between + (k - 1) * within
    rho = max(0.0, between - within) / whole if whole else 0.0
    return float(wins.mean()), np.sqrt(between / k / n), rho
""",
    },
    "22L.5": {
        "a search that counts both tails": """
def prompts_for(rate, noise, rho, k, power):
    q = rate * (1 - noise) + (1 - rate) * noise
    for n in range(1, 10**6):
        away = abs(q - 0.5) / np.sqrt(q * (1 - q) * (rho + (1 - rho) / k) / n)
        if norm.cdf(away - norm.ppf(0.975)) + norm.cdf(-away - norm.ppf(0.975)) >= power:
            return n
""",
        "from the worse side": Edit("(errors / (q - 0.5))", "(errors / (0.5 - q))"),
    },
    "22L.6": {
        "the moments in a list": Edit(
            "peak = weights + optimiser + max(cache, step)",
            "moments = [cache, step, again + gradients, activations + logits]\n"
            "    peak = float(np.max(moments)) + weights + optimiser",
        ),
    },
    "22L.7": {
        "pyplot": """
def draw_studies(ns, alarms, found, power, needed):
    for place, shares, level in ((1, alarms, 0.05), (2, found, power)):
        plt.subplot(1, 2, place)
        plt.hlines(level, min(ns), max(ns), label="wanted")
        for way in shares:
            plt.semilogx(ns, shares[way], "--", label=f"the {way} test")
        plt.xlabel("Prompts of a study")
        plt.ylabel("Share of studies")
        plt.legend()
    plt.vlines(needed, 0, 1)
    return plt.gcf()
""",
    },
    "22L.8": {
        "bills first": """
def plan(rows, wins, sizes, job, offers, order, seed):
    kept, noise = clean(rows)
    tidy = [rows[i] for i in kept]
    out = np.asarray(split(tidy, order["share"], np.random.default_rng(seed)))
    train, held = np.array(kept)[~out], np.array(kept)[out]
    steps = order["epochs"] * -(-len(train) // order["batch"])
    bills = [steps * o["seconds"] / 3600 * o["dollars"] for o in offers]
    chosen = None
    for i in np.argsort(bills)[::-1]:
        o = offers[i]
        held_there = step_memory(sizes, {**job, "gpus": o["gpus"], "stage": 3})["peak"]
        if held_there / o["memory"] <= 0.75 and steps * o["seconds"] <= 3600 * order["hours"]:
            chosen = i
    return dict(
        train=train,
        held_out=held[::-1],
        length_p=longer(tidy)[1],
        prompts=prompts_for(order["rate"], noise, pilot(wins)[2], len(wins[0]), order["power"]),
        offer=chosen,
        dollars=None if chosen is None else bills[chosen],
    )
""",
    },
}
CASES = [(id, name) for id, forms in OTHER_FORMS.items() for name in forms]


@pytest.mark.parametrize("id, name", CASES, ids=lambda part: part.replace(" ", "-"))
def test_a_right_answer_in_another_form_passes(id, name):
    (exercise,) = (e for e in all_exercises(id[:3]) if e.id == id)
    (path,) = (ROOT / "solutions").glob(f"{id[:2]}_lab_*.ipynb")
    forms = {name: (OTHER_FORMS[id][name], "")}
    exercise = dataclasses.replace(exercise, wrong_answers=forms)
    answer = release.wrong_function(exercise, name, parse_notebook(read_notebook(path)))
    for seed in (1,) if exercise.seconds else (1, 2, 3):
        told = local_answer(answer, exercise.function, without=exercise.without)
        run_check(exercise, told, seed)
