"""A BERT with two layers of width 32 and a WordPiece vocabulary of a given word list, made offline.

It is a masked-language-model-shaped body without a head for the task, as a hub checkpoint would be:
fine-tuning gives it one. ``labels`` makes it a finished classifier with those labels instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_tiny_bert(
    directory: Path, words: Iterable[str], *, labels: Sequence[str] = (), seed: int = 0
) -> Path:
    """Write model and tokenizer as ``save_pretrained`` does; returns the directory."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        PreTrainedTokenizerFast,
    )

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys([*SPECIAL, *pieces, *sorted(words)]))
    tokenizer = Tokenizer(
        WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, padding_side="right", **names
    ).save_pretrained(directory)
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if labels:
        config = BertConfig(
            **shape,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        BertForSequenceClassification(config).save_pretrained(directory)
    else:
        BertModel(BertConfig(**shape)).save_pretrained(directory)
    return directory
