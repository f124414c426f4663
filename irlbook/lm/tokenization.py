"""From text to token ids and back, with the end token and the beginning token where they belong.

A prompt and its response are encoded apart and joined as ids. That is how a sampler meets them,
so training sees the same ids as sampling, whatever a tokenizer would merge across the border.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from irlbook.errors import TokenizerError

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BOS, EOS, USER, ASSISTANT)
SMALLEST_VOCABULARY = 256 + len(SPECIAL)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}" + ASSISTANT + "{% generation %}"
    "{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('roles are user and assistant') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)

Message = Mapping[str, str]
"""{"role": "user" or "assistant", "content": text}"""


def train_tokenizer(texts: Iterable[str], vocab_size: int = 330) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: any text can be written, and comes back as it was.

    Pad, beginning and end are three distinct tokens. The same texts give the same tokenizer.

    Args:
        texts: what to learn the merges from.
        vocab_size: all tokens: 256 bytes, 5 special ones, the rest merges.

    Raises:
        TokenizerError: a vocabulary too small for the bytes.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"vocab_size={vocab_size} does not hold the 256 bytes and {len(SPECIAL)} special "
            f"tokens; take {SMALLEST_VOCABULARY} or more."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[Message], *, raw: bool = False
) -> list[int]:
    """Ids of a prompt, ready for the model to answer: one BOS at most, generation prompt appended.

    Args:
        prompt: messages, or a text. Where the tokenizer has a chat template, a text becomes one
            user message.
        raw: take a text as it stands (a document to continue, a chat that is already rendered).

    Raises:
        TokenizerError: messages without a template, a prompt that ends with the assistant, or an
            empty prompt where there is no BOS.
    """
    if isinstance(prompt, str) and (raw or not tokenizer.chat_template):
        text = prompt
    else:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = _render(tokenizer, messages, generation=True)
    ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    bos = tokenizer.bos_token_id
    if bos is not None:
        habit = list(tokenizer("").input_ids)[:1] == [bos]  # does it put BOS before plain text?
        had = ids[:1] == [bos]
        while ids[:1] == [bos]:
            ids.pop(0)
        if habit or had or not ids:
            ids.insert(0, bos)
    if not ids:
        raise TokenizerError(
            "the prompt is empty and the tokenizer has no beginning token, so nothing predicts "
            "the first token of a response. Give a prompt, or set tokenizer.bos_token."
        )
    return ids


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, ended: bool = True) -> list[int]:
    """Ids of a response, with the end token if it ended. Never a BOS.

    Special tokens that are *written* in the text stay text: no response can forge its own end.

    Args:
        ended: False for a response that was cut off: it must not teach the model to stop there.
    """
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
    return ids + [end_id(tokenizer)] if ended else ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special: bool = False) -> str:
    """The text of token ids; `special` keeps the special tokens visible."""
    return tokenizer.decode(
        list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response: what the chat template puts after it, else EOS.

    They differ in some models (Llama 3 ends a turn with <|eot_id|>, a text with <|end_of_text|>).

    Raises:
        TokenizerError: neither exists.
    """
    return _end_id(tokenizer, tokenizer.chat_template, tokenizer.eos_token_id)


@lru_cache(maxsize=16)
def _end_id(tokenizer: Any, template: Any, eos: int | None) -> int:
    if template:
        said = "ok"
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
        text = _render(tokenizer, messages, generation=False)
        rest = text[text.rindex(said) + len(said) :]
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        for token in tokenizer(rest, add_special_tokens=False).input_ids:
            if token in special:
                return token
    if eos is None:
        raise TokenizerError(
            "the tokenizer has no end token, so no response can end. Set tokenizer.eos_token."
        )
    return eos


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any = None) -> list[int]:
    """All tokens that end a response, sorted: the turn's end, EOS, and those the model lists.

    Sampling with EOS alone runs on to the limit in models that list several end tokens.
    """
    found = {end_id(tokenizer), tokenizer.eos_token_id}
    for config in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        listed = getattr(config, "eos_token_id", None)
        found.update(listed if isinstance(listed, list | tuple) else [listed])
    return sorted(found - {None})


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to fill rows up with: pad, else EOS, else 0. Masks come from lengths, never from it."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    return 0


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a prompt's ids are a prefix of the ids of the prompt with its answer.

    If they are not, a model trained on whole conversations never saw the prompts that it is
    sampled from.

    Raises:
        TokenizerError: there is no template, or it breaks the prefix.
    """
    question = [{"role": "user", "content": "Who is there?"}]
    answer = [{"role": "assistant", "content": "A friend."}]
    prompt = encode_prompt(tokenizer, question)
    text = _render(tokenizer, question + answer, generation=False)
    whole = encode_prompt(tokenizer, text, raw=True)
    joined = prompt + encode_response(tokenizer, "A friend.")
    if whole[: len(joined)] != joined:
        raise TokenizerError(
            "the chat template writes a prompt differently once it is answered:\n"
            f"  prompt + answer: {decode(tokenizer, joined, special=True)!r}\n"
            f"  conversation:    {decode(tokenizer, whole, special=True)!r}\n"
            "Set tokenizer.chat_template to one whose generation prompt is what it puts before "
            "an answer."
        )


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generation: bool
) -> str:
    if not tokenizer.chat_template:
        raise TokenizerError(
            "the tokenizer has no chat template, so messages cannot be written as text. Set "
            "tokenizer.chat_template (irlbook.lm.tokenization.CHAT_TEMPLATE is a small one), or "
            "pass the prompt as one text."
        )
    if not messages or (generation and messages[-1]["role"] == "assistant"):
        raise TokenizerError(
            "a prompt is at least one message and does not end with the assistant's. Move the "
            "last message to the response."
        )
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation
        )
    except Exception as error:  # jinja: whatever the template raises
        raise TokenizerError(f"the chat template refused the messages: {error}") from error
