"""Heads, embeddings and losses on real transformers models and on the enumerable one."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from irlbook.errors import InvalidHyperparameterError, UnsupportedModelError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.models import tiny_lm
from irlbook.lm.sampling import sample
from irlbook.lm.trees import collate
from irlbook.planning import soft_backward_induction
from irlbook.posttraining import dpo, reward_model, sft
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.training import TrainingConfig, evaluate_objective, score, train

VOCABULARY, PAD, EOS = 40, 0, 2
QUIET = {"progress": False, "tensorboard": False}


def ragged(n: int, responses: int, seed: int = 0) -> list:
    """Groups whose responses end with EOS."""
    draw = np.random.default_rng(seed)

    def ids(longest: int) -> list[int]:
        return draw.integers(3, VOCABULARY, draw.integers(1, longest)).tolist()

    return [(ids(8), [[*ids(9), EOS] for _ in range(responses)]) for _ in range(n)]


def tiny(kind: str = "llama", seed: int = 0, dtype=torch.float64):
    return tiny_lm(VOCABULARY, kind, hidden=16, heads=2, seed=seed, dtype=dtype, tied=False)


def classifier(kind: str = "llama", pad: int = PAD, dtype=torch.float64):
    model = tiny(kind)
    config = model.config
    config.num_labels, config.pad_token_id, config.eos_token_id = 1, pad, EOS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModelForSequenceClassification.from_config(config).to(dtype).eval()


def padded_rewards(model, groups, pad: int = PAD) -> torch.Tensor:
    """(R,) as transformers computes them: right-padded rows, the last token that is not a pad."""
    rows = [[*prompt, *answer] for prompt, answers in groups for answer in answers]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]


# Heads --------------------------------------------------------------------------------------------


def test_response_places_are_those_of_the_responses_tokens():
    tree = collate(ragged(5, 3))
    places = reward_model.response_places(tree)
    assert torch.equal(tree.input_ids.flatten()[places], tree.target)
    single = collate([([5], [[6], [7], [8]]), ([9, 9], [[4, 4]])])
    width = single.input_ids.shape[1]
    assert reward_model.response_places(single).tolist() == [1, 2, 3, width + 2, width + 3]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_last_token_rewards_are_those_of_transformers(kind):
    model, groups = classifier(kind), ragged(6, 3)
    mine = RewardScorer(model)(collate(groups)).detach()
    torch.testing.assert_close(mine, padded_rewards(model, groups), rtol=0, atol=1e-10)


def test_token_sum_rewards_add_the_head_over_the_response():
    model, groups = classifier(), ragged(4, 2)
    expected = []
    for prompt, answers in groups:
        for answer in answers:
            hidden = model.model(torch.tensor([[*prompt, *answer]])).last_hidden_state
            expected.append(model.score(hidden[0, len(prompt) :]).sum())
    mine = RewardScorer(model, "sum")(collate(groups))
    torch.testing.assert_close(mine, torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("pooling", ["last", "sum"])
def test_rewards_do_not_depend_on_the_batch_nor_on_the_pad_token(pooling):
    groups = ragged(6, 2)
    scorer = RewardScorer(classifier(), pooling)
    with torch.no_grad():
        whole = scorer(collate(groups, pad_id=PAD))
        eos = scorer(collate(groups, pad_id=EOS))  # nothing is read from token ids
        alone = torch.cat([scorer(collate([(p, [a])])) for p, answers in groups for a in answers])
    torch.testing.assert_close(whole, eos, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_with_pad_equal_to_eos_transformers_reads_another_token():
    """The trap: its head then reads the token before the end; ours still reads the end."""
    model, groups = classifier(pad=EOS), ragged(4, 2)
    ours = RewardScorer(model)(collate(groups, EOS)).detach()
    theirs = padded_rewards(model, groups, EOS)
    cut = [(prompt, [answer[:-1] for answer in answers]) for prompt, answers in groups]
    before_the_end = RewardScorer(model)(collate(cut, EOS)).detach()
    torch.testing.assert_close(theirs, before_the_end, rtol=0, atol=1e-10)
    assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", ["last", "sum"])
def test_a_trained_reward_model_loads_in_transformers_and_scores_the_same(tmp_path, pooling):
    model, groups = classifier(dtype=torch.float32), ragged(16, 2)
    settings = TrainingConfig(steps=5, batch_size=8, learning_rate=3e-3, **QUIET)
    scorer = RewardScorer(model, pooling)
    rows = train(scorer, groups, reward_model.objective(), settings).history
    assert rows[-1]["loss"] < rows[0]["loss"]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = RewardScorer(loaded)
    assert again.pooling == pooling  # kept in the configuration
    trained = score(scorer, groups, 2).flatten()
    torch.testing.assert_close(score(again, groups, 2).flatten(), trained, rtol=0, atol=1e-6)
    if pooling == "last":
        torch.testing.assert_close(padded_rewards(loaded, groups), trained, rtol=0, atol=1e-5)


def test_margins_and_classification_train_too():
    groups = ragged(12, 2)
    settings = TrainingConfig(steps=3, batch_size=12, bucket=1, warmup=0, **QUIET)
    margin = {"margin": torch.linspace(0, 2, 12)}
    asked = reward_model.objective(reward_model.RewardConfig(use_margin=True))
    first = train(RewardScorer(classifier()), groups, asked, settings, extra=margin).history
    plain = train(RewardScorer(classifier()), groups, reward_model.objective(), settings).history
    classed = reward_model.objective(reward_model.RewardConfig("classification"))
    third = train(RewardScorer(classifier()), groups, classed, settings).history
    assert first[0]["loss"] > plain[0]["loss"]
    for rows in (first, plain, third):
        assert rows[-1]["loss"] < rows[0]["loss"]


def test_wrong_heads_are_refused():
    with pytest.raises(UnsupportedModelError, match="load_reward_model"):
        RewardScorer(tiny())
    with pytest.raises(InvalidHyperparameterError, match="last or sum"):
        RewardScorer(classifier(), "mean")
    with pytest.raises(InvalidHyperparameterError, match="bt or classification"):
        reward_model.RewardConfig("hinge")


def test_embeddings_are_the_hidden_states_of_the_response():
    model, groups = tiny(), ragged(3, 2)
    tree = collate(groups)
    last, mean = reward_model.embed(model, tree), reward_model.embed(model, tree, "mean")
    k = 0
    for prompt, answers in groups:
        for answer in answers:
            hidden = model.model(torch.tensor([[*prompt, *answer]])).last_hidden_state[0]
            torch.testing.assert_close(last[k], hidden[-1], rtol=0, atol=1e-10)
            torch.testing.assert_close(mean[k], hidden[len(prompt) :].mean(0), rtol=0, atol=1e-10)
            k += 1


# Policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_accumulation_equals_the_full_batch_on_a_transformer(kind):
    groups = ragged(10, 2)
    runs = []
    for max_tokens in (10**6, 1, 60):
        model = tiny(kind)
        settings = TrainingConfig(steps=2, batch_size=10, max_tokens=max_tokens, **QUIET)
        result = train(ResponseScorer(model), groups, dpo.objective(), settings)
        runs.append((result, model.get_input_embeddings().weight.detach()))
    for result, weights in runs[1:]:
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(result.column(name), runs[0][0].column(name), rtol=1e-10)
        torch.testing.assert_close(weights, runs[0][1], rtol=0, atol=1e-10)


def test_dpo_starts_at_log_2_in_a_model_with_dropout_and_moves_the_right_way():
    model, groups = tiny(dtype=torch.float32), ragged(16, 2)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.4
    settings = TrainingConfig(epochs=10, batch_size=16, learning_rate=3e-3, **QUIET)
    result = train(ResponseScorer(model), groups, dpo.objective(), settings)
    assert result.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    last = result.history[-1]
    assert last["accuracy"] > 0.9 and last["chosen_reward"] > last["rejected_reward"]


def test_sft_teaches_the_end_token_and_saves_for_transformers(tmp_path):
    """pad == eos: a mask made from token ids would leave the end token out."""
    groups = [([5, 6], [[7, 8, EOS]])] * 8
    model = tiny(dtype=torch.float32)
    model.config.pad_token_id = EOS
    settings = TrainingConfig(steps=60, batch_size=8, learning_rate=1e-2, **QUIET)
    rows = train(ResponseScorer(model), groups, sft.objective(groups), settings, pad_id=EOS).history
    assert rows[-1]["loss"] < 0.1 < rows[0]["loss"]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = loaded(torch.tensor([[5, 6, 7, 8]])).logits
    assert logits[0, 1:].argmax(-1).tolist() == [7, 8, EOS]


def test_bfloat16_autocast_keeps_float32_weights_and_starts_at_log_2():
    model, groups = tiny(dtype=torch.float32), ragged(8, 2)
    settings = TrainingConfig(steps=3, batch_size=8, precision="bfloat16", **QUIET)
    apart = score(ResponseScorer(model), groups, 2, settings)  # as the loop computes it
    plain = score(ResponseScorer(model), groups, 2)
    assert 1e-6 < (apart - plain).abs().max() < 0.1
    held = evaluate_objective(ResponseScorer(model), groups, dpo.objective(), settings)
    assert held()["held_out_loss"] == pytest.approx(math.log(2), abs=1e-6)
    result = train(ResponseScorer(model), groups, dpo.objective(), settings, reference=apart)
    assert result.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert held()["held_out_loss"] < math.log(2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = train(ResponseScorer(tiny(dtype=torch.float32)), groups, dpo.objective(),
                  TrainingConfig(steps=1, batch_size=8, **QUIET))  # fmt: skip
    assert torch.is_autocast_enabled("cpu") is False
    assert exact.history[0]["grad_norm"] == pytest.approx(result.history[0]["grad_norm"], rel=0.1)


def test_iterative_dpo_follows_a_reward_that_no_pair_was_labelled_with():
    """Sample, pair by the reward, step, repeat: the reward counts token 7."""
    model = tiny(dtype=torch.float32)
    prompts = [[i] for i in range(3, 19)]
    means = []
    for turn in range(4):
        drawn = sample(model, prompts, n=8, max_new_tokens=6, stop_ids=[EOS], seeds=turn)
        rewards = torch.tensor([float(y.count(7)) for y in drawn.responses])
        means.append(rewards.mean().item())
        pairs = dpo.best_against_worst(drawn.groups, rewards)
        settings = TrainingConfig(steps=15, batch_size=len(pairs), learning_rate=1e-2, **QUIET)
        train(ResponseScorer(model), pairs, dpo.objective(), settings)
    assert means[-1] > 2 * means[0]


# The enumerable model -----------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_population_minimiser_of_dpo_is_the_kl_regularised_optimum(beta):
    """Pairs from pi_ref, labels Bernoulli(s(r - r')): DPO finds pi_ref exp(r/beta)/Z."""
    draw = np.random.default_rng(0)

    def next_token(prefixes):
        return draw.dirichlet(np.full(3, 6.0), len(prefixes))

    lm = EnumerableLM.create(("a", "b", "."), 3, next_token)
    reward = draw.normal(size=len(lm.responses))
    plan = soft_backward_induction(lm.mdp(reward), lm.max_length, beta=beta, reference=lm.policy)
    best = np.exp(plan.log_policy)
    by_length = np.minimum(lm.lengths, lm.max_length - 1)
    target = lm.sequence_log_probabilities(best[by_length, np.arange(lm.n_states)])

    reference = torch.from_numpy(lm.sequence_log_probabilities())
    n = len(reference)
    first, second = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    pairs = torch.stack([first.flatten(), second.flatten()], 1)  # (n * n, 2)
    r = torch.from_numpy(reward)[pairs]
    weight = reference.exp()[pairs].prod(1) * torch.sigmoid(r[:, 0] - r[:, 1])

    live = torch.from_numpy(np.flatnonzero(lm.children[:, 0] >= 0))
    path = torch.zeros(n, lm.n_states, 3, dtype=torch.float64)  # the tokens of each response
    for k, state in enumerate(lm.responses):
        prefix = 0
        for token in lm.prefixes[state, : lm.lengths[state]]:
            path[k, prefix, token] = 1
            prefix = lm.children[prefix, token]
    logits = torch.zeros(len(live), 3, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-15,
        line_search_fn="strong_wolfe", history_size=50,
    )  # fmt: skip

    def logps():
        return (path[:, live] * torch.log_softmax(logits, -1)).sum((1, 2))

    def population_loss():
        solver.zero_grad()
        loss = (weight * dpo.dpo_loss(logps()[pairs], reference[pairs], beta)).sum()
        loss.backward()
        return loss

    solver.step(population_loss)
    np.testing.assert_allclose(logps().detach(), target, atol=2e-5)
    assert math.isclose(logps().exp().sum().item(), 1.0, abs_tol=1e-12)
