"""Whether a tokenizer fits its model and keeps code as it is; checked at every load."""

import string

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.host.errors import ModelError
from qaq.models.template import text_ids
from qaq.models.weights import several

# Indentation, tabs, runs of spaces, empty lines, and every printable character of ASCII.
CODE = (
    'def add(a, b):\n    """Sum."""\n\n    if a  ==  b:\n\t\treturn A + B\n\n\nx = [1,\t2]\n',
    "    for Key in items:\n        if Key:\n            break\n",
    f"s = {string.printable[:94]}\n",
)


def refuse_lossy(tokenizer: PreTrainedTokenizerBase, label: str) -> None:
    """Refuse a tokenizer that does not give code back as it was.

    A single space at the very beginning may come or go (SentencePiece puts one there); nothing else
    may: indentation is meaning in Python.

    Raises:
        ModelError: with the text that went in and what came back.
    """
    for text in CODE:
        back = tokenizer.decode(text_ids(tokenizer, text), clean_up_tokenization_spaces=False)
        if back not in (text, f" {text}", text.removeprefix(" ")):
            pairs = enumerate(zip(text, back, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(back)))
            raise ModelError(
                f"{label}: the tokenizer does not give code back as it was: {_near(text, at)} came "
                f"back as {_near(back, at)}. Scores and training would be of another text; use the "
                "tokenizer files that belong to the model (tokenizer.json)"
            )


def refuse_unknown(tokenizer: PreTrainedTokenizerBase, rows: int, label: str) -> None:
    """Refuse a tokenizer with tokens for which the model's embedding has no row.

    Raises:
        ModelError: with those tokens.
    """
    if len(tokenizer) <= rows:  # ids without gaps, as nearly all are
        return
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if beyond:
        raise ModelError(
            f"{label}: the tokenizer has {len(beyond)} tokens for which the model's embedding of "
            f"{rows} rows has none: {several(repr(token) for _, token in beyond)}. Call "
            "resize_token_embeddings on the model, train and save it, or take them out of the "
            "tokenizer"
        )


def _near(text: str, at: int) -> str:
    start = max(0, at - 12)
    return repr(text[start : at + 24])
