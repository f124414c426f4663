"""Sampling: the model's distribution, its log-probabilities, and no influence of the company."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from transformers import GPT2Config, GPT2LMHeadModel

from irlbook.errors import ContextLengthError, ResponseError, SamplingError
from irlbook.lm import sampling
from irlbook.lm.logprobs import padded_token_logps, sequence_logps, token_logps
from irlbook.lm.models import tiny_lm
from irlbook.lm.sampling import greedy, inverse_cdf, nucleus, sample
from irlbook.lm.trees import collate

END = 3
PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [4] * 9, [12, 13]]


def sharpened(model, scale: float):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


def make(vocabulary: int = 30, kind: str = "llama", scale: float = 4.0, **options):
    """A model whose tokens are neither uniform nor certain; END comes about every tenth token."""
    return sharpened(tiny_lm(vocabulary, kind, hidden=16, context=64, **options), scale).eval()


MODEL = make()
DOUBLE = make(dtype=torch.float64)


def draw(model=MODEL, prompts=PROMPTS, n=3, **options):
    options = {"max_new_tokens": 12, "stop_ids": [END], "seeds": 0} | options
    if "generator" in options:
        options["seeds"] = None
    return sample(model, prompts, n, **options)


def same(one, other, tolerance=1e-5):
    assert one.groups == other.groups and one.ended == other.ended
    assert (one.token_logps - other.token_logps).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_importance_ratio_is_one_on_fresh_samples(kind, temperature):
    """Trap 10, and the cache with dropped rows: what the sampler says is what scoring says."""
    model = make(kind=kind, kv_heads=2)
    samples = draw(model, n=8, temperature=temperature)
    assert 0 < sum(samples.ended) < len(samples.ended)  # rows were dropped, and rows were cut
    with torch.no_grad():
        scored = token_logps(model, collate(samples.groups), temperature)
        padded = padded_token_logps(model, samples.groups, temperature=temperature)
        wrong = token_logps(model, collate(samples.groups), temperature + 0.5)
    assert (samples.token_logps - scored).abs().max() <= 1e-5
    assert (samples.token_logps - padded).abs().max() <= 1e-5
    assert (wrong - scored).abs().mean() > 0.02


def test_greedy_is_the_argmax_of_a_full_forward():
    samples = greedy(MODEL, PROMPTS, max_new_tokens=10, stop_ids=[END])
    for (prompt, [response]), logps in zip(samples.groups, samples.logps, strict=True):
        with torch.no_grad():
            logits = MODEL(torch.tensor([prompt + response])).logits[0].float().log_softmax(-1)
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == response
        expected = logits[len(prompt) - 1 : -1].max(-1).values
        assert (logps - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_greedy_equals_generate(implementation):
    model = make()
    model.set_attn_implementation(implementation)
    for prompt, [response] in greedy(model, PROMPTS, max_new_tokens=10, stop_ids=[END]).groups:
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10,
                                do_sample=False, eos_token_id=END, pad_token_id=0)  # fmt: skip
        assert theirs[0, len(prompt) :].tolist() == response


def generate(model, prompts, n, **options):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    options = {"do_sample": True, "eos_token_id": END, "pad_token_id": 0} | options
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, num_return_sequences=n, **options)
    found = []
    for row in out[:, width:].tolist():
        found.append(row[: row.index(END) + 1] if END in row else row)
    return found


def test_one_seed_gives_the_tokens_of_generate():
    """Row compaction off, one generator: token for token what transformers draws."""
    torch.manual_seed(4)
    theirs = generate(MODEL, PROMPTS, 3, top_k=0, temperature=0.8, max_new_tokens=12)
    torch.manual_seed(4)
    generator = torch.default_generator
    ours = draw(generator=generator, temperature=0.8, compact=False)
    assert ours.responses == theirs


def exact_distribution(model, prompt, vocabulary, length, temperature=1.0):
    """{response: probability} by scoring every response there is."""
    tokens = range(vocabulary)
    responses = [
        list(r)
        for k in range(1, length + 1)
        for r in itertools.product(tokens, repeat=k)
        if END not in r[:-1] and (r[-1] == END or k == length)
    ]
    tree = collate([(prompt, [r]) for r in responses])
    with torch.no_grad():
        logps = sequence_logps(token_logps(model, tree, temperature), tree.lengths)
    return {tuple(r): float(p.exp()) for r, p in zip(responses, logps, strict=True)}


def p_value(samples, exact):
    """Chi-square of counts against exact probabilities; rare responses are put together."""
    counts = {response: 0 for response in exact}
    for response in samples:
        counts[tuple(response)] += 1
    keys = sorted(exact, key=exact.get)
    expected = np.array([exact[k] for k in keys]) * len(samples)
    seen = np.array([counts[k] for k in keys])
    rare = np.searchsorted(np.cumsum(expected), 10.0) + 1
    expected = np.r_[expected[:rare].sum(), expected[rare:]]
    seen = np.r_[seen[:rare].sum(), seen[rare:]]
    return scipy_stats.chisquare(seen, expected / expected.sum() * seen.sum()).pvalue


def test_distribution_is_the_exact_one_and_that_of_generate():
    """Chi-square against every response there is; the same test catches generate at T = 1."""
    model, prompt, n = make(4, scale=5.0), [0, 1, 2], 4000
    options = {"temperature": 0.8, "max_new_tokens": 3}
    exact = exact_distribution(model, prompt, 4, 3, 0.8)
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    spread = draw(model, [prompt], n, seeds=1, max_rows=n, **options)
    stream = draw(model, [prompt], n, generator=torch.Generator().manual_seed(1), **options)
    torch.manual_seed(1)
    theirs = generate(model, [prompt], n, top_k=0, **options)
    for responses in (spread.responses, stream.responses, theirs):
        assert p_value(responses, exact) > 0.01
    hot = draw(model, [prompt], n, seeds=1, max_new_tokens=3)
    assert p_value(hot.responses, exact) < 1e-6  # the test can fail


def test_generate_hides_a_top_k_of_50():
    """Trap 8: left to its defaults, generate draws from 50 tokens. This sampler does not."""
    model = make(200, scale=1.0)
    torch.manual_seed(0)
    assert model.generation_config.top_k in (None, 50)  # transformers 5 says None, and yet
    default = generate(model, [[5, 6]], 2000, max_new_tokens=1)
    whole = generate(model, [[5, 6]], 2000, max_new_tokens=1, top_k=0)
    ours = draw(model, [[5, 6]], 2000, max_new_tokens=1).responses
    distinct = [len({r[0] for r in responses}) for responses in (default, whole, ours)]
    assert distinct[0] == 50
    assert min(distinct[1:]) > 180


def test_samples_depend_on_their_own_seed_alone():
    seeds = [11, 22, 33, 44, 55]
    together = draw(DOUBLE, seeds=seeds)
    for i, prompt in enumerate(PROMPTS):
        alone = draw(DOUBLE, [prompt], seeds=[seeds[i]])
        assert alone.groups == [together.groups[i]]
        one = draw(DOUBLE, [prompt], 1, seeds=[seeds[i]])
        assert one.groups[0][1] == together.groups[i][1][:1]
    order = [3, 0, 4, 2, 1]
    shuffled = draw(DOUBLE, [PROMPTS[i] for i in order], seeds=[seeds[i] for i in order])
    assert shuffled.groups == [together.groups[i] for i in order]


@settings(max_examples=10, deadline=None)
@given(max_rows=st.integers(1, 20), compact=st.booleans(), share=st.sampled_from([0.01, 0.5, 1.0]))
def test_batches_and_dropped_rows_change_nothing(max_rows, compact, share):
    expected = draw(DOUBLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "DROP_SHARE", share)
        same(draw(DOUBLE, max_rows=max_rows, compact=compact), expected, 1e-6)


@pytest.mark.parametrize("spare", [0, 1, 5, sampling.SPARE])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_room_in_the_cache_changes_no_bit(kind, spare, monkeypatch):
    """Rows leave at several steps, and the cache grows, with equal and with unequal prompts."""
    if kind == "gpt2":
        config = GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=64)
        torch.manual_seed(0)
        model = sharpened(GPT2LMHeadModel(config), 3.0).eval()
    else:
        model = make(kind=kind, kv_heads=2)
    for prompts in (PROMPTS, [[5, 6], [7, 8]]):
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "_make_room", lambda cache: None)
            expected = draw(model, prompts, max_new_tokens=20)
        monkeypatch.setattr(sampling, "SPARE", spare)
        found = draw(model, prompts, max_new_tokens=20)
        assert found.groups == expected.groups
        assert found.token_logps.equal(expected.token_logps)
    assert len({len(response) for response in expected.responses}) > 2


def test_seeds_and_prompts_differ():
    samples = draw(prompts=[[5, 6]] * 20, n=20, max_new_tokens=4)
    assert len({tuple(r) for r in samples.responses}) > 100
    assert draw(seeds=1).responses != draw(seeds=2).responses
    assert draw(seeds=1).responses == draw(seeds=1).responses


def test_ended_and_cut_responses_are_told_apart():
    samples = draw(n=6)
    for response, ended, logps in zip(samples.responses, samples.ended, samples.logps, strict=True):
        assert len(logps) == len(response) <= 12
        assert ended == (response[-1] == END) and END not in response[:-1]
        assert ended or len(response) == 12
    on_the_edge = draw(n=50, max_new_tokens=1)
    assert [r == [END] for r in on_the_edge.responses] == on_the_edge.ended


def test_every_stop_token_stops():
    """Trap 3: a model with several end tokens runs to the limit if only one of them stops."""
    one, both = draw(n=20), draw(n=20, stop_ids=[END, 7, 9])
    assert sum(both.ended) > sum(one.ended)
    for response, ended in zip(both.responses, both.ended, strict=True):
        assert ended == (response[-1] in (END, 7, 9))
        assert not set(response[:-1]) & {END, 7, 9}
    assert not any(draw(stop_ids=[]).ended)


def test_dropout_is_off_while_sampling_and_restored_after():
    """Trap 15."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=30, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    model = sharpened(GPT2LMHeadModel(config), 10.0).train()
    samples = draw(model)
    assert model.training
    with torch.no_grad():
        scored = token_logps(model.eval(), collate(samples.groups))
    assert (samples.token_logps - scored).abs().max() <= 1e-5
    draw(model)
    assert not model.training


def test_samples_carry_no_graph_and_serve_in_a_loss():
    samples = draw()
    model = make()
    ratio = (token_logps(model, collate(samples.groups)) - samples.token_logps).exp()
    ratio.mean().backward()
    assert (ratio - 1).abs().max() <= 1e-4 and not samples.token_logps.requires_grad
    assert model.get_input_embeddings().weight.grad.abs().max() > 0  # trap 17: loss flat, slope not


def test_nucleus_keeps_the_smallest_set():
    logps = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25]]).log()
    kept = nucleus(logps, 0.7).exp()
    assert torch.allclose(kept[0], torch.tensor([0.625, 0, 0.375, 0]))
    assert (kept[1] > 0).sum() == 3
    assert nucleus(logps, 1e-6).exp().max(1).values.tolist() == [1.0, 1.0]


def test_top_p_draws_from_the_nucleus_with_its_log_probabilities():
    samples = draw(n=200, prompts=[[5, 6]], max_new_tokens=1, top_p=0.5)
    with torch.no_grad():
        kept = nucleus(MODEL(torch.tensor([[5, 6]])).logits[:, -1].log_softmax(-1), 0.5)[0]
    tokens = [response[0] for response in samples.responses]
    assert set(tokens) <= set(kept.isfinite().nonzero()[:, 0].tolist())
    assert (samples.token_logps - kept[tokens]).abs().max() <= 1e-5
    assert samples.top_p == 0.5


def test_inverse_cdf_never_draws_an_impossible_token():
    logps = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log().expand(4, 5)
    uniform = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(logps, uniform)[:, 0].tolist() == [1, 1, 3, 3]
    double = logps.double().contiguous()
    kept = double.clone()
    assert inverse_cdf(double, uniform)[:, 0].tolist() == [1, 1, 3, 3] and double.equal(kept)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "call greedy"),
        ({"top_p": 0.0}, r"\(0, 1\]"),
        ({"top_p": 0.9, "training": True}, "Importance ratios would not be 1"),
        ({"seeds": None}, "either seeds"),
        ({"seeds": [1, 2]}, "2 seeds for 5 prompts"),
        ({"seeds": -1}, "negative"),
        ({"n": 0}, "at least 1"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"prompts": []}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(options, words):
    with pytest.raises(SamplingError, match=words):
        draw(**options)


def test_prompts_must_be_there_and_fit():
    with pytest.raises(ResponseError, match="prompt 1 is empty"):
        draw(prompts=[[5], []])
    with pytest.raises(ContextLengthError, match="need 67 tokens"):
        draw(prompts=[[5] * 55])


def test_a_diverged_model_is_named():
    model = make()
    with torch.no_grad():
        model.get_input_embeddings().weight[6] = torch.nan
    with pytest.raises(SamplingError, match="not finite"):
        draw(model)
