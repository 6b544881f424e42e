"""What the tests of n-grams share: texts that are hard to tokenise, and scikit-learn as judge."""

from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from sparsedistill.text.ngram_spec import TOKEN_PATTERNS, NgramSpec

SPECS = [
    NgramSpec(),
    NgramSpec("word", 2, 3),
    NgramSpec("whitespace", 1, 3),
    NgramSpec("character", 1, 4),
    NgramSpec("character", 2, 2),
]

# Sigmas among cased, uncased and ignorable characters (some, as U+0345, both); characters whose
# lower form is longer or shorter, in bytes or in characters; combining marks and joiners; every
# kind of space, also those that only str.isspace knows (U+001C, U+0085); digits of all sorts.
_SIGMAS = "ΣΣΣσςAbaΩ.'·:\u00ad\u0345\u0301\u0307 1_ʰǅ"
_LOWERING = "İIıiẞßKÅȺⱥꞍΣ\u0307 aB"
_ASCII = "abAB_09 -'.\n\t\x1c\x00"
_SPACES = "\u0085\u00a0\u1680\u2003\u2028\u3000\u200b a\u0660²Ⅷ一あ한🙂"
_ASTRAL = "𐐀𐐨𝐀𞤀😀𠀀Σa \U0010ffff"

alphabets = st.sampled_from([_SIGMAS, _LOWERING, _ASCII, _SPACES, _ASTRAL])
texts = st.one_of(
    st.text(max_size=60),
    alphabets.flatmap(lambda alphabet: st.text(alphabet, max_size=60)),
    st.text("".join([_SIGMAS, _LOWERING, _ASCII, _SPACES, _ASTRAL]), max_size=80),
)
# Few words, so that n-grams come again.
sentences = st.lists(
    st.sampled_from(["the", "The", "film", "was", "a", "ΟΔΟΣ", "İzmir", "don't", "very", "x1"]),
    max_size=25,
).map(" ".join)
corpora = st.lists(st.one_of(sentences, texts), max_size=8)
specs = st.sampled_from(SPECS)


def vectorizer(spec, **options):
    return CountVectorizer(
        analyzer="word",
        lowercase=True,
        token_pattern=TOKEN_PATTERNS[spec.tokenizer],
        ngram_range=(spec.min_n, spec.max_n),
        **options,
    )
