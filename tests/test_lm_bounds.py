"""Where a bound lies, what is counted, and what a default means: the small print of floor `lm`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import nn
from transformers.utils import logging

from irlbook.errors import (
    ContextLengthError,
    FolderInUseError,
    InvalidHyperparameterError,
    InvalidPolicyError,
    ModelTooLargeError,
    NotStochasticError,
    ResponseError,
    SamplingError,
    ShapeError,
    TokenizerError,
    UnsupportedModelError,
)
from irlbook.lm import (
    architecture,
    costs,
    flat,
    memory,
    models,
    plain,
    sampling,
    tokenization,
)
from irlbook.lm.enumerable import (
    EnumerableLM,
    best_of_n,
    best_of_n_kl_bound,
    check_logps,
    expectation,
    kl_from_logps,
    tilted,
)
from irlbook.lm.logprobs import check_context, log_softmax, padded_token_logps, token_logps
from irlbook.lm.models import tiny_lm
from irlbook.lm.token_table import TokenTable
from irlbook.lm.tokenization import train_tokenizer
from irlbook.lm.trees import collate

# Architecture -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "found"), [(None, None), (0, None), (-1, None), (1, 1), (2048, 2048)]
)
def test_a_context_is_a_positive_number_or_unknown(length, found):
    config = (
        SimpleNamespace() if length is None else SimpleNamespace(max_position_embeddings=length)
    )
    assert architecture.context_of(config) == found
    check_context(config, found or 10**6)
    if found:
        with pytest.raises(ContextLengthError, match=f"need {found + 1} tokens.*holds {found}"):
            check_context(config, found + 1)


@pytest.mark.parametrize(
    ("depth", "context", "size"),
    [
        (1, None, 32),
        (32, None, 32),
        (33, None, 64),
        (64, None, 64),
        (65, 4096, 128),
        (33, 40, 40),
        (40, 40, 40),
        (5, 20, 20),
        (50, 40, 64),
    ],
)
def test_a_trial_is_a_power_of_two_that_the_context_holds(depth, context, size):
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=context))
    assert architecture.trial_size(model, depth) == size


def test_two_states_are_alike_up_to_a_share_of_their_length():
    b = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
    near = b + torch.tensor([[0.0, 0.4], [0.0, 0.0]])  # 0.08 of the first one's length
    assert architecture.alike(near, b, 0.081) and not architecture.alike(near, b, 0.079)
    assert architecture.alike(b + 0.6e-4, b) and not architecture.alike(b + 0.8e-4, b)
    half = b.bfloat16()
    assert architecture.alike(half * 1.1, half) and not architecture.alike(half * 1.4, half)
    assert not architecture.alike(b * torch.nan, b)
    assert architecture.alike(torch.zeros(1, 2), torch.zeros(1, 2))


def test_a_trial_sees_no_gradient_no_autocast_and_no_dropout():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    model[1].eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), architecture.trial(model):
        assert not torch.is_grad_enabled() and not model.training
        assert model(torch.ones(1, 2)).dtype == torch.float32
    assert torch.is_grad_enabled() and model.training and not model[1].training
    with pytest.raises(ZeroDivisionError), architecture.evaluating(model):
        raise ZeroDivisionError
    assert model.training and model[0].training


def test_rows_of_a_trial_are_the_same_each_time_and_draw_from_all_tokens():
    model, before = tiny_lm(7, hidden=8, layers=1, heads=1), torch.get_rng_state()
    rows = architecture.trial_rows(model, [400, 3])
    assert [len(row) for row in rows] == [400, 3] and set(rows[0]) == set(range(7))
    assert rows == architecture.trial_rows(model, [400, 3])
    assert torch.get_rng_state().equal(before)


class Toy(nn.Module):
    """A model of one matrix, whose `mix` says what each token hears of the others."""

    def __init__(self, mix, context=None):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.mix, self.config = mix, SimpleNamespace(max_position_embeddings=context)

    def get_input_embeddings(self):
        return self.table

    def get_output_embeddings(self):
        return self.out

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return SimpleNamespace(logits=self.out(self.mix(self.table(input_ids), mask)))


def so_far(states, mask):
    return states.cumsum(1)


def all_of_the_row(states, mask):
    return states + states.mean(1, keepdim=True)


def all_of_the_text(states, mask):
    return states + (states * mask[..., None]).sum(1, keepdim=True)


def a_number_short(states, mask):
    return states[:, 1:]


def nothing(states, mask):
    raise KeyError("no\nsuch thing")


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (all_of_the_row, "Toy cannot be scored: .* the pads behind it"),
        (all_of_the_text, "Toy cannot be scored: .* the tokens that follow"),
        (a_number_short, "Toy reads 23 tokens where it is given 24"),
        (nothing, "Toy does not run on rows of text .KeyError: 'no"),
    ],
)
def test_plain_rows_are_refused_by_what_is_wrong_with_them(mix, words):
    with pytest.raises(UnsupportedModelError, match=words):
        architecture.check_plain(Toy(mix))


def test_plain_rows_are_tried_once_and_within_the_context():
    model, seen = Toy(so_far, context=5), []
    model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    architecture.check_plain(model)
    assert seen == [(1, 5), (1, 2), (2, 5), (1, 2)] and architecture.findings(model).plain
    architecture.check_plain(model)
    assert len(seen) == 4


def test_a_model_without_a_part_before_its_head_is_named():
    for decoder in (None, SimpleNamespace(lm_head=1, base_model=SimpleNamespace(lm_head=1))):
        model = SimpleNamespace(get_decoder=lambda decoder=decoder: decoder)
        model.base_model = model
        with pytest.raises(UnsupportedModelError, match="SimpleNamespace does not say which part"):
            architecture.decoder_of(model)
    inner = SimpleNamespace(get_base_model=lambda: nn.Linear(1, 1))
    assert architecture.name_of(inner) == "Linear"


def test_options_of_a_head_are_applied_in_their_own_way():
    matrix = nn.Linear(2, 3, bias=False)
    hidden = torch.tensor([[1.0, -2.0]])
    plain = matrix(hidden)

    def head(**options):
        model = SimpleNamespace(
            config=SimpleNamespace(**options), get_output_embeddings=lambda: matrix
        )
        return architecture.head(model, hidden)

    assert head().equal(plain) and head(logit_scale=None).equal(plain)
    assert head(logit_scale=0.25).equal(plain * 0.25)
    assert head(logits_scaling=4.0).equal(plain / 4)
    for name in ("final_logit_softcapping", "logits_soft_cap"):
        assert torch.allclose(head(**{name: 0.5}), 0.5 * torch.tanh(plain / 0.5))


# Log-probabilities --------------------------------------------------------------------------------


def test_a_log_softmax_keeps_float64_and_lifts_half_precision():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    for dtype, wanted in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        found = log_softmax(logits.to(dtype), 2.0)
        assert found.dtype == wanted
        assert torch.allclose(found.exp().sum(), torch.ones((), dtype=wanted))
        gaps = (found[0, 1:] - found[0, :-1]).float()
        assert torch.allclose(gaps, torch.tensor([0.5, 1.0]), atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_further_pads_change_nothing_in_the_reference(side):
    model = tiny_lm(9, hidden=16, context=32, dtype=torch.float64).eval()
    groups = [([1, 2], [[3], [4, 5, 6]]), ([7], [[8]])]
    with torch.no_grad():
        found = padded_token_logps(model, groups, 3, side, extra=4)
        plain = padded_token_logps(model, groups)
        assert found.dtype == torch.float64
        assert (found - plain).abs().max() < 1e-10
        assert (token_logps(model, collate(groups)) - plain).abs().max() < 1e-6


def test_responses_become_rows_of_their_own():
    tree = collate([([11, 12], [[21], [31, 32, 33]]), ([41], [[51, 52]])])
    ids, mask, place = plain.unpack(tree)
    assert ids.tolist() == [[11, 12, 21, 0, 0], [11, 12, 31, 32, 33], [41, 51, 52, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1, 1, 1, 0, 0]]
    # a prompt is looked for in the row of its first response; pads of the tree are nowhere
    assert place.tolist() == [0, 1, 2, 7, 8, 9, 10, 11, 12, -1, -1, -1]
    found = ids.flatten()[place.clamp(min=0)]
    real = place >= 0
    assert found[real].equal(tree.input_ids.flatten()[real])


def test_rows_attend_together_up_to_a_length_and_apart_beyond(monkeypatch):
    tree = collate([([11, 12], [[21], [31, 32, 33]]), ([41], [[51, 52]])])
    for whole, packed in ((6, True), (5, False)):
        monkeypatch.setattr(flat, "WHOLE", whole)
        (lengths, mask), alone = flat._rows(tree)
        assert alone == ([3], None)
        if packed:
            assert lengths == [6] and mask.equal(tree.visible[:1, :, :6, :6])
        else:
            assert lengths == [2, 1, 3] and mask is None


def test_the_flat_way_is_for_a_cpu_and_an_attention_from_outside():
    model, tree = tiny_lm(9, hidden=16), collate([([1], [[2]])])
    decoder = model.get_decoder()
    assert flat.applies(decoder, tree)
    meta = SimpleNamespace(input_ids=tree.input_ids.to("meta"))
    assert not flat.applies(decoder, meta)
    for name, value in (("_attn_implementation", "eager"),):
        config = SimpleNamespace(**{name: value})
        assert not flat.applies(SimpleNamespace(config=config), tree)
    silent = SimpleNamespace(config=decoder.config, modules=lambda: [])
    assert not flat.applies(silent, tree)  # it does not say that it takes one
    silent._supports_attention_backend = True
    assert flat.applies(silent, tree)
    silent.modules = lambda: [SimpleNamespace(), SimpleNamespace(gradient_checkpointing=True)]
    assert not flat.applies(silent, tree)


def test_pads_of_the_flat_way_are_zeros_and_the_tokens_are_where_they_stood():
    model = tiny_lm(60, hidden=16).eval()
    tree = collate([([11, 12], [[21], [31, 32, 33]]), ([41], [[51, 52]])])
    with torch.no_grad():
        states = flat.hidden_states(model.get_decoder(), tree)
        alone = model.get_decoder()(input_ids=torch.tensor([[41, 51, 52]])).last_hidden_state[0]
    assert states.shape == (12, 16) and not states[9:].any()
    assert (states[6:9] - alone).abs().max() < 1e-5


# Sampling -----------------------------------------------------------------------------------------

END = 3


def draw(**options):
    options = {"max_new_tokens": 5, "stop_ids": [END], "seeds": 0} | options
    return sampling.sample(tiny_lm(9, hidden=16, context=32), [[1, 2], [4]], 2, **options)


@pytest.mark.parametrize("temperature", [float("inf"), float("nan"), -1.0, 0.0])
def test_a_temperature_is_positive_and_finite(temperature):
    with pytest.raises(SamplingError, match="must be positive"):
        draw(temperature=temperature)


def test_what_a_sample_says_of_itself():
    found = draw(temperature=0.5, top_p=1.0, training=True)
    assert (found.temperature, found.top_p) == (0.5, 1.0)
    assert len(found.responses) == len(found.logps) == len(found.ended) == 4
    assert [prompt for prompt, _ in found.groups] == [[1, 2], [4]]
    assert (draw().temperature, draw().top_p) == (1.0, 1.0)
    assert found.token_logps.shape == (sum(map(len, found.responses)),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_p": 1.1}, r"\(0, 1\]"),
        ({"max_rows": 0}, "max_rows=0"),
        ({"generator": torch.Generator()}, "either seeds"),
        ({"seeds": [(-1, 2), 3]}, "negative"),
    ],
)
def test_more_settings_that_make_no_sense(options, words):
    with pytest.raises(SamplingError, match=words):
        draw(**options)


def test_streams_of_numbers_belong_to_a_seed_a_prompt_and_a_response():
    found = sampling.uniforms(7, 3, 2, 4)
    assert found.shape == (6, 4) and found.dtype == torch.float64
    assert len({tuple(row) for row in found.tolist()}) == 6
    assert sampling.uniforms(np.int64(7), 3, 2, 4).equal(found)
    assert sampling.uniforms(7, 3, 5, 9)[5, :4].equal(found[2])  # more of both: the same stream
    ours = sampling.uniforms([(7, 1), 5], 2, 2, 4)
    assert ours[:2].equal(found[2:4])  # a seed in two parts, as one seed and a place
    assert ours[2:].equal(sampling.uniforms([5], 1, 2, 4))
    assert sampling.uniforms([0], 1, 1, 1).shape == (1, 1)


def test_somebody_elses_choice_is_what_is_written():
    asked = []

    def choose(logits, rows, step):
        asked.append((rows.tolist(), step, tuple(logits.shape)))
        token = torch.where(rows == 1, END, 5 + step)
        return token, -rows.to(logits.dtype)

    model = tiny_lm(9, hidden=16, context=32)
    found = sampling.sample_by(model, [[1, 2], [4]], 2, choose, max_new_tokens=3, stop_ids=[END])
    assert found.responses == [[5, 6, 7], [END], [5, 6, 7], [5, 6, 7]]
    assert found.ended == [False, True, False, False]
    assert [row.tolist() for row in found.logps] == [[0.0] * 3, [-1.0], [-2.0] * 3, [-3.0] * 3]
    assert asked == [([0, 1, 2, 3], 0, (4, 9)), ([0, 2, 3], 1, (3, 9)), ([0, 2, 3], 2, (3, 9))]


def test_a_nucleus_stops_at_the_token_that_fills_it():
    logps = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    for top_p, kept in ((0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (1.0, 4)):
        assert int(sampling.nucleus(logps, top_p).isfinite().sum()) == kept
    assert torch.allclose(sampling.nucleus(logps, 0.75).exp()[0, :2], torch.tensor([2 / 3, 1 / 3]))


# Memory and costs ---------------------------------------------------------------------------------


def test_a_container_that_holds_more_than_its_limit_has_nothing_free(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    for limit, used, free in (
        ("3000", "4000", 0),
        ("3000", "3000", 0),
        ("3001", "3000", 1),
        ("9000", "1000", 5000),
        ("max", "9000", 5000),
        ("many", "0", 5000),
    ):
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text(used)
        assert memory.free_memory("cpu") == free


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "0 MiB"),
        (2**20, "1 MiB"),
        (2**30 - 1, "1024 MiB"),
        (2**30, "1.0 GiB"),
        (3 * 2**29, "1.5 GiB"),
    ],
)
def test_bytes_become_words_at_a_gibibyte(n, words):
    assert memory.size(n) == words


def test_what_training_takes_is_said_beside_the_weights(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * 2**20)
    with pytest.raises(ModelTooLargeError) as caught:
        memory.check_room("m", 2**20, torch.bfloat16, {"cpu"}, 12)
    assert "take 2 MiB in bfloat16, and 12 MiB more to train them; 3 MiB are free" in str(
        caught.value
    )
    assert "Train an adapter instead (--lora 8), or take a smaller model" in str(caught.value)
    with pytest.raises(ModelTooLargeError, match="4 MiB in float32; 3 MiB are free. Take a"):
        memory.check_room("m", 2**20, torch.float32, {"cpu"})


SMALL = costs.Architecture(3, 8, 2, 1, 4, 20, 50, tied=True)


def test_sizes_of_a_small_decoder_by_hand():
    assert SMALL.matrices == {
        "q": (8, 8),
        "k": (8, 4),
        "v": (8, 4),
        "o": (8, 8),
        "gate": (8, 20),
        "up": (8, 20),
        "down": (20, 8),
    }
    layer = 64 + 32 + 32 + 64 + 3 * 160 + 16
    assert (SMALL.layer, SMALL.embedding) == (layer, 400)
    assert SMALL.parameters == 3 * layer + 8 + 400
    biased = costs.Architecture(3, 8, 2, 1, 4, 20, 50, bias=True)
    assert biased.layer == layer + 8 + 4 + 4 and biased.parameters == 3 * (layer + 16) + 8 + 800
    assert costs.adapter_parameters(SMALL, 2, ["q", "down"]) == 3 * 2 * (16 + 28)
    assert costs.cache_bytes(SMALL, 10) == 2 * 3 * 4 * 10 * 2


def test_operations_of_a_small_decoder_by_hand():
    groups = [(4, [3, 2]), (1, [1])]
    pairs = (8 + 3 * 4 + 4.5 + 2 * 4 + 2) + (0.5 + 1 + 0.5)
    once = 2 * 3 * SMALL.layer * 11 + 2 * 400 * 6 + 4 * 3 * 8 * pairs
    assert costs.forward_flops(SMALL, groups) == once
    assert costs.training_flops(SMALL, groups) == 3 * once
    down = 2 * 3 * 20 * 8 * 11
    again = once - 2 * 400 * 6 - down
    assert costs.training_flops(SMALL, groups, checkpointing=True) == 3 * once + again


def test_seconds_are_operations_or_bytes_by_the_share_of_the_peak():
    slow = costs.Accelerator(flops=1e6, bandwidth=1e12, memory=1e9)
    assert costs.training_seconds(2e6, slow, 1.0) == 2.0
    assert costs.training_seconds(2e6, slow) == pytest.approx(2.0 / 0.4)
    work = 2 * (3 * SMALL.layer + 400)
    seen = [4 * 3 * 8 * (5 + t) for t in range(2)]
    by_work = sum(3 * (work + s) / 1e6 for s in seen)
    options = {"utilisation": 0.5}
    assert costs.decoding_seconds(SMALL, 5, 2, 3, slow, **options) == pytest.approx(2 * by_work)
    thin = costs.Accelerator(flops=1e15, bandwidth=1e6, memory=1e9)
    read = [4 * SMALL.parameters + costs.cache_bytes(SMALL, 3 * (5 + t), 4) for t in range(2)]
    found = costs.decoding_seconds(SMALL, 5, 2, 3, thin, number=4, utilisation=1)
    assert found == pytest.approx(sum(read) / 1e6)
    for share in (0.0, -0.1, 1.01):
        with pytest.raises(InvalidHyperparameterError, match=r"\(0, 1\]"):
            costs.training_seconds(1.0, slow, share)


def test_memory_may_be_of_no_token_and_of_all_tokens():
    all_of_them = costs.training_memory(SMALL, 10, 10)
    assert all_of_them.head == 3 * 10 * 50 * 4
    assert costs.training_memory(SMALL, 10, 0).head == 0
    with pytest.raises(InvalidHyperparameterError, match="0 <= predicted"):
        costs.training_memory(SMALL, 10, -1)
    split = costs.training_memory(SMALL, 10, 5, processes=2, stage=3)
    assert split.weights == SMALL.parameters * 4 / 2 + SMALL.layer * 4
    assert costs.training_memory(SMALL, 10, 5, stage=3).weights == SMALL.parameters * 4


def test_the_width_of_a_head_may_be_its_own():
    config = tiny_lm(20, hidden=16, heads=2, kv_heads=1, layers=1).config
    assert costs.Architecture.of(config).head_size == 8
    config.head_dim = 6
    found = costs.Architecture.of(config)
    assert (found.head_size, found.heads, found.kv_heads) == (6, 2, 1)
    with pytest.raises(UnsupportedModelError, match="is not Llama or Qwen2"):
        costs.Architecture.of(SimpleNamespace())


# Models and tokenizers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["The bus was late."], 270)


def test_settings_of_a_small_model_are_those_asked_for(tokenizer):
    config = tiny_lm(tokenizer, hidden=24, layers=1, heads=2, context=77, tied=False).config
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (270, 24, 64)
    assert (config.num_hidden_layers, config.max_position_embeddings) == (1, 77)
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 2)
    assert config.tie_word_embeddings is False
    for name in ("pad", "bos", "eos"):
        own = getattr(tokenizer, f"{name}_token_id")
        assert own is not None and getattr(config, f"{name}_token_id") == own
    assert tiny_lm(9, hidden=16, heads=4, kv_heads=2).config.num_key_value_heads == 2
    assert tiny_lm(9, hidden=16, dtype=torch.float64).dtype == torch.float64
    for hidden, heads in ((8, 8), (12, 4)):  # pairs of coordinates must be left for each head
        with pytest.raises(UnsupportedModelError, match="multiple of twice"):
            tiny_lm(9, hidden=hidden, heads=heads)


def test_a_model_may_have_as_many_tokens_as_embeddings_and_no_fewer(tokenizer):
    models.check_fit(tiny_lm(270, hidden=16), tokenizer)
    with pytest.raises(TokenizerError, match="270 tokens and the model 269 embeddings"):
        models.check_fit(tiny_lm(269, hidden=16), tokenizer)


def test_parameters_are_counted_once_and_frozen_ones_if_asked():
    model = tiny_lm(9, hidden=16)
    whole = models.count_parameters(model)
    assert whole == sum(p.numel() for p in model.parameters())
    next(model.parameters()).requires_grad_(False)
    assert models.count_parameters(model) == whole
    assert models.count_parameters(model, trainable=True) == whole - 9 * 16


def test_loading_quietly_leaves_the_log_as_it_was():
    shown, log = (
        logging.is_progress_bar_enabled(),
        logging.get_logger("transformers.modeling_utils"),
    )
    filters = list(log.filters)
    with pytest.raises(ZeroDivisionError), models.quiet():
        assert not logging.is_progress_bar_enabled() and len(log.filters) == len(filters) + 1
        raise ZeroDivisionError
    assert logging.is_progress_bar_enabled() == shown and log.filters == filters
    logging.disable_progress_bar()
    try:
        with models.quiet():
            pass
        assert not logging.is_progress_bar_enabled()  # it was off before
    finally:
        if shown:
            logging.enable_progress_bar()


def test_what_is_in_a_folder_is_named_up_to_the_fifth(tmp_path):
    models.check_replaceable(tmp_path / "nowhere")
    models.check_replaceable(tmp_path)  # empty
    for name in "fedcba":
        (tmp_path / f"{name}.tex").touch()
    with pytest.raises(
        FolderInUseError, match=r"it holds a\.tex, b\.tex, c\.tex, d\.tex, e\.tex\)"
    ):
        models.check_replaceable(tmp_path)
    for adapter in ("config.json", "adapter_config.json"):
        (folder := tmp_path / f"of {adapter}").mkdir()
        (folder / "weights.safetensors").touch()
        with pytest.raises(FolderInUseError, match="no model"):
            models.check_replaceable(folder)
        (folder / adapter).touch()
        models.check_replaceable(folder)


def test_several_names_are_shown_up_to_the_fourth():
    assert models._some(set("dcba")) == "a, b, c, d"
    assert models._some(set("fedcba")) == "a, b, c, d and 2 more"


def test_an_adapter_has_the_rank_the_scale_and_the_places_asked_for():
    pytest.importorskip("peft")
    before = torch.get_rng_state()
    adapted = models.add_lora(tiny_lm(9, hidden=16), rank=3, alpha=5, targets=["q_proj"], seed=4)
    config = adapted.peft_config["default"]
    assert (config.r, config.lora_alpha, set(config.target_modules)) == (3, 5, {"q_proj"})
    assert config.task_type == "CAUSAL_LM"
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("q_proj.lora" in name for name in trained)
    assert torch.get_rng_state().equal(before)
    same, other = (
        models.add_lora(tiny_lm(9, hidden=16), rank=3, targets=["q_proj"], seed=seed)
        for seed in (4, 5)
    )
    first = [
        next(p for n, p in m.named_parameters() if "lora_A" in n) for m in (adapted, same, other)
    ]
    assert first[0].equal(first[1]) and not first[0].equal(first[2])


def test_a_tokenizer_may_be_as_small_as_its_bytes():
    assert len(train_tokenizer(["a"], tokenization.SMALLEST_VOCABULARY)) == 261
    with pytest.raises(TokenizerError, match="take 261 or more"):
        train_tokenizer(["a"], 260)


def test_all_listed_ends_stop_whoever_lists_them(tokenizer):
    eos = tokenizer.eos_token_id
    for listed in (7, [7], (7,)):
        config = SimpleNamespace(eos_token_id=listed)
        assert tokenization.stop_ids(tokenizer, SimpleNamespace(config=config)) == sorted({7, eos})
    none = SimpleNamespace(config=SimpleNamespace(eos_token_id=None), generation_config=None)
    assert tokenization.stop_ids(tokenizer, none) == tokenization.stop_ids(tokenizer) == [eos]


def test_a_toy_tokenizer_has_no_control_tokens():
    toy = SimpleNamespace(
        bos_token_id=None, decode=lambda ids, **_: "".join(chr(97 + i) for i in ids)
    )
    assert tokenization.control_ids(toy) == frozenset()
    assert tokenization.decode(toy, [0, 1]) == "ab"


def test_a_base_model_without_a_template_gets_a_line_of_report(tokenizer):
    assert tokenization.template_note(tokenizer) == []
    assert {tokenization.USER, tokenization.ASSISTANT} <= set(
        tokenizer.convert_ids_to_tokens(sorted(tokenization.turn_ids(tokenizer)))
    )
    bare = train_tokenizer(["The bus was late."], 270)
    bare.chat_template = None
    (line,) = tokenization.template_note(bare)
    assert "no chat template" in line and tokenization.turn_ids(bare) == set()
    bare.chat_template = ""
    assert tokenization.template_of(bare) is None


def test_a_beginning_is_written_once_whoever_writes_it(tokenizer):
    bos = tokenizer.bos_token_id
    for text in ("late", "<|bos|>late", "<|bos|><|bos|>late"):
        ids = tokenization.encode_prompt(tokenizer, text, raw=True)
        assert ids[0] == bos and ids.count(bos) == 1
    assert tokenization.encode_prompt(tokenizer, "", raw=True) == [bos]
    ids = tokenization.encode_prompt(tokenizer, "late")
    assert tokenization.decode(tokenizer, ids) == "late"
    assert tokenization.decode(tokenizer, ids, special=True) == "<|bos|><|user|>late<|assistant|>"


# All responses ------------------------------------------------------------------------------------


def small(seed=0, n_tokens=3, max_length=2):
    rng = np.random.default_rng(seed)
    names = [*"ab"[: n_tokens - 1], "."]
    return EnumerableLM.create(
        names, max_length, lambda p: rng.dirichlet(np.ones(n_tokens), size=len(p))
    )


def test_a_distribution_is_checked_to_the_tolerance_of_float32():
    fine = np.log([0.5, 0.5 + 0.9e-4])
    assert check_logps(fine).dtype == float
    for bad in (
        np.log([0.5, 0.5 + 1.1e-4]),
        np.log([0.5, 0.5 - 1.1e-4]),
        np.array([0.5, 0.5]),
        np.array([np.nan, 0.0]),
        np.array([2e-4, -20.0]),
    ):
        with pytest.raises(NotStochasticError, match="p must be log-probabilities"):
            check_logps(bad, "p")
    with pytest.raises(ShapeError, match="expected .responses"):
        check_logps(np.zeros((1, 1)))


def test_what_cannot_happen_does_not_count():
    log_p = np.array([0.0, -np.inf])
    assert expectation(log_p, [2.0, np.inf]) == 2.0
    assert kl_from_logps(log_p, np.log([0.5, 0.5])) == pytest.approx(np.log(2))
    with np.errstate(divide="ignore"):
        found = best_of_n(np.log([0.5, 0.5, 0.0]), [1.0, 2.0, 3.0], 2)
    np.testing.assert_allclose(np.exp(found), [0.25, 0.75, 0.0])
    assert best_of_n_kl_bound(1) == 0.0 and best_of_n_kl_bound(4) == pytest.approx(np.log(4) - 0.75)
    np.testing.assert_allclose(
        tilted(np.log([0.5, 0.5]), [0.0, 1.0], 0.5)[1], np.log(0.5 + np.e**2 / 2)
    )


def test_responses_are_picked_by_their_place_and_drawn_by_another_policy():
    lm = small()
    every = lm.response_ids()
    assert lm.response_ids([2, 0]) == [every[2], every[0]] == lm.response_ids(np.array([2, 0]))
    assert lm.response_ids([]) == []
    policy = np.tile([0.0, 1.0, 0.0], (lm.n_states, 1))
    drawn = lm.sample(5, np.random.default_rng(0), policy)
    assert [every[k] for k in drawn] == [[1, 1]] * 5
    assert lm.text(lm.responses[drawn[0]]) == "b b"
    rows = lm.prefix_log_probabilities()
    np.testing.assert_allclose(rows[1:4], np.log(lm.policy[0]))
    np.testing.assert_allclose(
        lm.prefix_chances(lm.sequence_log_probabilities()), np.exp(rows), atol=1e-12
    )


def test_the_smallest_tree_and_the_largest(monkeypatch):
    lm = EnumerableLM.create(["a", "."], 1, lambda p: np.full((1, 2), 0.5))
    assert lm.n_states == 3 and lm.responses.tolist() == [1, 2]
    monkeypatch.setattr("irlbook.lm.enumerable.MAX_STATES", 10)  # 1 + 3 (1 + 2)
    small(max_length=2)
    monkeypatch.setattr("irlbook.lm.enumerable.MAX_STATES", 9)
    with pytest.raises(InvalidHyperparameterError, match="make 10 prefixes; the limit is 9"):
        small(max_length=2)
    nearly = EnumerableLM.create(["a", "."], 1, lambda p: np.array([[0.5, 0.5 + 9e-6]]))
    assert nearly.policy[0].sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(InvalidPolicyError):
        EnumerableLM.create(["a", "."], 1, lambda p: np.array([[0.5, 0.5 + 2e-4]]))


def test_values_of_the_optimum_are_in_units_of_reward():
    lm = small(3)
    reward = np.random.default_rng(1).normal(size=len(lm.responses))
    found = lm.kl_optimum(reward, 0.3)
    assert found.values[0] == pytest.approx(0.3 * found.log_partition)
    assert not found.values[lm.responses].any()
    np.testing.assert_array_equal(found.policy[lm.responses], lm.policy[lm.responses])
    other = small(4).policy
    values = lm.prefix_values(reward, other)
    assert values[0] == pytest.approx(np.exp(lm.sequence_log_probabilities(other)) @ reward)
    slope = lm.policy_gradient(reward, other)
    table = TokenTable(lm, other)
    (table.log_probabilities().exp() * torch.tensor(reward)).sum().backward()
    np.testing.assert_allclose(slope, table.logits.grad.numpy(), atol=1e-12)


def test_a_table_may_be_of_another_policy_and_precision():
    lm, other = small(), small(1).policy
    table = TokenTable(lm, other, torch.float32)
    assert table.logits.dtype == torch.float32 and TokenTable(lm).logits.dtype == torch.float64
    live = lm.children[:, 0] >= 0
    np.testing.assert_allclose(table.policy()[live], other[live], atol=1e-6)
    with pytest.raises(ResponseError, match="writes tokens 0 to 2, .* at most 2 of them"):
        token_logps(table, collate([((0,), [[3]])]))
