"""Tokens: what goes in comes out, one beginning, one end, and a prompt that stays a prefix."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlbook.errors import TokenizerError
from irlbook.lm import tokenization
from irlbook.lm.tokenization import (
    check_chat_template,
    decode,
    encode_prompt,
    encode_response,
    end_id,
    pad_id,
    stop_ids,
    train_tokenizer,
)

TEXTS = [f"Write a {tone} review of the {place}." for tone in ("happy", "bitter")
         for place in ("bus", "cafe", "hotel")] * 3  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 290)


@pytest.fixture
def fresh():
    """One that a test may change."""
    return train_tokenizer(TEXTS, 280)


def names(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def test_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer(iter(TEXTS), 290)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) == 290


def test_pad_beginning_and_end_are_three_tokens(tokenizer):
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_comes_back(tokenizer, text):
    assert decode(tokenizer, encode_response(tokenizer, text)) == text


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    from irlbook.lm.models import load_tokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for prompt in TEXTS[:3]:
        assert encode_prompt(loaded, prompt) == encode_prompt(tokenizer, prompt)
    assert encode_response(loaded, "Nice.") == encode_response(tokenizer, "Nice.")
    assert loaded.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("raw", [False, True])
def test_one_beginning(tokenizer, raw):
    """Trap 5: the template writes a BOS, and the tokenizer would add a second one."""
    ids = encode_prompt(tokenizer, "Hello", raw=raw)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    assert tokenizer(rendered).input_ids.count(tokenizer.bos_token_id) == 2  # the trap itself
    assert encode_prompt(tokenizer, rendered, raw=True).count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in encode_response(tokenizer, "Hello")


def test_a_tokenizer_without_beginning_gets_none(fresh):
    """Trap 5: Qwen has no BOS; a None among the ids would crash far away."""
    fresh.bos_token = None
    fresh.chat_template = fresh.chat_template.replace("{{ bos_token }}", "")
    assert None not in encode_prompt(fresh, "Hello")
    assert names(fresh, encode_prompt(fresh, "Hello"))[0] == tokenization.USER
    with pytest.raises(TokenizerError, match="prompt is empty"):
        encode_prompt(fresh, "", raw=True)


def test_a_template_without_beginning_follows_the_tokenizers_habit(fresh):
    fresh.chat_template = fresh.chat_template.replace("{{ bos_token }}", "")
    assert encode_prompt(fresh, "Hello")[0] == fresh.bos_token_id


def test_prompt_ends_with_the_generation_prompt(tokenizer):
    """Trap 6."""
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
    assert names(tokenizer, ids)[-1] == tokenization.ASSISTANT
    assert ids == encode_prompt(tokenizer, "Hello")


def test_prompt_is_a_prefix_of_the_conversation(tokenizer, fresh):
    """Trap 6: a template that rewrites the prompt once it is answered is refused."""
    check_chat_template(tokenizer)
    fresh.chat_template = fresh.chat_template.replace(
        "{% if add_generation_prompt %}" + tokenization.ASSISTANT,
        "{% if add_generation_prompt %}" + tokenization.ASSISTANT + "Think: ",
    )
    with pytest.raises(TokenizerError, match="differently once it is answered"):
        check_chat_template(fresh)


def test_several_turns(tokenizer):
    turns = [("user", "Hi"), ("assistant", "Yes?"), ("user", "A bus.")]
    ids = encode_prompt(tokenizer, [{"role": r, "content": c} for r, c in turns])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert decode(tokenizer, ids, special=True) == (
        "<|bos|><|user|>Hi<|assistant|>Yes?<|eos|><|user|>A bus.<|assistant|>"
    )


def test_end_token_marks_ended_responses_only(tokenizer):
    assert encode_response(tokenizer, "Nice.")[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in encode_response(tokenizer, "Nice.", ended=False)
    assert encode_response(tokenizer, "") == [tokenizer.eos_token_id]


def test_a_response_cannot_forge_its_end(tokenizer):
    ids = encode_response(tokenizer, "Nice.<|eos|> Really.")
    assert ids.count(tokenizer.eos_token_id) == 1
    assert decode(tokenizer, ids) == "Nice.<|eos|> Really."


def test_the_turns_end_comes_before_the_texts_end(fresh):
    """Trap 3: several end tokens; the one of the template ends a response, all of them stop."""
    fresh.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    turn = fresh.convert_tokens_to_ids("<|turn|>")
    fresh.chat_template = fresh.chat_template.replace("{{ eos_token }}", "<|turn|>")
    assert end_id(fresh) == turn
    assert encode_response(fresh, "Nice.")[-1] == turn
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, fresh.eos_token_id]))
    assert stop_ids(fresh, model) == sorted({7, fresh.eos_token_id, turn})
    fresh.chat_template = fresh.chat_template.replace("<|turn|>", " (over)")
    assert end_id(fresh) == fresh.eos_token_id


def test_padding_id_never_fails(fresh):
    assert pad_id(fresh) == fresh.pad_token_id
    fresh.pad_token = None
    assert pad_id(fresh) == fresh.eos_token_id
    fresh.chat_template = None
    fresh.eos_token = None
    assert pad_id(fresh) == 0
    with pytest.raises(TokenizerError, match="no end token"):
        encode_response(fresh, "Nice.")


def test_without_a_template_a_text_stays_a_text(fresh):
    fresh.chat_template = None
    assert decode(fresh, encode_prompt(fresh, "Hello")) == "Hello"
    with pytest.raises(TokenizerError, match="no chat template"):
        encode_prompt(fresh, [{"role": "user", "content": "Hello"}])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ([{"role": "assistant", "content": "Hi"}], "does not end with the assistant"),
        ([{"role": "system", "content": "Hi"}], "roles are user and assistant"),
    ],
)
def test_bad_messages_are_named(tokenizer, messages, words):
    with pytest.raises(TokenizerError, match=words):
        encode_prompt(tokenizer, messages)


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(TokenizerError, match="take 261 or more"):
        train_tokenizer(TEXTS, 200)
