"""From text to token ids and back, with the end token and the beginning token where they belong.

A prompt and its response are encoded apart and joined as ids. That is how a sampler meets them,
so training sees the same ids as sampling, whatever a tokenizer would merge across the border.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from irlbook.errors import TokenizerError

__all__ = [
    "ANCHORS",
    "BLANKS",
    "CHAT_TEMPLATE",
    "HIDE",
    "Message",
    "NO_BLANK_BEFORE",
    "PROBE",
    "SMALLEST_VOCABULARY",
    "SPECIAL",
    "check_chat_template",
    "control_ids",
    "decode",
    "encode_prompt",
    "encode_response",
    "end_id",
    "pad_id",
    "stop_ids",
    "template_note",
    "template_of",
    "train_tokenizer",
    "turn_ids",
]

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

Message = Mapping[str, Any]
"""{"role": "user" or "assistant", "content": text}"""

PROBE = "Qzx"  # a response that no template writes by itself
HIDE = "\ue000", "\ue001"  # of Unicode's private use
ANCHORS = ("a", ":", "\n")  # texts to stand before another
BLANKS = ("▁", "Ġ")
NO_BLANK_BEFORE = " \t\n,.;:!?)]}'’…%"


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

    Control tokens that are *written* in a message or a text stay text: nobody opens a turn of his
    own, or ends one.

    Args:
        prompt: messages, or a text. Where the tokenizer has a chat template, a text becomes one
            user message.
        raw: take a text as it stands, control tokens and all (a chat that is already rendered).

    Raises:
        TokenizerError: messages without a template, a prompt that ends with the assistant, an
            empty prompt where there is no BOS, or control tokens in a text that this tokenizer
            cannot keep apart from its own.
    """
    if isinstance(prompt, str) and raw:
        ids = _ids(tokenizer, prompt)
    elif isinstance(prompt, str) and not template_of(tokenizer):
        ids = _literal_ids(tokenizer, prompt)
    else:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        ids = _conversation_ids(tokenizer, messages)
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
    """Ids of a response as they stand behind a prompt, with the end token if it ended. Never a BOS.

    Control tokens that are *written* in the text stay text: no response can forge its own end.

    A SentencePiece tokenizer writes a blank before the first word of whatever it encodes. Here a
    response has one blank before it if it brings one, if the chat template puts one there, or, if
    there is no template, where a word begins: " yes" and "yes" are the same token.

    Args:
        ended: False for a response that was cut off: it must not teach the model to stop there.
    """
    if text and _puts_blank(tokenizer):
        border = _border(tokenizer, template_of(tokenizer))
        opens = border == "blank" or (border == "free" and text[0] not in NO_BLANK_BEFORE)
        if opens and text[0] != " ":
            text = " " + text
        ids = _ids_behind(tokenizer, text)
    else:
        ids = _literal_ids(tokenizer, text)
    return ids + [end_id(tokenizer)] if ended else ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special: bool = False) -> str:
    """The text of token ids; `special` keeps the control tokens visible.

    That of a response keeps the blank that it begins with, save where the chat template or the
    tokenizer puts one before every response: then it is not the response's own.
    """
    bos, ids = tokenizer.bos_token_id, list(ids)
    response = bool(ids) and ids[0] != bos and not special and _puts_blank(tokenizer)
    if not special:
        control = control_ids(tokenizer)
        ids = [i for i in ids if i not in control]
    if not response:
        return _text(tokenizer, ids)
    anchor = _ids(tokenizer, ANCHORS[0])
    text = _text(tokenizer, anchor + ids)[len(_text(tokenizer, anchor)) :]
    own = _border(tokenizer, template_of(tokenizer)) != "blank"
    return text if own else text.removeprefix(" ")


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response: what the chat template puts after it, else EOS.

    They differ in some models (Llama 3 ends a turn with <|eot_id|>, a text with <|end_of_text|>).
    It need not be flagged special: that the template writes it there is what makes it the end.

    Raises:
        TokenizerError: neither exists.
    """
    return _end_id(tokenizer, template_of(tokenizer), tokenizer.eos_token_id, _size(tokenizer))


@lru_cache(maxsize=16)
def _end_id(tokenizer: Any, template: str | None, eos: int | None, size: int) -> int:
    if template:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}]
        text = _render(tokenizer, messages, generation=False)
        rest = text[text.rindex(PROBE) + len(PROBE) :]
        marks = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        for token in _ids(tokenizer, rest):
            if token in marks:
                return token
    if eos is None:
        raise TokenizerError(
            "the tokenizer has no end token, so no response can end. Set tokenizer.eos_token."
        )
    return eos


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that steer and are not text: the special ones, and those between a chat's turns."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # a toy that only encodes and decodes
        return frozenset()
    return _control_ids(tokenizer, template_of(tokenizer), tokenizer.eos_token_id, _size(tokenizer))


def _size(tokenizer: Any) -> int:
    """Tokens, so that an answer is not kept when some are added."""
    return len(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else 0


@lru_cache(maxsize=16)
def _control_ids(
    tokenizer: Any, template: str | None, eos: int | None, size: int
) -> frozenset[int]:
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = special | set(tokenizer.all_special_ids) | turn_ids(tokenizer)
    with suppress(TokenizerError):
        found.add(_end_id(tokenizer, template, eos, size))
    return frozenset(found)


def turn_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Added tokens that the chat template writes between the messages of a conversation."""
    if not template_of(tokenizer):
        return set()
    added = tokenizer.added_tokens_decoder
    turns = [{"role": role, "content": PROBE} for role in ("user", "assistant", "user")]
    text = ""
    for asked in (turns, turns[:1]):  # some templates take one question only
        with suppress(TokenizerError):
            text = _render(tokenizer, asked)
            break
    return {i for i in _ids(tokenizer, text) if i in added and added[i].content.strip()}


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


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template; of several named ones, the one that is called default.

    Raises:
        TokenizerError: there are several, and none is called default.
    """
    found = tokenizer.chat_template
    if isinstance(found, list):  # as some files have them
        found = {one["name"]: one["template"] for one in found}
    if not isinstance(found, dict):
        return found or None
    if "default" not in found:
        raise TokenizerError(
            f"the tokenizer has the chat templates {', '.join(sorted(found)) or '(none)'} and none "
            "is called default. Choose one: "
            "tokenizer.chat_template = tokenizer.chat_template[NAME], and save the tokenizer."
        )
    return found["default"]


def template_note(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A line of report on a tokenizer without a chat template; none where there is one."""
    if template_of(tokenizer):
        return []
    return [
        "the model has no chat template, as a base model has none: prompts are texts that it goes "
        "on with, and no messages; set tokenizer.chat_template if it was trained on a chat"
    ]


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generation: bool = True
) -> str:
    template = template_of(tokenizer)
    if not template:
        raise TokenizerError(
            "the tokenizer has no chat template, so messages cannot be written as text. Set "
            "tokenizer.chat_template (irlbook.lm.tokenization.CHAT_TEMPLATE is a small one) and "
            "save the tokenizer into the model's folder, or give prompts that are one text."
        )
    if not messages or (generation and messages[-1]["role"] == "assistant"):
        raise TokenizerError(
            "a prompt is at least one message and does not end with the assistant's. Move the "
            "last message to the response."
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation,
            )
        )
    except Exception as error:  # jinja: whatever the template raises
        raise TokenizerError(f"the chat template refused the messages: {error}") from error


# Control tokens that somebody wrote ---------------------------------------------------------------


def _conversation_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Ids of a rendered prompt, in which control tokens are the template's own only."""
    pattern = _written(tokenizer)
    written: list[str] = []

    def hide(value: Any) -> Any:
        """The same message with stand-ins where a control token is written."""
        if isinstance(value, str):
            return pattern.sub(stand_in, value)
        if isinstance(value, Mapping):
            return {k: v if k == "role" else hide(v) for k, v in value.items()}
        return [hide(one) for one in value] if isinstance(value, list | tuple) else value

    def stand_in(match: re.Match[str]) -> str:
        written.append(match[0])
        return f"{HIDE[0]}{len(written) - 1}{HIDE[1]}"

    text = _render(tokenizer, [hide(message) for message in messages])
    if not written:
        return _ids(tokenizer, text)
    guarded, names = _guarded(tokenizer, control_ids(tokenizer), _size(tokenizer))
    for token, name in names.items():  # the longer ones first
        text = text.replace(token, name)
    text = re.sub(f"{HIDE[0]}(\\d+){HIDE[1]}", lambda match: written[int(match[1])], text)
    return list(guarded.encode(text, add_special_tokens=False).ids)


def _literal_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text in which nothing is a control token."""
    if not _written(tokenizer).search(text):
        return _ids(tokenizer, text)
    guarded, _ = _guarded(tokenizer, control_ids(tokenizer), _size(tokenizer))
    return list(guarded.encode(text, add_special_tokens=False).ids)


def _written(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Finds control tokens in a text (in any case: some tokenizers write everything small)."""
    return _pattern(tokenizer, control_ids(tokenizer), _size(tokenizer))


@lru_cache(maxsize=16)
def _pattern(tokenizer: Any, control: frozenset[int], size: int) -> re.Pattern[str]:
    names = tokenizer.convert_ids_to_tokens(sorted(control)) if control else []
    names = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or r"(?!)", re.IGNORECASE)


@lru_cache(maxsize=4)
def _guarded(
    tokenizer: Any, control: frozenset[int], size: int
) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer with its control tokens under names that nobody writes, and these names.

    All else is as it was: rules, merges, ids. A control token's usual name is a text like any
    other to it.

    Raises:
        TokenizerError: it is not one of the package `tokenizers`, so it cannot be rewritten.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise TokenizerError(
            f"a text holds a control token, and a {type(tokenizer).__name__} cannot tell it from "
            "its own. Remove the token from the text, or use a fast tokenizer (tokenizer.json)."
        )
    tokens = tokenizer.convert_ids_to_tokens(sorted(control))
    names = {
        token: f"{HIDE[0]}{chr(0xE100 + k)}{HIDE[1]}"
        for k, token in enumerate(sorted(tokens, key=len, reverse=True))
    }
    state = json.loads(backend.to_str())
    for one in state["added_tokens"]:
        one["content"] = names.get(one["content"], one["content"])
    model = state["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
    elif "vocab" in model:  # unigram: [piece, score]
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    state["post_processor"] = None  # no token is added here
    return Tokenizer.from_str(json.dumps(state)), names


# The blank before a word --------------------------------------------------------------------------


def _puts_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a blank before whatever it encodes, as SentencePiece does."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return False
    first = tokenizer.convert_ids_to_tokens(_ids(tokenizer, ANCHORS[0]))[:1]
    return bool(first) and str(first[0]).startswith(BLANKS)


@lru_cache(maxsize=16)
def _border(tokenizer: Any, template: str | None) -> Literal["free", "blank", "none"]:
    """What stands between a prompt and its response: the writer's choice, a blank, or nothing."""
    if not template:
        return "free"
    question = [{"role": "user", "content": "a"}]
    prompt = _ids(tokenizer, _render(tokenizer, question))
    text = _render(
        tokenizer, [*question, {"role": "assistant", "content": PROBE}], generation=False
    )
    whole = _ids(tokenizer, text[: text.rindex(PROBE) + len(PROBE)])
    first = tokenizer.convert_ids_to_tokens(whole[len(prompt) :])[:1]
    if whole[: len(prompt)] == prompt and first and not str(first[0]).startswith(BLANKS):
        return "none"
    return "blank"


def _ids_behind(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text in the middle of another, without a blank that is not in it."""
    for anchor in ANCHORS:
        before = _literal_ids(tokenizer, anchor)
        whole = _literal_ids(tokenizer, anchor + text)
        if whole[: len(before)] == before and (
            _text(tokenizer, whole) == _text(tokenizer, before) + text
        ):
            return whole[len(before) :]
    return _literal_ids(tokenizer, text.removeprefix(" "))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
