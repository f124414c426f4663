"""Any architecture is scored and sampled rightly, or refused by its name."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from architectures import PACKED, PLAIN, REFUSED, VOCABULARY, alone, build, groups_of

from irlbook.errors import PlainRowsWarning, UnsupportedModelError
from irlbook.lm import architecture, flat
from irlbook.lm.logprobs import hidden_states, token_logps
from irlbook.lm.models import add_lora, tiny_lm
from irlbook.lm.sampling import greedy, sample
from irlbook.lm.trees import collate
from irlbook.posttraining.reward_model import RewardScorer, embed
from irlbook.posttraining.rollouts import PolicyScorer

GROUPS = groups_of((6, 5, 7, 14), (3, 2))  # pads in the second row
WAYS = {
    "flat": nullcontext,
    "rows": lambda: mock.patch.object(flat, "applies", lambda *_: False),
}
pytestmark = pytest.mark.filterwarnings("ignore::irlbook.errors.PlainRowsWarning")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [GROUPS, GROUPS[:1]], ids=["pads", "no pads"])
@pytest.mark.parametrize("name", [*PACKED, *PLAIN])
def test_scores_are_those_of_each_response_alone(name, groups, way):
    model = build(name)
    with torch.no_grad(), WAYS[way]():
        found = token_logps(model, collate(groups))
        truth = alone(model, groups)
    assert (found - truth).abs().max() <= 1e-5
    assert truth.std() > 0.01  # a constant would prove nothing
    slow = architecture.findings(model).warned
    assert slow == (name in PLAIN)


@pytest.mark.parametrize("name", [*PACKED, *PLAIN])
def test_samples_come_with_the_log_probabilities_of_the_model(name):
    model = build(name)
    prompts = [prompt for prompt, _ in groups_of((9, 1), (3, 1), (14, 1))]
    drawn = sample(model, prompts, 3, max_new_tokens=10, stop_ids=[2, 3, 4, 5, 6, 7], seeds=0)
    assert any(drawn.ended) and len({len(response) for response in drawn.responses}) > 2
    with torch.no_grad():
        assert (drawn.token_logps - alone(model, drawn.groups)).abs().max() <= 2e-5


@pytest.mark.parametrize("name", ["Lfm2", "Mistral", "Mamba", "Bloom"])
def test_greedy_is_the_likeliest_token_of_the_plain_forward(name):
    model = build(name)
    prompts = [prompt for prompt, _ in groups_of((9, 1), (3, 1))]
    for prompt, (response,) in greedy(model, prompts, max_new_tokens=6, stop_ids=[]).groups:
        ids = list(prompt)
        for _ in response:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert ids == [*prompt, *response]


@pytest.mark.parametrize("name", ["Lfm2", "Qwen3_5", "Gemma3", "Mpt", "Llama4", "BertLMHeadModel"])
def test_gradients_of_plain_rows_are_those_of_each_response_alone(name):
    model = build(name).double()
    weights = torch.linspace(-1, 1, sum(len(r) for _, rs in GROUPS for r in rs))

    def gradient(logps):
        grads = torch.autograd.grad((weights * logps).sum(), model.parameters(), allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    ours, truth = gradient(token_logps(model, collate(GROUPS))), gradient(alone(model, GROUPS))
    assert truth.abs().max() > 1e-3
    assert (ours - truth).abs().max() <= 1e-5 * truth.abs().max()


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma2, narrow", "Jamba", "Bloom", "Mpt"])
def test_reward_models_read_the_last_token_of_each_response_alone(name):
    model = build(name, "ForSequenceClassification", num_labels=1, pad_token_id=0)
    found = RewardScorer(model)(collate(GROUPS))
    texts = [[*prompt, *response] for prompt, many in GROUPS for response in many]
    truth = torch.cat([model(input_ids=torch.tensor([text])).logits[0] for text in texts])
    assert (found - truth).abs().max() <= 1e-5 and truth.std() > 0.01
    pooled = embed(model, collate(GROUPS), "mean")
    hidden = architecture.decoder_of(model)(input_ids=torch.tensor([texts[0]])).last_hidden_state
    own = hidden[0, len(GROUPS[0][0]) :].mean(0)
    assert torch.allclose(pooled[0], own, atol=1e-5)


def test_a_decoder_that_transformers_does_not_name_is_found():
    model = build("Llama", "ForSequenceClassification", num_labels=1, pad_token_id=0)
    with mock.patch.object(type(model), "get_decoder", lambda self: None):  # transformers 4.56
        assert architecture.decoder_of(model) is model.model


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Lfm2"])
def test_an_adapter_changes_nothing_about_it(name):
    model = add_lora(build(name), rank=2)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.normal_(std=0.1)
        assert (token_logps(model, collate(GROUPS)) - alone(model, GROUPS)).abs().max() <= 1e-5
    assert architecture.findings(model).warned == (name != "Llama")


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "FalconH1"])
def test_the_trial_leaves_modes_and_random_numbers_alone(name):
    model, model.config.resid_pdrop = build(name).train(), 0.5
    first = next(m for m in model.modules() if not list(m.children()))
    first.eval()
    before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    assert architecture.plain_head(model)
    architecture.packs(model, collate(GROUPS), "flat", lambda t: flat.hidden_states(model, t))
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes


def test_dropout_does_not_hide_that_a_model_packs():
    model = build("GPT2LMHeadModel").train()  # with transformers' dropout of .1
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlainRowsWarning)
        token_logps(model, collate(GROUPS))
    assert model.training


@pytest.mark.filterwarnings("default::irlbook.errors.PlainRowsWarning")
def test_the_slow_way_is_said_once_by_the_architectures_name():
    model = build("Lfm2")
    prompts = [prompt for prompt, _ in GROUPS]
    with pytest.warns(PlainRowsWarning, match="Lfm2ForCausalLM mixes tokens") as said:
        token_logps(model, collate(GROUPS))
        token_logps(model, collate(groups_of((20, 60))))
        sample(model, prompts, max_new_tokens=4, stop_ids=[2], seeds=0)
        token_logps(copy.deepcopy(model), collate(GROUPS))  # a reference, for instance
    assert len([w for w in said if w.category is PlainRowsWarning]) == 1


@pytest.mark.parametrize("name", ["Mistral", "GPTNeo"])  # a window that is named as usual, or not
def test_a_window_counts_only_where_the_batch_is_wider(name):
    window = {"sliding_window": 64} if name == "Mistral" else {"window_size": 64}
    model, short, long = build(name, **window), groups_of((6, 9)), groups_of((20, 60, 70))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlainRowsWarning)
        assert (token_logps(model, collate(short)) - alone(model, short)).abs().max() <= 1e-5
    with pytest.warns(PlainRowsWarning):
        assert (token_logps(model, collate(long)) - alone(model, long)).abs().max() <= 1e-5


def test_a_packed_row_can_pass_a_window_that_no_response_reaches():
    """GPT-Neo counts its window along the row: eight responses, and the prompt is out of sight."""
    model, groups = build("GPTNeo", window_size=64), groups_of((8, *[12] * 8))
    assert (token_logps(model, collate(groups)) - alone(model, groups)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_reads_ahead_is_refused_by_name(name):
    model, words = build(name), "cannot be scored: .* tokens that follow"
    with pytest.raises(UnsupportedModelError, match=name.partition(",")[0] + " " + words):
        token_logps(model, collate(GROUPS))
    with pytest.raises(UnsupportedModelError, match=words):
        sample(model, [[5, 6, 7], [8]], max_new_tokens=3, stop_ids=[2], seeds=0)


@pytest.mark.parametrize("name", ["Llama", "Mixtral", "Lfm2", "FalconH1", "Jamba", "Mpt"])
def test_bfloat16_does_not_hide_a_small_leak(name):
    model = build(name).bfloat16()
    token_logps(model, collate(GROUPS))
    assert architecture.findings(model).warned == (name in PLAIN)
    model = build(name).bfloat16()
    sample(model, [[5, 6, 7], [8]], max_new_tokens=3, stop_ids=[2], seeds=0)
    assert architecture.findings(model).warned == (name in PLAIN and name != "Mpt")


@pytest.mark.parametrize(
    ("option", "value"), [("final_logit_softcapping", 30.0), ("logit_scale", 0.06)]
)
def test_an_option_of_the_head_is_believed_only_if_the_model_uses_it(option, value):
    model = build("Llama")
    setattr(model.config, option, value)  # which a Llama never reads
    assert (token_logps(model, collate(GROUPS)) - alone(model, GROUPS)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["Gemma2", "Cohere", "Granite", "Lfm2"])
def test_values_stand_beside_scores_of_any_plain_head(name):
    model = build(name)
    scores = PolicyScorer(model, values=True)(collate(GROUPS))
    assert (scores[:, 0] - alone(model, GROUPS)).abs().max() <= 1e-5


def test_a_value_head_is_refused_where_the_logits_are_more_than_a_head():
    with pytest.raises(UnsupportedModelError, match="BertLMHeadModel .* value head"):
        PolicyScorer(build("BertLMHeadModel"), values=True)(collate(GROUPS))


def test_diverged_weights_are_not_called_an_architecture():
    model = tiny_lm(VOCABULARY, hidden=16, context=64)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    assert token_logps(model, collate(GROUPS)).isnan().all()
    assert not architecture.findings(model).packed


def test_a_model_is_tried_once_for_a_size_of_batch():
    model, runs = build("Llama"), []
    model.get_decoder().register_forward_hook(lambda *_: runs.append(1))
    tree = collate(GROUPS)
    hidden_states(model, tree)
    first = len(runs)
    for other in (tree, collate(GROUPS[1:]), collate(groups_of((9, 12)))):
        hidden_states(model, other)
    assert len(runs) == first + 3
    assert architecture.findings(copy.deepcopy(model)) == architecture.findings(model)


def test_an_attention_that_takes_no_mask_gets_plain_rows():
    model = build("Llama")
    with torch.no_grad():
        truth = alone(model, GROUPS)
        with (
            pytest.warns(PlainRowsWarning, match="attn_implementation='sdpa'"),
            mock.patch("irlbook.lm.logprobs.MASKED_ATTENTION", ("eager",)),
        ):
            assert (token_logps(model, collate(GROUPS)) - truth).abs().max() <= 1e-5


def test_an_adapter_that_puts_learned_tokens_in_front_is_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(build("Llama"), config)
    with pytest.raises(UnsupportedModelError, match="reads 27 tokens where it is given 24"):
        token_logps(model, collate(GROUPS))
