"""Chapter 10: each displayed equation that has code, and the exact reviewer, against oracles."""

import itertools

import numpy as np
import pytest
import torch

from irlbook import planning
from irlbook.lm.enumerable import EnumerableLM, kl_from_logps
from irlbook.lm.token_table import TokenTable
from irlbook.lm.tokenization import encode_response, end_id, train_tokenizer
from irlbook.mdp import TabularMDP
from irlbook.posttraining import sft
from irlbook.tasks import reviewer_likelihood, reviews
from irlbook.tasks.reviewer_likelihood import END, TEXTS, Reading, TokenReviewer

LIMIT, N_TOKENS, STOP = 3, 3, 2


@pytest.fixture
def rng():
    return np.random.default_rng(10)


@pytest.fixture
def lm(rng):
    return EnumerableLM.create(
        ("a", "b", "<eos>"), LIMIT, lambda p: rng.dirichlet(np.ones(N_TOKENS), size=len(p))
    )


@pytest.fixture
def expert(lm, rng):
    other = rng.dirichlet(np.ones(N_TOKENS), size=lm.n_states)
    return np.where(lm.children[:, :1] >= 0, other, lm.policy)


@pytest.fixture
def gold(lm, rng):
    return rng.normal(size=len(lm.responses))


def all_responses():
    """Every response, by the definition: it ends at the stop token, or at the limit."""
    listed = [
        y
        for n in range(1, LIMIT + 1)
        for y in itertools.product(range(N_TOKENS), repeat=n)
        if STOP not in y[:-1] and (n == LIMIT or y[-1] == STOP)
    ]
    return listed


def chances(lm, policy):
    """{response: probability}, one token at a time."""
    found = {}
    for y in all_responses():
        s, p = 0, 1.0
        for token in y:
            p, s = p * policy[s, token], lm.children[s, token]
        found[y] = p
    return found


def in_order(lm, table):
    return np.array([table[tuple(ids)] for ids in lm.response_ids()])


def differences(function, at, step=1e-5):
    slopes = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        nudge = np.zeros_like(at)
        nudge[place] = step
        slopes[place] = (function(at + nudge) - function(at - nudge)) / (2 * step)
    return slopes


def softmax(logits):
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def test_eq_10_1_states_are_prefixes_and_every_move_is_certain(lm, gold):
    mdp = lm.mdp(gold)
    live = np.flatnonzero(~mdp.terminal)
    dense = mdp.dense()
    for s, a in itertools.product(live, range(N_TOKENS)):
        (successor,) = np.flatnonzero(dense[s, a])
        assert dense[s, a, successor] == 1.0
        prefix = lm.prefixes[s, : lm.lengths[s]].tolist()
        assert lm.prefixes[successor, : lm.lengths[successor]].tolist() == [*prefix, a]


def test_eq_10_2_responses_have_the_product_of_their_tokens_and_sum_to_one(lm):
    p = in_order(lm, chances(lm, lm.policy))
    assert len(p) == len(all_responses()) and p.sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(np.exp(lm.sequence_log_probabilities()), p, atol=1e-15)


def test_eq_10_3_bandit_and_mdp_have_one_value(lm, gold):
    p = in_order(lm, chances(lm, lm.policy))
    value = planning.expected_return(lm.mdp(gold), lm.policy, LIMIT)
    assert value == pytest.approx(p @ gold, abs=1e-14)


def test_eq_10_4_bandit_and_mdp_have_one_gradient(lm, gold):
    p = in_order(lm, chances(lm, lm.policy))
    bandit = np.zeros_like(lm.policy)
    for ids, weight in zip(lm.response_ids(), p * gold, strict=True):
        s = 0
        for token in ids:
            bandit[s] += weight * (np.eye(N_TOKENS)[token] - lm.policy[s])
            s = lm.children[s, token]
    np.testing.assert_allclose(lm.policy_gradient(gold), bandit, atol=1e-14)
    table = TokenTable(lm)
    (table.log_probabilities().exp() @ torch.tensor(gold)).backward()
    np.testing.assert_allclose(table.logits.grad.numpy(), bandit, atol=1e-13)
    slope = differences(lambda z: in_order(lm, chances(lm, softmax(z))) @ gold, np.log(lm.policy))
    np.testing.assert_allclose(slope, bandit, atol=1e-9)


def test_eq_10_5_occupancy_of_a_step_is_the_product_up_to_it(lm, gold):
    occupancy = planning.occupancy_measure(lm.mdp(gold), lm.policy, horizon=LIMIT)
    expected = np.zeros_like(occupancy)
    for y, p in chances(lm, lm.policy).items():
        s = 0
        for token in y:
            expected[s, token] += p  # every response that goes on from here
            s = lm.children[s, token]
    np.testing.assert_allclose(occupancy, expected, atol=1e-14)


def test_eq_10_6_sft_loss_is_entropy_plus_forward_kl_with_the_same_gradient(lm, expert):
    p, q = (in_order(lm, chances(lm, policy)) for policy in (expert, lm.policy))
    table = TokenTable(lm)
    loss = torch.tensor(p) @ sft.sft_loss(table.log_probabilities())
    assert loss.item() == pytest.approx(
        -(p * np.log(p)).sum() + (p * np.log(p / q)).sum(), abs=1e-12
    )
    loss.backward()
    slope = differences(
        lambda z: (p * np.log(p / in_order(lm, chances(lm, softmax(z))))).sum(), np.log(lm.policy)
    )
    np.testing.assert_allclose(table.logits.grad.numpy(), slope, atol=1e-8)


def visits(lm, policy):
    tree = lm.mdp(np.zeros(len(lm.responses)))
    return planning.occupancy_measure(tree, policy, horizon=LIMIT).sum(axis=1)


def test_eq_10_7_the_kl_of_responses_is_that_of_tokens_where_the_first_one_goes(lm, expert):
    p, q = (in_order(lm, chances(lm, policy)) for policy in (expert, lm.policy))
    for one, other, policy, against in ((p, q, expert, lm.policy), (q, p, lm.policy, expert)):
        token_kl = (policy * np.log(policy / against)).sum(axis=1)
        chain = visits(lm, policy) @ token_kl
        assert chain == pytest.approx((one * np.log(one / other)).sum(), abs=1e-13)


def test_eq_10_8_the_gradient_is_weighted_by_where_the_expert_goes(lm, expert):
    table = TokenTable(lm)
    p = torch.tensor(in_order(lm, chances(lm, expert)))
    (p @ sft.sft_loss(table.log_probabilities())).backward()
    closed = visits(lm, expert)[:, None] * (lm.policy - expert)
    np.testing.assert_allclose(table.logits.grad.numpy(), closed, atol=1e-14)
    elsewhere = visits(lm, lm.policy)[:, None] * (lm.policy - expert)
    assert np.abs(closed - elsewhere).max() > 0.01


def test_eq_10_9_climbing_it_finds_the_expert_and_the_survey_s_sign_does_not(lm, expert):
    target = torch.tensor(np.log(in_order(lm, chances(lm, expert))))

    def climb(sign):
        table = TokenTable(lm)
        for _ in range(300):
            own = table.log_probabilities()
            value = (own.exp() * (target - own)).sum()
            (slope,) = torch.autograd.grad(sign * value, table.logits)
            with torch.no_grad():
                table.logits += slope
        return -value.item()  # KL(d_pi || d_E)

    start = visits(lm, lm.policy) @ (lm.policy * np.log(lm.policy / expert)).sum(axis=1)
    assert climb(1.0) < 0.1 * start < start < climb(-1.0)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_eq_10_10_the_soft_solver_is_the_sum_over_responses(lm, gold, beta):
    p = in_order(lm, chances(lm, lm.policy))
    solved = lm.kl_optimum(gold, beta)
    Z = (p * np.exp(gold / beta)).sum()
    assert solved.values[0] == pytest.approx(beta * np.log(Z), abs=1e-10)
    optimum = p * np.exp(gold / beta) / Z
    np.testing.assert_allclose(np.exp(solved.log_probabilities), optimum, atol=1e-12)
    for s in np.flatnonzero(lm.children[:, 0] >= 0):
        prefix = lm.prefixes[s, : lm.lengths[s]].tolist()
        inside = np.array([ids[: len(prefix)] == prefix for ids in lm.response_ids()])
        share = p[inside] / p[inside].sum()
        mean = beta * np.log(share @ np.exp(gold[inside] / beta))
        assert solved.values[s] == pytest.approx(mean, abs=1e-10)


def test_eq_10_11_sharpening_a_response_is_soft_control_and_not_sharpening_tokens(lm):
    tau, p = 0.5, in_order(lm, chances(lm, lm.policy))
    whole = p ** (1 / tau) / (p ** (1 / tau)).sum()
    tree = lm.mdp(np.zeros(len(lm.responses)))
    tree = tree.with_reward(np.where(lm.children >= 0, np.log(lm.policy), 0.0))
    plan = planning.soft_backward_induction(tree, LIMIT, beta=tau)
    policy = np.where(lm.children[:, :1] >= 0, plan.policy[0], lm.policy)
    np.testing.assert_allclose(in_order(lm, chances(lm, policy)), whole, atol=1e-13)
    tokens = lm.policy ** (1 / tau)
    tokens = tokens / tokens.sum(axis=1, keepdims=True)
    assert np.abs(in_order(lm, chances(lm, tokens)) - whole).max() > 0.01


def test_eq_10_12_a_discount_shrinks_the_reward_and_its_sign_decides_about_length(lm, gold):
    p = in_order(lm, chances(lm, lm.policy))
    length = lm.lengths[lm.responses]
    value = planning.expected_return(lm.mdp(gold).with_discount(0.7), lm.policy, LIMIT)
    assert value == pytest.approx(p @ (0.7 ** (length - 1) * gold), abs=1e-14)
    for sign, limit in ((1.0, 1), (-1.0, LIMIT)):
        mdp = lm.mdp(np.full(len(p), sign)).with_discount(0.7)
        plan = planning.backward_induction(mdp, LIMIT)
        assert plan.values[0, 0] == pytest.approx(sign * 0.7 ** (limit - 1))


def test_eq_10_13_token_means_of_batches_of_one_length_learn_the_harmonic_length(lm, expert):
    p, length = in_order(lm, chances(lm, expert)), lm.lengths[lm.responses]
    target = p / length / (p / length).sum()
    assert target @ length == pytest.approx(1 / (p @ (1 / length)))
    table = TokenTable(lm, lm.token_policy(np.log(target)))
    # batches of one length, each divided by its own tokens: a response weighs 1 / length
    loss = torch.tensor(p / length) @ sft.sft_loss(table.log_probabilities())
    loss.backward()
    assert table.logits.grad.abs().max() < 1e-14  # the minimiser


def test_eq_10_14_lost_for_good_costs_t_squared_and_forgiven_costs_t():
    def cost(epsilon, horizon, recover):
        P = np.zeros((2, 2, 2))
        P[:, 0, :] = np.eye(2)[0]
        P[:, 1] = [recover, 1 - recover]
        chain = TabularMDP.create(P, np.array([[0.0, 1.0]] * 2), start=0, discount=1.0)
        clone = np.array([[1 - epsilon, epsilon], [0.0, 1.0]])
        return planning.expected_return(chain, clone, horizon)

    for epsilon, T in itertools.product((0.001, 0.05), (1, 7, 40)):
        formula = T - (1 - epsilon) * (1 - (1 - epsilon) ** T) / epsilon
        assert cost(epsilon, T, 0.0) == pytest.approx(formula, abs=1e-9)
        assert formula <= T**2 * epsilon
        assert cost(epsilon, T, 1.0) == pytest.approx(T * epsilon, abs=1e-12)


def test_a_mistake_after_a_mistake_sets_the_rate_of_mistakes_and_only_1_brings_the_square():
    """Section 9's chain between the two ends of (10.14), against a sum over its steps."""

    def by_steps(epsilon, horizon, b):
        lost, total = 0.0, 0.0
        for _ in range(horizon):
            lost = (1 - lost) * epsilon + lost * b  # this step's mistake; it leads to lost
            total += lost
        return total

    def by_occupancy(epsilon, horizon, b):
        P = np.zeros((2, 2, 2))
        P[:, 0, 0] = P[:, 1, 1] = 1.0
        chain = TabularMDP.create(P, np.array([[0.0, 1.0]] * 2), start=0, discount=1.0)
        clone = np.array([[1 - epsilon, epsilon], [1 - b, b]])
        return planning.expected_return(chain, clone, horizon)

    for epsilon, b, T in itertools.product((0.001, 0.05), (0.0, 0.05, 0.5, 0.95, 1.0), (1, 7, 40)):
        assert by_occupancy(epsilon, T, b) == pytest.approx(by_steps(epsilon, T, b), abs=1e-12)
    for epsilon, b in itertools.product((0.001, 0.05), (0.0, 0.05, 0.5, 0.95)):
        rate = by_steps(epsilon, 2_000, b) - by_steps(epsilon, 1_999, b)
        assert rate == pytest.approx(epsilon / (1 - b + epsilon), rel=1e-9)


@pytest.mark.parametrize("leak", [0.3, 0.01, 1e-5])
def test_a_leak_costs_the_forward_kl_its_own_size_and_the_reverse_kl_everything(lm, rng, leak):
    never = rng.random(len(lm.responses)) < 0.4
    p, q = rng.dirichlet(np.ones(len(never)), size=2)
    with np.errstate(divide="ignore"):
        expert = np.log(np.where(never, 0.0, p) / p[~never].sum())
    model = np.log((1 - leak) * np.exp(expert) + leak * np.where(never, q, 0.0) / q[never].sum())
    assert kl_from_logps(expert, model) == pytest.approx(-np.log1p(-leak), abs=1e-12)
    assert kl_from_logps(model, expert) == np.inf
    # and any model's forward KL splits into the price of its leak and the rest (section 8)
    other = np.log(q)
    possible = np.log(np.where(never, 1.0, q) / q[~never].sum())
    rest = (np.exp(expert) * np.where(never, 0.0, expert - possible))[~never].sum()
    assert kl_from_logps(expert, other) == pytest.approx(-np.log(q[~never].sum()) + rest)


def test_the_logits_of_a_language_model_are_the_soft_q_of_a_reward_that_sums_to_log_pi(lm, rng):
    live = lm.children[:, 0] >= 0
    z = np.log(lm.policy) + rng.normal(size=(lm.n_states, 1))
    V = np.where(live, np.logaddexp.reduce(z, axis=1), 0.0)
    reward = np.where(lm.children >= 0, z - V[lm.children], 0.0)
    tree = lm.mdp(np.zeros(len(lm.responses))).with_reward(reward)
    plan = planning.soft_backward_induction(tree, LIMIT, beta=1.0)
    np.testing.assert_allclose(plan.policy[0][live], lm.policy[live], atol=1e-13)
    shaped = np.log(lm.policy) + V[:, None] - V[lm.children]
    np.testing.assert_allclose(reward[live], shaped[live], atol=1e-12)
    for ids, log_p in zip(
        lm.response_ids(), np.log(in_order(lm, chances(lm, lm.policy))), strict=True
    ):
        s, total = 0, 0.0
        for token in ids:
            total, s = total + reward[s, token], lm.children[s, token]
        assert total == pytest.approx(log_p + V[0], abs=1e-12)


# --- the exact reviewer -------------------------------------------------------------------------

PROMPT = "Write a bitter review of the bus."
NUMBER = {text: i for i, text in enumerate(TEXTS)}


def test_the_reviewer_s_next_sentences_sum_to_one_along_its_own_reviews(rng):
    for shown in reviews.demonstrations(40, rng):
        reading = Reading(shown.prompt)
        for sentence in reviews.read_response(shown.response):
            assert reading.next.sum() == pytest.approx(1.0, abs=1e-12)
            assert reading.read(NUMBER[sentence.text]) > 0
        assert reading.next[END] > 0 and reading.read(END) > 0 and reading.next is None


def test_the_reviewer_s_likelihood_is_how_often_it_writes_a_text():
    plain = reviews.Reviewer(repeat=0.5, filler=0.1, verdict=0.3, shout=0.3, aspects=(1, 2))
    rng, n = np.random.default_rng(0), 40_000
    kinds = {}
    for _ in range(n):
        text = plain.write(PROMPT, rng)
        read = reviews.read_response(text)
        key = tuple((s.kind, s.tone, s.aspect) for s in read)
        kinds.setdefault(key, [0, text])[0] += 1
    often = sorted(kinds.items(), key=lambda item: -item[1][0])[:20]
    for key, (count, text) in often:
        same = 1.0  # sentences that differ in form, adjective or wording only
        for kind, _, _ in key:
            same *= {"aspect": 15, "filler": 4, "verdict": 2, "shout": 2}[kind]
        p = same * np.exp(reviewer_likelihood.log_likelihood(PROMPT, text, plain))
        assert abs(count / n - p) < 4.5 * (p * (1 - p) / n) ** 0.5


@pytest.mark.parametrize(
    "text",
    [
        "It was raining. It was raining. The seat was dull.",  # a filler too many
        "The seat was dull. I hated it. I loved it.",
        "I hated it.",  # no aspect
        "The seat was dul.",
        "The seat was dull",  # cut off
        "Five stars! The seat was great. I hated it.",  # shout and verdict of one tone always
        "",
    ],
)
def test_what_the_reviewer_never_writes_is_impossible(text):
    assert reviewer_likelihood.log_likelihood(PROMPT, text) == -np.inf


@pytest.fixture(scope="module")
def tokenizer():
    shown = reviews.demonstrations(300, np.random.default_rng(0))
    return train_tokenizer([f"{d.prompt} {d.response}" for d in shown], 400)


def test_tokens_of_the_reviewer_multiply_to_the_likelihood_of_its_sentences(tokenizer, rng):
    tokens = TokenReviewer(tokenizer)
    for shown in reviews.demonstrations(25, rng):
        ids = encode_response(tokenizer, shown.response)
        read = tokens.read(shown.prompt, ids)
        assert read.possible == len(ids) and read.rows.shape == (len(ids), len(tokenizer))
        np.testing.assert_allclose(read.rows.sum(axis=1), 1.0, atol=1e-12)
        total = np.log(read.rows[np.arange(len(ids)), ids]).sum()
        want = reviewer_likelihood.log_likelihood(shown.prompt, shown.response)
        assert total == pytest.approx(want, abs=1e-10)


def test_reading_tokens_stops_at_the_first_impossible_one(tokenizer):
    tokens = TokenReviewer(tokenizer)
    good = encode_response(tokenizer, "The seat was dull.", ended=False)
    read = tokens.read(PROMPT, [*good, end_id(tokenizer), end_id(tokenizer)])
    assert read.possible == len(good) + 1 and len(read.rows) == len(good) + 1
    read = tokens.read(PROMPT, [*good, good[-1], end_id(tokenizer)])  # a full stop too many
    assert read.possible == len(good) and len(read.rows) == len(good) + 1
    assert read.rows[-1, good[-1]] == 0 < read.rows[-1, end_id(tokenizer)]


def test_forward_kl_of_a_fine_tuned_model_is_its_loss_minus_the_entropy(tokenizer, rng):
    """The identity that section 8 measures, for any model: here uniform over the vocabulary."""
    tokens, size = TokenReviewer(tokenizer), len(tokenizer)
    ratios, chains = [], []
    for shown in reviews.demonstrations(200, rng):
        ids = encode_response(tokenizer, shown.response)
        rows = tokens.read(shown.prompt, ids).rows
        safe = np.log(np.where(rows > 0, rows, 1.0))
        ratios.append(safe[np.arange(len(ids)), ids].sum() + len(ids) * np.log(size))
        chains.append((rows * (safe + np.log(size))).sum())
    gap = np.array(ratios) - np.array(chains)
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
