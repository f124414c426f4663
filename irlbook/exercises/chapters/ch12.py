"""Exercises of chapter 12: best-of-n and rejection sampling."""

from __future__ import annotations

import itertools
import math

import numpy as np

from irlbook.exercises import Criterion, Exercise, register
from irlbook.exercises.expect import as_array, expect, expect_close, expect_length
from irlbook.posttraining.evaluation import best_of_n_gold


def _levels(p, scores):
    """(level of each response, mass, F, F_-) of the L different scores, in ascending order."""
    names, level = np.unique(scores, return_inverse=True)
    mass = np.bincount(level, weights=p, minlength=len(names))
    upto = np.cumsum(mass)
    return level, mass, upto, upto - mass


def _best_of(p, scores, n):
    level, mass, upto, below = _levels(p, scores)
    wins = upto**n - below**n
    return p * np.divide(wins, mass, out=np.zeros_like(wins), where=mass > 0)[level]


def _kl(p, q):
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _language(rng, responses):
    """Probabilities, and scores of which some tie: always two of the highest, unlike in p."""
    p = rng.dirichlet(np.full(responses, 2.0))
    scores = rng.permutation(np.r_[3, 3, 2, 1, 1, 0, rng.integers(0, 4, responses - 6)])
    return p, scores.astype(float)


# --- 12.1 ---------------------------------------------------------------------------------------


def check_best_of_n(answer, rng):
    p, scores = _language(rng, int(rng.integers(7, 10)))
    for n in (2, int(rng.integers(3, 7)), 1):
        want = _best_of(p, scores, n)
        level, mass, upto, below = _levels(p, scores)
        size = np.bincount(level)
        wins = upto**n - below**n
        order = np.argsort(scores, kind="stable")
        cumulative = np.cumsum(p[order])
        untied = np.empty_like(p)
        untied[order] = cumulative**n - (cumulative - p[order]) ** n
        density = n * upto[level] ** (n - 1) * p
        pmf, kl = expect_length(
            answer(p, scores, n), 2, hint="return two things: the distribution, and its KL to p"
        )
        expect_close(
            pmf,
            want,
            what="the distribution",
            property=f"the best of {n} has the probabilities of (12.1), ties included",
            hint="list the draws of n = 2 from three responses, two of which tie, by hand",
            mistakes={
                "responses that tie share their chance equally, not as p has them": (wins / size)[
                    level
                ],
                "of responses that tie, one takes it all, by its place in the array": untied,
                "every response gets the whole chance of its score": wins[level],
                "you took the worst of n": _best_of(p, -scores, n),
                "you used the density of the continuous case, n F^(n-1)": density,
                "you used that density and normalised it": density / density.sum(),
                "you forgot to subtract the chance that all score less": p
                * (upto**n / mass)[level],
            },
        )
        expect_close(
            as_array(kl, (), what="the KL"),
            _kl(want, p),
            property="the KL is that of this distribution, summed over the responses",
            hint="it is an expectation under the best of n, in nats",
            mistakes={
                "you returned the bound (12.2), which holds with equality for no finite p": float(
                    np.log(n) - (n - 1) / n
                ),
                "you took KL(p || best of n), the other direction": float(
                    (p * np.log(p / want)).sum()
                ),
                "it is in bits": _kl(want, p) / math.log(2),
                "the expectation is taken under p": float((p * np.log(want / p)).sum()),
            },
        )
    coin = expect_length(
        answer(np.array([0.5, 0.5]), np.array([0.0, 1.0]), 60), 2, hint="return two things"
    )
    expect_close(
        as_array(coin[1], (), what="the KL"),
        math.log(2),
        atol=1e-9,
        property="a fair coin never costs more than log 2, however large n is",
        hint="the limit is -log of the probability of the best score",
    )
    # it may score highest or lowest, tie with others, or stand alone between them
    silent = np.array([9.0, -9.0, 3.0, 1.5])
    never = np.append(p, np.zeros(4))
    with_never = expect_length(
        answer(never, np.append(scores, silent), 3), 2, hint="return two things"
    )
    expect_close(
        with_never[0],
        np.append(_best_of(p, scores, 3), np.zeros(4)),
        what="the distribution",
        property="a response that p never gives is never the best, even with the highest score",
        hint="what is 0 / 0 in your formula?",
    )
    expect_close(
        as_array(with_never[1], (), what="the KL"),
        _kl(_best_of(p, scores, 3), p),
        property="responses of probability 0 add nothing to the KL",
        hint="0 log 0 counts as 0",
    )


register(
    Exercise(
        id="12.1",
        title="The best of n, exactly",
        function="best_of_n",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can write down what best-of-n samples from and what it costs, ties included.",
        hints=(
            "For each response you need two numbers: the chance that one draw scores at most as "
            "much, and that it scores less.",
            "The chance that the winner has this score is a difference of two powers. The "
            "responses of the score share it, each by its part of their probability.",
            "Sum p log(p/q) over the responses that the best of n gives at all; a score that only "
            "responses of probability 0 have needs care before you divide.",
        ),
        check=check_best_of_n,
    )
)


# --- 12.2 ---------------------------------------------------------------------------------------


def _duels(p, scores, n):
    """(won, tied, lost) of the best of n against one draw, by going through all draws."""
    won = tied = lost = 0.0
    for drawn in itertools.product(range(len(p)), repeat=n):
        chance, top = np.prod(p[list(drawn)]), scores[list(drawn)].max()
        won += chance * p[scores < top].sum()
        tied += chance * p[scores == top].sum()
        lost += chance * p[scores > top].sum()
    return won, tied, lost


def check_win_rate(answer, rng):
    p, scores = _language(rng, 7)
    for n in (1, 2, 3):
        won, tied, lost = _duels(p, scores, n)
        mistakes = {}
        if n > 1:
            level, mass, upto, below = _levels(p, scores)
            worst = (1 - below) ** n - (1 - upto) ** n
            mistakes = {
                "you returned the bound n/(n + 1), which ties keep you from": n / (n + 1),
                "ties count as won": won + tied,
                "ties count as lost": won,
                "ties are left out, and the rest is scaled up": won / (won + lost),
                "the worst of n plays": float(worst @ (upto + below) / 2),
                "the opponent is a best of n itself, and nobody is better": 0.5,
                "one draw too many is made": sum(
                    w * c for w, c in zip((1, 0.5), _duels(p, scores, n + 1)[:2], strict=True)
                ),
            }
        expect_close(
            as_array(answer(p, scores, n), ()),
            won + tied / 2,
            property=f"the win rate of the best of {n} against one draw counts a tie half (12.4)",
            hint="go through the scores: how likely is the best of n to have it, and how likely is "
            "one draw to be below?",
            mistakes=mistakes,
        )
    expect_close(
        as_array(answer(p, np.zeros(7), 5), ()),
        0.5,
        property="where all responses tie, nothing is won: 1/2",
        hint="count a tie half",
    )
    many = np.full(400, 1 / 400)
    expect_close(
        as_array(answer(many, rng.permutation(400).astype(float), 9), ()),
        0.9,
        atol=1e-4,
        property="without ties, and with many responses, the win rate is n/(n + 1)",
        hint="of n + 1 draws each is the best equally often",
    )


register(
    Exercise(
        id="12.2",
        title="Who wins, and how ties count",
        function="win_rate",
        points=3,
        difficulty=2,
        minutes=15,
        importance=4,
        goal="You can compute a win rate exactly and say what ties do to it.",
        hints=(
            "Work with the different scores, not with the responses.",
            "For each score: the chance that the best of n has it, times the chance that one draw "
            "is below it plus half the chance that it is level.",
            "Below plus half of level is the mean of F and F minus.",
        ),
        check=check_win_rate,
    )
)


# --- 12.3 ---------------------------------------------------------------------------------------


def _plug_in(rewards, gold, n):
    k = rewards.shape[1]
    return np.array(
        [_best_of(np.full(k, 1 / k), r, n) @ g for r, g in zip(rewards, gold, strict=True)]
    )


def check_best_of_n_estimate(answer, rng):
    prompts, k = int(rng.integers(5, 9)), 6
    gold = rng.normal(size=(prompts, 1)) * 2 + rng.normal(size=(prompts, k))
    rewards = np.round(gold + rng.normal(size=gold.shape))  # whole numbers: many tie
    rewards[0] = [0, 2, 2, 1, 0, 1]  # at least these
    gold[0] = np.arange(6) + rng.normal(size=6)
    for n in (2, 4, 1, k):
        values = best_of_n_gold(rewards, gold, n)
        order = np.argsort(rewards, axis=1, kind="stable")
        weights = np.array([math.comb(j, n - 1) / math.comb(k, n) for j in range(k)])
        untied = (np.take_along_axis(gold, order, axis=1) @ weights).mean()
        mean, error = expect_length(
            answer(rewards, gold, n), 2, hint="return two things: the mean, and its standard error"
        )
        expect_close(
            as_array(mean, (), what="the mean"),
            values.mean(),
            property=f"the mean is over all subsets of {n} of {k}, ties shared (12.7)",
            hint="list all pairs of three responses of which two tie: how often is each chosen?",
            mistakes={
                "the same response may be drawn twice (12.6)": _plug_in(rewards, gold, n).mean(),
                "you chose by gold, which nobody has": best_of_n_gold(gold, gold, n).mean(),
                "you returned the reward of the chosen, not its gold": best_of_n_gold(
                    rewards, rewards, n
                ).mean(),
                "you took the worst of n": best_of_n_gold(-rewards, gold, n).mean(),
                "of responses that tie, the last takes it all": untied,
                "you looked at the first n responses only": gold[
                    np.arange(prompts), rewards[:, :n].argmax(axis=1)
                ].mean(),
                "all responses went into one pot: the best of n is chosen within a prompt": (
                    best_of_n_gold(rewards.reshape(1, -1), gold.reshape(1, -1), n)[0]
                ),
            },
        )
        spread = values.std(ddof=1)
        expect_close(
            as_array(error, (), what="the standard error"),
            spread / math.sqrt(prompts),
            property="the standard error says how far another draw of prompts would move the mean",
            hint="what are the independent things here: the prompts or the responses?",
            mistakes={
                "you took the responses to be independent": gold.std(ddof=1) / math.sqrt(gold.size),
                "you divided by the number of responses, not of prompts": spread
                / math.sqrt(gold.size),
                "it is the spread over prompts, not yet that of their mean": spread,
                "the variance is divided by P, not P - 1": values.std() / math.sqrt(prompts),
                "you forgot the square root": spread / prompts,
            },
        )
    many = rng.normal(size=(3, 120))
    mean, _ = expect_length(answer(many, many, 60), 2, hint="return two things")
    expect_close(
        as_array(mean, (), what="the mean"),
        best_of_n_gold(many, many, 60).mean(),
        property="120 responses and n = 60 work too",
        hint="math.comb is exact for whole numbers of any size; so is a ratio of two of them",
    )


register(
    Exercise(
        id="12.3",
        title="A point with its error bar",
        function="best_of_n_estimate",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can estimate what best-of-n is worth, and how well you know it.",
        hints=(
            "One prompt first. Of the C(K, n) subsets, those within the u responses of at most "
            "this reward are C(u, n); those within the b responses of less are C(b, n).",
            "Their difference is how many subsets this reward wins; the u - b responses that have "
            "it share them. That gives weights; the prompt's value is weights times gold.",
            "Then you have one number for each prompt. Its mean, and the standard deviation over "
            "prompts divided by the square root of how many they are.",
        ),
        check=check_best_of_n_estimate,
    )
)


# --- 12.4 ---------------------------------------------------------------------------------------


def _rrhf(logps, rewards, lengths, per_token=True, wrong=np.less, pick=np.argmax, hinge=True):
    """(ranking, SFT) terms (P,) each, with the mistakes as options."""
    p = logps / lengths if per_token else logps
    gap = p[:, :, None] - p[:, None, :]
    gap = np.maximum(gap, 0) if hinge else gap
    ranking = (gap * wrong(rewards[:, :, None], rewards[:, None, :])).sum(axis=(1, 2))
    best = pick(rewards, axis=1)
    return ranking, -logps[np.arange(len(logps)), best], best


def check_rrhf(answer, rng):
    prompts, k = int(rng.integers(4, 8)), 5
    lengths = rng.integers(2, 12, size=(prompts, k))
    logps = -lengths * rng.uniform(0.3, 3.0, size=(prompts, k))
    rewards = rng.integers(0, 3, size=(prompts, k)).astype(float)
    rewards[0] = [0, 0, 1, 1, 2]
    logps[0], lengths[0] = [-2, -9, -3, -20, -8], [2, 3, 6, 5, 2]
    rewards[np.arange(prompts), rng.integers(0, k, prompts)] += 0.5  # scatter the ties
    rewards[np.arange(prompts), rewards.argmax(axis=1)] = 4.0  # one is the best
    ranking, sft, best = _rrhf(logps, rewards, lengths)
    longest = lengths[np.arange(prompts), best]
    pairs = (rewards[:, :, None] < rewards[:, None, :]).sum(axis=(1, 2))
    expect_close(
        answer(logps, rewards, lengths),
        ranking + sft,
        property="the loss is the hinge over all pairs in the wrong order, per token, and SFT on "
        "the best response",
        hint="three responses by hand: which pairs are in the wrong order, and by how much?",
        mistakes={
            "the ranking compares sums over tokens, so that it ranks lengths": _rrhf(
                logps, rewards, lengths, per_token=False
            )[0]
            + sft,
            "SFT is on the worst response": ranking
            + _rrhf(logps, rewards, lengths, pick=np.argmin)[1],
            "SFT on the best response is missing": ranking,
            "the ranking is missing": sft,
            "SFT is divided by the length": ranking + sft / longest,
            "pairs in the right order are punished": _rrhf(
                logps, rewards, lengths, wrong=np.greater
            )[0]
            + sft,
            "responses that tie count as a pair": _rrhf(
                logps, rewards, lengths, wrong=np.less_equal
            )[0]
            + sft,
            "there is no hinge: pairs in order earn something": _rrhf(
                logps, rewards, lengths, hinge=False
            )[0]
            + sft,
            "the ranking is a mean over pairs": ranking / np.maximum(pairs, 1) + sft,
            "the SFT term has the wrong sign": ranking - sft,
        },
    )
    expect_close(
        answer(logps, np.exp(rewards) - 7, lengths),
        ranking + sft,
        property="only the order of the rewards counts",
        hint="no reward should appear in a product",
    )


register(
    Exercise(
        id="12.4",
        title="Rank, and keep to the best",
        function="rrhf_loss",
        points=3,
        difficulty=2,
        minutes=20,
        importance=3,
        goal="You can write a ranking loss that compares responses of any length.",
        hints=(
            "Start with one number per response: its log-probability for each of its tokens.",
            "Compare all with all: an array (P, k, k) of differences, and one of the same shape "
            "that says where the reward wants the opposite order.",
            "Cut the differences at 0, sum over the wrong pairs, and add minus the log-probability "
            "(the whole sum) of the response with the highest reward.",
        ),
        check=check_rrhf,
    )
)


# --- 12.5 ---------------------------------------------------------------------------------------


def check_raft_rounds(answer, rng):
    responses = int(rng.integers(8, 12))
    p = rng.dirichlet(np.full(responses, 2.0))
    scores = rng.permutation(np.r_[np.arange(6), rng.integers(0, 6, responses - 6)]).astype(float)
    k = int(rng.integers(2, 5))

    def skipping(p, keep_scale=False, power=None):
        level, mass, upto, below = _levels(p, scores)
        wins = upto**k - below**k - (below**k if power == "below" else mass**k)
        total = 1.0 if keep_scale else 1 - (mass**k).sum()
        share = np.divide(wins, mass, out=np.zeros_like(wins), where=mass > 0)[level]
        return p * share / total

    for rounds in (1, 2, 3):
        want = _best_of(p, scores, k**rounds)
        mistakes = {"you took the worst of k": _best_of(p, -scores, k**rounds)}
        if rounds > 1:
            mistakes |= {"the rounds are added: best of k times r": _best_of(p, scores, k * rounds)}
            mistakes |= {"only one round was made": _best_of(p, scores, k)}
        expect_close(
            answer(p, scores, k, rounds, False),
            want,
            property=f"{rounds} rounds of k = {k}, every group fitted, are best of {k}^{rounds}",
            hint="each round draws from the policy that the round before has left",
            mistakes=mistakes,
        )
    expect_close(
        answer(p, scores, k, 1, True),
        skipping(p),
        property="where groups that tie are skipped, the winners of the others are fitted",
        hint="how likely is it that all k draws have this score? Those groups are gone",
        mistakes={
            "the groups that tie were not skipped": _best_of(p, scores, k),
            "you forgot that fewer groups are left: the sum is below 1": skipping(
                p, keep_scale=True
            ),
        },
    )
    expect_close(
        answer(p, scores, k, 2, True),
        skipping(skipping(p)),
        property="the second round skips the groups that tie under the policy of the first",
        hint="the chance of a tie changes from round to round",
    )


register(
    Exercise(
        id="12.5",
        title="Where RAFT is going",
        function="raft_rounds",
        points=4,
        difficulty=4,
        minutes=30,
        importance=4,
        goal="You can say which policy rounds of rejection sampling converge to.",
        hints=(
            "Write one round as a function of p, and apply it to its own result.",
            "One round is best of k. If groups whose k scores are all equal are skipped, take "
            "their chance off the score's: it is the score's own mass to the power k.",
            "What is left sums to less than 1; divide by it. After a round with skipping a score "
            "may have no mass at all: divide only where there is some.",
        ),
        check=check_raft_rounds,
    )
)


# --- 12.6 ---------------------------------------------------------------------------------------


def check_keep(answer, rng):
    prompts, k = int(rng.integers(4, 7)), int(rng.integers(5, 8))
    rewards = rng.permuted(np.tile(np.linspace(-1, 2, k), (prompts, 1)), axis=1)
    rewards += rng.normal(size=(prompts, 1))
    all_ended = np.ones((prompts, k), dtype=bool)

    def kept(rewards, ended):
        shown = as_array(answer(rewards, ended), (-1, 2), hint="one row for each kept response")
        return [tuple(row) for row in np.asarray(shown).astype(int).tolist()]

    best = rewards.argmax(axis=1)
    expect(
        kept(rewards, all_ended) == list(enumerate(best.tolist())),
        property="of a prompt whose rewards differ, the best response is kept, in prompt order",
        hint="rows are (prompt, response); start with the case that nothing ties and all end",
    )
    unlike = rewards.copy()
    # numbers whose mean over k is off by a rounding error
    some = [c for c in rng.uniform(0.05, 1, 400) if np.full(k, c).std() > 0][: prompts - 2]
    unlike[1 : 1 + len(some)] = np.array(some)[:, None]
    want = [(i, int(best[i])) for i in range(prompts) if not 1 <= i <= len(some)]
    expect(
        kept(unlike, all_ended) == want,
        property="a prompt whose rewards are all equal is skipped, whatever number it is",
        hint="print the standard deviation of a few equal floats: is it 0?",
    )
    close = rewards.copy()
    close[2] = 0.0
    winner = int(rng.integers(0, k))
    close[2, winner] = 1e-9
    expected = list(enumerate(best.tolist()))
    expected[2] = (2, winner)
    expect(
        kept(close, all_ended) == expected,
        property="rewards that differ by very little do differ",
        hint="a threshold has a scale, and rewards have none",
    )
    assert some
    rewards = rewards - rewards.max() - 1  # below 0: a cut response that counts 0 would win
    ended = all_ended.copy()
    ended[np.arange(prompts), best] = rng.random(prompts) < 0.5
    ended[0, best[0]] = False
    second = np.where(ended, rewards, -np.inf).argmax(axis=1)
    expect(
        kept(rewards, ended) == list(enumerate(second.tolist())),
        property="a response that was cut is never fitted; the best of those that ended is",
        hint="what does a policy learn from a text without its end token?",
    )
    alone = int(rng.integers(k))
    ended[1] = np.arange(k) == alone
    expect(
        kept(rewards, ended) == [(i, alone if i == 1 else int(second[i])) for i in range(prompts)],
        property="a prompt of which a single response ended keeps that one",
        hint="the prompt has rewards that differ, and something to be fitted",
    )
    ended[1] = False
    expect(
        kept(rewards, ended) == [(i, int(second[i])) for i in range(prompts) if i != 1],
        property="a prompt none of whose responses ended is skipped",
        hint="what does argmax return where every candidate is excluded?",
    )
    # whether a prompt teaches is asked of all its rewards, as they came
    flat, ended = rewards.copy(), all_ended.copy()
    row, cut = int(rng.integers(prompts)), int(rng.integers(k))
    flat[row] = flat[row, 0]
    ended[row, cut] = False
    expect(
        kept(flat, ended) == [(i, int(best[i])) for i in range(prompts) if i != row],
        property="a prompt whose rewards are all equal is skipped, also where one of them was cut",
        hint="a reward that your code has put in the place of a cut response is no reward",
    )
    flat[row, cut] -= 1.0
    first = int(np.where(ended, flat, -np.inf)[row].argmax())
    expect(
        kept(flat, ended) == [(i, first if i == row else int(best[i])) for i in range(prompts)],
        property="a prompt whose rewards differ is kept, also where only the cut one differs",
        hint="the text asks whether all rewards are equal; a cut response has a reward, too",
    )


register(
    Exercise(
        id="12.6",
        title="The policy that forgot to stop",
        function="kept",
        kind="bug hunt",
        points=4,
        difficulty=3,
        minutes=25,
        importance=5,
        goal="You can find two faults in the choice of training data that no loss curve shows.",
        hints=(
            "Nothing crashes, and the loss falls. Look at what is fitted: which responses, and "
            "from which prompts?",
            "Give three samples of a prompt the reward 0.1 and print the standard deviation. And "
            "what is the second argument of the function for?",
            "Compare largest with smallest instead, of all rewards as they came. For the other "
            "fault, "
            "let a cut response have the lowest possible reward only where you choose; mind "
            "prompts without any that ended.",
        ),
        check=check_keep,
    )
)


# --- 12.7 ---------------------------------------------------------------------------------------

register(
    Exercise(
        id="12.7",
        title="A proposal on your desk",
        kind="written",
        points=5,
        difficulty=3,
        minutes=30,
        importance=4,
        goal="You can judge a claim about best-of-n by what it measures and against what.",
        hints=(
            "For each sentence ask: measured by whom, on how many independent things, and against "
            "which alternative at the same cost?",
            "Which of the numbers would be the same if the reward model were worthless? Which "
            "curve is missing from the report?",
            "Formulas: (12.2) is a bound. (12.4) knows only the reward that chose. Count forward "
            "passes an answer, and how many answers there will be.",
        ),
        rubric=(
            Criterion(
                1,
                "the reward of the chosen rises with n by construction, for a worthless reward "
                "model too; needed is gold (or people) against n",
            ),
            Criterion(
                1,
                "a win rate judged by the reward that chose is n/(n + 1) for any reward without "
                "ties; the judge must be independent",
            ),
            Criterion(
                1,
                "log n - (n - 1)/n is an upper bound on the KL; equal KL does not mean equal "
                "policies or equal over-optimisation",
            ),
            Criterion(
                1,
                "the independent units are 50 prompts, not 12,800 responses; near n = K one "
                "response carries a prompt's value",
            ),
            Criterion(
                1,
                "cost is paid with every answer: n samples and n scores; gives a break-even "
                "against training, or names distillation",
            ),
        ),
    )
)
