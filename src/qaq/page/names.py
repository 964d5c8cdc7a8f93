"""The names by which readers know the kinds of planted damage, in a fixed order."""

DEFECTS = {
    "clean": "clean",
    "swapped_answer": "swapped answer",
    "echo": "echo",
    "invented_terms": "invented terms",
    "truncated": "truncated",
    "not_code": "not code",
    "partial_mismatch": "partial mismatch",
    "neighbour_answer": "neighbour's answer",
    "wrong_constant_or_operator": "wrong token",
    "template_answer": "template answer",
    "placeholder": "placeholder",
    "rebuilt_question": "rebuilt question",
    "other_natural_language": "other human language",
    "other_programming_language": "other code language",
    "wrong_code": "wrong code, same words",
    "equivalent_code": "equivalent code",
    "hallucinated": "hallucinated term",
    "renamed_term": "renamed term",
    "known_terms": "known terms",
    "paraphrase_echo": "paraphrased echo",
    "described_code": "described code",
}


def order_defects(names: set[str]) -> list[str]:
    """Names of defects in a fixed order; unknown ones last."""
    return [d for d in DEFECTS if d in names] + sorted(names - set(DEFECTS))
