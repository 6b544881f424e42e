"""Scripts of texts against the names that Unicode gives their letters."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.scripts import SCRIPTS, dominant_scripts
from sparsedistill.text.buffers import TextBuffer

SAMPLES = {
    "A gripping film!": "latin",
    "Überraschend, žluťoučký kůň, ﬁlm": "latin",
    "ＦＵＬＬ ｗｉｄｔｈ": "latin",
    "Καλημέρα κόσμε ἀρχή": "greek",
    "Отличный фильм": "cyrillic",
    "סרט מצוין": "hebrew",
    "فيلم رائع": "arabic",
    "बहुत अच्छी फिल्म": "indic",
    "நல்ல படம்": "indic",
    "หนังดีมาก": "thai",
    "정말 좋은 영화": "hangul",
    "とてもよいデス": "kana",
    "ﾃﾞｽ": "kana",
    "房间很干净，服务也好。": "han",
    "𠀋𠮟": "han",
    "🙂🎬👍": "emoji",
    "ფილმი": "other",
    "": "none",
    " 12.50 € – «!?» … 、。": "none",
    "film 很": "latin",
    "很好 a": "han",
}


@pytest.mark.parametrize(("text", "script"), SAMPLES.items(), ids=SAMPLES.values())
def test_a_text_has_the_script_of_most_of_its_letters(text, script):
    assert SCRIPTS[dominant_scripts(TextBuffer.from_strings([text]))[0]] == script


def test_rows_are_independent_of_one_another():
    found = dominant_scripts(TextBuffer.from_strings(list(SAMPLES)))
    assert [SCRIPTS[i] for i in found] == list(SAMPLES.values())


WORDS = {
    "LATIN": "latin",
    "GREEK": "greek",
    "CYRILLIC": "cyrillic",
    "HEBREW": "hebrew",
    "ARABIC": "arabic",
    "DEVANAGARI": "indic",
    "BENGALI": "indic",
    "TAMIL": "indic",
    "THAI": "thai",
    "HANGUL": "hangul",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "CJK UNIFIED": "han",
}


def test_letters_of_the_large_scripts_are_taken_for_what_they_are():
    planes = [*range(0x10000), *range(0x20000, 0x30000)]  # not the historic and mathematical ones
    letters = [chr(c) for c in planes if unicodedata.category(chr(c)) in {"Lu", "Ll", "Lo"}]
    found = dominant_scripts(TextBuffer.from_strings(letters))
    for word, script in WORDS.items():
        of_script = [i for i, c in enumerate(letters) if unicodedata.name(c, "").startswith(word)]
        right = sum(SCRIPTS[found[i]] == script for i in of_script)
        assert right / len(of_script) > 0.95, word  # a few lie in blocks far from the rest


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_do_no_harm(data):
    buffer = TextBuffer(np.frombuffer(data, np.uint8), np.array([0, len(data)]))
    assert 0 <= dominant_scripts(buffer)[0] < len(SCRIPTS)
