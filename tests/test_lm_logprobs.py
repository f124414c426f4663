"""Scoring responses: what must not change a log-probability, and what must."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from architectures import exact_norms
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from irlbook.errors import ContextLengthError, ResponseError
from irlbook.lm import flat, logprobs
from irlbook.lm.logprobs import (
    ResponseScorer,
    padded_token_logps,
    sequence_logps,
    token_logps,
)
from irlbook.lm.models import tiny_lm
from irlbook.lm.trees import collate

VOCABULARY = 40
PAD = EOS = 0  # the awkward case: pad and end are one token

ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=7)
groups_of = st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=4)), min_size=1, max_size=4)


def make(kind: str = "llama", dtype: torch.dtype = torch.float32, **options):
    return tiny_lm(VOCABULARY, kind, hidden=16, context=64, dtype=dtype, **options).eval()


def sharpened(model, scale: float = 25.0):
    """Weights large enough for the log-probabilities to differ from token to token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


def exact(model):
    """A model that computes all of it in float64, with sharp predictions."""
    return sharpened(exact_norms(model.double()), 8.0)


MODELS = {
    "llama": exact(make("llama")),
    "qwen2 grouped": exact(make("qwen2", kv_heads=1)),
    "llama untied": exact(make("llama", kv_heads=2, tied=False)),
}
SINGLE = sharpened(make("llama", kv_heads=2), 8.0)
# Padded rows, as on a GPU; without pads, as on the CPU; and each response attending for itself.
WAYS = {
    "rows": lambda: mock.patch.object(flat, "applies", lambda *_: False),
    "flat": nullcontext,
    "flat, long rows": lambda: mock.patch.object(flat, "WHOLE", 0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(groups=groups_of)
def test_tree_equals_padded_in_float64(name, way, groups):
    with torch.no_grad(), WAYS[way]():
        tree = token_logps(MODELS[name], collate(groups))
        padded = padded_token_logps(MODELS[name], groups)
    assert (tree - padded).abs().max() <= 1e-10
    assert len(tree) < 4 or tree.std() > 0.1  # a constant would prove nothing


@settings(max_examples=20, deadline=None)
@given(groups=groups_of, extra=st.integers(0, 9), pad=st.integers(0, VOCABULARY - 1))
def test_padding_side_amount_and_token_change_nothing(groups, extra, pad):
    with torch.no_grad():
        tree = token_logps(SINGLE, collate(groups, pad))
        for side in ("right", "left"):
            padded = padded_token_logps(SINGLE, groups, pad, side, extra=extra)
            assert (tree - padded).abs().max() <= 1e-5


@settings(max_examples=20, deadline=None)
@given(groups=groups_of, random=st.randoms(use_true_random=False))
def test_batch_size_order_and_shared_prompts_change_nothing(groups, random):
    responses = [(prompt, [response]) for prompt, many in groups for response in many]
    with torch.no_grad():
        together = token_logps(SINGLE, collate(groups))
        alone = torch.cat([token_logps(SINGLE, collate([one])) for one in responses])
        order = list(range(len(responses)))
        random.shuffle(order)
        shuffled = token_logps(SINGLE, collate([responses[i] for i in order]))
    pieces = dict(zip(order, shuffled.split([len(responses[i][1][0]) for i in order]), strict=True))
    assert (together - alone).abs().max() <= 1e-5
    assert (together - torch.cat([pieces[i] for i in range(len(order))])).abs().max() <= 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_of_tree_is_gradient_of_padded(name, way):
    model = copy.deepcopy(MODELS[name])
    groups = [([5, 6, 7], [[8, 9, EOS], [8, 9, 3, EOS]]), ([4], [[1, 2, 3, 4], [EOS]])]
    weights = torch.linspace(-1, 1, 12, dtype=torch.float64)

    def gradient(logps):
        parts = torch.autograd.grad((weights * logps).sum(), list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    with WAYS[way]():
        tree = gradient(token_logps(model, collate(groups)))
    padded = gradient(padded_token_logps(model, groups, side="left"))
    assert tree.abs().max() > 1e-3
    assert (tree - padded).abs().max() <= 1e-10 * tree.abs().max()


def test_the_end_token_carries_loss_even_where_pad_is_end():
    """Trap 2: a mask made of `ids != pad` would drop every end token when pad == eos."""
    model = make("llama", torch.float64)
    tree = collate([([5, 6], [[7, EOS], [8, 9, EOS]])], pad_id=EOS)
    assert tree.target.tolist() == [7, EOS, 8, 9, EOS]
    logps = token_logps(model, tree)
    (-logps[1]).backward()  # the end token of the first response alone
    gradient = model.get_input_embeddings().weight.grad
    assert gradient.abs().sum() > 0
    # and in another batch, where pads stand behind it, it scores the same
    wider = token_logps(model, collate([([5, 6], [[7, EOS]]), ([5, 6], [[1] * 9])], pad_id=EOS))
    assert wider[1].item() == pytest.approx(logps[1].item(), abs=1e-7)


def test_a_truncated_response_has_no_end_token():
    tree = collate([([5], [[7, 8, 9]])])
    assert tree.target.tolist() == [7, 8, 9]
    assert tree.lengths.tolist() == [3]


def test_the_picture_in_the_docstring():
    tree = collate([([11, 12, 13], [[21, 22, 23], [31, 32]])])
    assert tree.input_ids.tolist() == [[11, 12, 13, 21, 22, 23, 31, 32]]
    assert tree.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4]]
    assert tree.predictor.tolist() == [2, 3, 4, 2, 6]
    assert tree.target.tolist() == [21, 22, 23, 31, 32]
    assert tree.owner.tolist() == [0, 0] and tree.depth == 6
    assert tree.visible[0, 0, 7].tolist() == [True] * 3 + [False] * 3 + [True] * 2
    assert tree.to("cpu").visible.equal(tree.visible)


def test_rows_do_not_leak_into_each_other():
    """Trap 11: changing one response, or padding, changes no other log-probability."""
    with torch.no_grad():
        one = token_logps(SINGLE, collate([([5, 6], [[7, 8], [9, 10]])]))
        other = token_logps(SINGLE, collate([([5, 6], [[7, 8], [3, 3, 3]])]))
    assert (one[:2] - other[:2]).abs().max() <= 1e-6


def test_left_padding_needs_positions_where_they_are_learned():
    """Trap 7: GPT-2 without position_ids is off by nats; the reference here passes them."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    model = sharpened(GPT2LMHeadModel(config).double().eval(), 15.0)
    groups = [([5, 6, 7], [[8, 9, 1], [4]]), ([3], [[2, 2]])]
    with torch.no_grad():
        right = padded_token_logps(model, groups)
        left = padded_token_logps(model, groups, side="left", extra=5)
        tree = token_logps(model, collate(groups))
        rows = torch.tensor([[0] * 5 + [5, 6, 7, 4]])
        wrong = model(rows, attention_mask=(rows > 0).long()).logits[0, -2].log_softmax(0)[4]
    assert (right - left).abs().max() <= 1e-10
    assert (right - tree).abs().max() <= 1e-10
    assert abs(wrong - right[3]) > 0.05


def test_temperature_is_that_of_the_sampler():
    """Trap 10: scored at 1 instead of at 0.6, a sequence is off by nats."""
    groups = [([5, 6], [[7, 8, 9, 10, 11]])]
    with torch.no_grad():
        cold = token_logps(SINGLE, collate(groups), temperature=0.6)
        padded = padded_token_logps(SINGLE, groups, temperature=0.6)
        warm = token_logps(SINGLE, collate(groups))
    assert (cold - padded).abs().max() <= 1e-5
    assert (cold - warm).abs().sum() > 0.5


def test_half_precision_weights_keep_a_float32_log_softmax():
    """Trap 9: a bfloat16 log-softmax errs much more than bfloat16 weights do."""
    rng = np.random.default_rng(0)
    groups = [([5, 6], [rng.integers(VOCABULARY, size=40).tolist()])]
    half = sharpened(make(), 8.0).to(torch.bfloat16)
    tree = collate(groups)
    with torch.no_grad():
        logps = token_logps(half, tree)
        logits = logprobs.response_logits(half, tree)
        coarse = logits.log_softmax(-1).gather(1, tree.target[:, None])[:, 0].float()
        fine = logits.float().log_softmax(-1).gather(1, tree.target[:, None])[:, 0]
    assert logits.dtype == torch.bfloat16 and logps.dtype == torch.float32
    assert (logps - fine).abs().max() <= 1e-5
    assert (coarse - fine).abs().mean() > 10 * (logps - fine).abs().mean()


def test_sequence_logps_sum_and_do_not_average():
    """Trap 13."""
    tokens = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0], requires_grad=True)
    sums = sequence_logps(tokens, torch.tensor([2, 1, 2]))
    assert sums.tolist() == [-3.0, -4.0, -24.0]
    sums[2].backward()
    assert tokens.grad.tolist() == [0, 0, 0, 1, 1]


def test_dropout_is_off_in_eval_mode_and_on_in_train_mode():
    """Trap 15: a reference scored in train mode is noise; in eval mode it repeats exactly."""
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    model, tree = GPT2LMHeadModel(config), collate([([5, 6], [[7, 8]])])
    with torch.no_grad():
        assert not token_logps(model.train(), tree).equal(token_logps(model, tree))
        assert token_logps(model.eval(), tree).equal(token_logps(model, tree))


def test_scorer_runs_everything_inside_one_forward():
    """Trap 18: what a DDP wrapper wraps must hold the decoder and the head."""
    model = make()
    scorer, tree = ResponseScorer(model), collate([([5, 6], [[7, 8], [9]])])
    token_logps(model, tree)  # the model is tried once before it is used
    inside, ran = [], []
    scorer.register_forward_pre_hook(lambda *_: inside.append(True))
    scorer.register_forward_hook(lambda *_: inside.pop() and None)
    for part in (model.get_decoder(), model.get_output_embeddings()):
        part.register_forward_hook(lambda *_: ran.append(bool(inside)))
    assert scorer(tree, 0.7).equal(token_logps(model, tree, 0.7))
    assert ran == [True, True, False, False]
    assert {id(p) for p in scorer.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "batch is empty"),
        ([([], [[1]])], "group 0 has an empty prompt"),
        ([([1], [[1]]), ([1], [])], "group 1 has no response"),
        ([([1], [[1], []])], "group 0 has no response, or an empty one"),
    ],
)
def test_empty_parts_are_named(groups, words):
    with pytest.raises(ResponseError, match=words):
        collate(groups)


def test_a_prompt_longer_than_the_context_is_refused():
    """Trap 4: never cut in silence."""
    with pytest.raises(ContextLengthError, match="need 70 tokens.*holds 64"):
        token_logps(make(), collate([([1] * 60, [[2] * 10])]))


def test_many_responses_may_together_exceed_the_context():
    groups = [([1, 2], [[3] * 30, [4] * 30, [5] * 30])]
    with torch.no_grad():
        tree, padded = token_logps(SINGLE, collate(groups)), padded_token_logps(SINGLE, groups)
    assert (tree - padded).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_attentions_score_the_same(dtype):
    groups = [([5, 6, 7], [[8, 9, 3], [4]]), ([3], [[2, 2]])]
    found = []
    for implementation, way in (("eager", "flat"), ("sdpa", "rows"), ("sdpa", "flat")):
        model = make(kv_heads=2).to(dtype)
        model.set_attn_implementation(implementation)
        with torch.no_grad(), WAYS[way]():
            found.append(token_logps(model, collate(groups)))
    for other in found[1:]:
        assert (found[0] - other).abs().max() <= (1e-5 if dtype == torch.float32 else 0.02)


def test_no_pad_is_computed_on_the_cpu_and_the_model_is_left_as_it_was():
    """The decoder sees one row of real tokens; afterwards the model generates as before."""
    model, groups = make(), [([5, 6, 7], [[8, 9], [3]]), ([4], [[1, 2, 3, 4]])]
    token_logps(model, collate(groups))  # the model is tried once before it is used
    seen = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["input_ids"].tolist()), with_kwargs=True
    )
    prompt = torch.tensor([[5, 6]])
    before = model.generate(prompt, do_sample=False, max_new_tokens=5, pad_token_id=PAD)
    seen.clear()
    token_logps(model, collate(groups))
    assert seen == [[[5, 6, 7, 8, 9, 3, 4, 1, 2, 3, 4]]]
    assert model.config._attn_implementation == "sdpa"
    after = model.generate(prompt, do_sample=False, max_new_tokens=5, pad_token_id=PAD)
    assert after.equal(before)
    hook.remove()
    model.get_decoder().layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        token_logps(model, collate(groups))
    assert model.config._attn_implementation == "sdpa"  # after an error too


def test_checkpointed_layers_score_and_learn_the_same():
    """They run again in the backward pass, when the attention of the forward one is put away."""
    tree, found = collate([([5, 6, 7], [[8, 9], [3]]), ([4], [[1, 2, 3, 4]])]), []
    for checkpointed in (False, True):
        model = make().train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        logps = token_logps(model, tree)
        logps.sum().backward()
        found.append((logps.detach(), model.get_input_embeddings().weight.grad))
    for plain, again in zip(*found, strict=True):
        assert (plain - again).abs().max() <= 1e-5


def test_a_model_that_calls_itself_its_decoder_is_understood(monkeypatch):
    tree = collate([([5, 6], [[7, 8]])])
    model = make()
    expected = token_logps(model, tree)
    monkeypatch.setattr(model, "get_decoder", lambda: model)
    assert token_logps(model, tree).equal(expected)


def test_autocast_stays_within_its_own_error():
    groups = [([5, 6, 7], [[8, 9, 3], [4]]), ([3], [[2, 2]])]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        tree, padded = token_logps(SINGLE, collate(groups)), padded_token_logps(SINGLE, groups)
    assert tree.dtype == torch.float32
    assert (tree - padded).abs().max() < 0.2 and math.isfinite(tree.sum())
