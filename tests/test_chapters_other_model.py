"""Chapters 11 to 15 run to their end on a model of another family, as `IRLBOOK_MODEL` promises.

Two of them run each time, a reward model's and DPO's. `IRLBOOK_OTHER_MODEL=all` runs all five.
"""

import os
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from irlbook.authoring import notebooks
from irlbook.lm.tokenization import EOS, SPECIAL
from irlbook.posttraining import book_models

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
END = "<|endoftext|>"
LONGEST_CELL = 1200  # seconds: no run of another model is stored, so all seeds run here


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A random GPT-NeoX: its only special token is its end, which is its pad; no chat template."""
    own = book_models.tokenizer()
    text = own.backend_tokenizer.to_str()
    for token in SPECIAL:
        text = text.replace(token, END if token == EOS else token.strip("<|>") * 3)
    plain = Tokenizer.from_str(text)
    plain.post_processor = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=END, pad_token=END)
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("stranger")
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_stranger_has_the_traps_that_the_books_model_has_not(stranger):
    tokenizer = transformers.AutoTokenizer.from_pretrained(stranger)
    assert tokenizer.pad_token == tokenizer.eos_token == END
    assert tokenizer.chat_template is None and tokenizer.bos_token is None


ALL = os.environ.get("IRLBOOK_OTHER_MODEL") == "all"


@pytest.mark.parametrize("number", ["11", "12", "13", "14", "15"] if ALL else ["11", "14"])
def test_a_chapter_runs_to_its_end(number, stranger, tmp_path, monkeypatch):
    monkeypatch.setenv("IRLBOOK_MODEL", str(stranger))
    monkeypatch.setenv("IRLBOOK_CACHE", str(tmp_path))
    (path,) = CHAPTERS.glob(f"{number}_*.ipynb")
    done = notebooks.execute(path, out=tmp_path / path.name, timeout=LONGEST_CELL).notebook
    assert all(c.execution_count for c in done.cells if c.cell_type == "code" and c.source)
