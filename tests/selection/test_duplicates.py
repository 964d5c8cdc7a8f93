"""Near-duplicates against a slow reference over Python sets."""

import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.selection import duplicates, repeats
from qaq.selection.duplicates import near_duplicates
from qaq.selection.hashing import mix
from qaq.selection.repeats import NOT_DUPLICATE
from qaq.selection.shingles import _mix, fill_buckets, shingles
from qaq.selection.texts import Texts

texts = st.lists(st.text("abé _1.\n", max_size=40), max_size=12)


def slow_set(text):
    words = re.findall(rb"[0-9a-z_\x80-\xff]+", text.encode())
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))} if words else set()


def found_in(rows, jaccard):
    """The near-duplicates among one column of texts."""
    return near_duplicates(in_order(rows), np.ones(len(rows), np.bool_), jaccard)


def hashed_in(table):
    """The shingles of each row."""
    found, sizes = shingles(table, np.arange(len(table)))
    return [part.tolist() for part in np.split(found, np.cumsum(sizes))[:-1]]


def in_order(*chunks):
    table = pa.table({"text": pa.chunked_array(chunks, pa.string())})
    return Texts(in_memory(table), np.arange(len(table)))


def in_memory(*runs):
    return SimpleNamespace(sizes=[len(run) for run in runs], read=runs.__getitem__)


def slow_near_duplicates(rows, jaccard):
    sets, kept, out = [slow_set(row) for row in rows], [], []
    for i, mine in enumerate(sets):
        same = [k for k in kept if mine and len(mine & sets[k]) / len(mine | sets[k]) >= jaccard]
        out.append(same[0] if same else NOT_DUPLICATE)
        if not same:
            kept.append(i)
    return out


@settings(deadline=None)
@given(texts)
def test_shingles_are_the_runs_of_five_words(rows):
    expected = [slow_set(row) for row in rows]
    hashed = [set(found) for found in hashed_in(pa.table({"text": pa.array(rows, pa.string())}))]
    assert [len(s) for s in hashed] == [len(s) for s in expected]
    for i in range(len(rows)):
        for j in range(i):
            assert len(hashed[i] & hashed[j]) == len(expected[i] & expected[j])


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 40])
def test_a_word_of_any_length_counts_whole_wherever_it_stands(length):
    word = "".join(chr(97 + n % 26) for n in range(length))
    others = [word[:n] + "0" + word[n + 1 :] for n in range(length)]
    others += [word[:n] + " " + word[n + 1 :] for n in range(length)] + [f"{word}x", f"x{word}"]
    rows = [word, f" {word}", f"{word} ", f"({word.upper()})", *others, *("next", word)]
    hashed = [set(found) for found in hashed_in(pa.table({"text": rows}))]
    assert hashed[0] == hashed[1] == hashed[2] == hashed[3] == hashed[-1]
    assert all(hashed[0] != hashed[4 + n] for n in range(len(others)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), max_size=10))
def test_every_duplicate_found_is_one_and_exact_copies_are_all_found(rows):
    rows = [" ".join(f"w{word}" for word in row) for row in rows]
    found = found_in(rows, 0.8).tolist()
    assert found == slow_near_duplicates(rows, 0.8)


def test_the_runs_and_the_order_of_the_file_do_not_show():
    rng = np.random.default_rng(0)
    rows = [" ".join(f"w{w}" for w in rng.integers(0, 4, 30)) for _ in range(200)] * 2
    whole = found_in(rows, 0.7)
    place = rng.permutation(400)
    table = pa.table({"text": pa.array([rows[i] for i in place])})
    runs = [table[:7], table[7:7], table[7:150], table[150:]]
    parts = near_duplicates(Texts(in_memory(*runs), place), np.ones(400, np.bool_), 0.7)
    assert whole.tolist() == parts.tolist()
    assert (whole[200:] != NOT_DUPLICATE).all()


@pytest.mark.parametrize("jaccard", [0.4, 0.6, 0.8])
def test_candidates_are_found_as_often_as_the_theory_says(jaccard):
    # Two texts of 204 words with a known overlap, 120 times: 1 - (1 - s^4)^10, five standard errors
    shared = round(400 * jaccard / (1 + jaccard))
    actual = shared / (400 - shared)
    found = 0
    for time in range(120):
        words = [f"w{time}x{n}" for n in range(408 - shared - 4)]
        texts = [" ".join(words[:204]), " ".join(words[-204:])]
        in_buckets = np.zeros((10, 2), np.uint64)
        fill_buckets(pa.table({"text": texts}), np.arange(2), in_buckets)
        found += bool((in_buckets[:, 0] == in_buckets[:, 1]).any())
    expected = 1 - (1 - actual**4) ** 10
    error = np.sqrt(expected * (1 - expected) / 120)
    assert abs(found / 120 - expected) <= 5 * error + 0.01


def test_a_changed_word_in_a_long_text_is_a_near_duplicate_and_another_text_is_not():
    rng = np.random.default_rng(2)
    words = [f"w{w}" for w in rng.integers(0, 3000, 150)]
    changed = [*words[:70], "changed", *words[71:]]
    other = [f"w{w}" for w in rng.integers(0, 3000, 150)]
    rows = [" ".join(row) for row in (words, other, changed)]
    assert found_in(rows, 0.8).tolist() == [-1, -1, 0]


@pytest.mark.parametrize("jaccard", [0.6, 0.7, 0.8, 0.9, 1.0])
def test_a_pair_at_the_threshold_is_overlooked_once_in_a_thousand_at_most(jaccard):
    bands = duplicates._bands(jaccard)
    assert (1 - jaccard**4) ** bands <= 1e-3
    assert bands == 1 or (1 - jaccard**4) ** (bands - 1) > 1e-3


def test_rows_that_do_not_count_repeat_nothing_and_are_not_repeated():
    among = np.array([False, True, False, True])
    assert near_duplicates(in_order(["a b c d e f"] * 4), among, 0.8).tolist() == [-1, -1, -1, 1]


def test_what_many_texts_begin_with_brings_no_two_of_them_together(monkeypatch):
    rng = np.random.default_rng(3)
    preamble = " ".join(f"p{n}" for n in range(40))
    own = [" ".join(f"u{n}" for n in rng.integers(0, 10**9, 20)) for _ in range(300)]
    compared = []
    reaches = repeats._reaches
    monkeypatch.setattr(repeats, "_compare", repeats._compare.py_func)
    monkeypatch.setattr(repeats, "_reaches", lambda *sets: compared.append(sets) or reaches(*sets))
    found = found_in([f"{preamble} {text}" for text in [*own, own[7]]], 0.8)
    assert (found[:300] == NOT_DUPLICATE).all() and found[300] == 7
    assert 1 <= len(compared) < 10  # of 45,000 pairs


def test_a_slice_of_a_table_has_its_own_shingles():
    rows = pa.table({"text": ["a b c d e f", "Über ab cd", "x y z a b c d"]})
    whole = hashed_in(rows)
    assert hashed_in(rows.slice(1)) == whole[1:]
    plain = pa.table({"text": ["no", "X y Z a b c d", "none"]})
    assert hashed_in(plain.slice(1, 1)) == whole[2:]


def test_a_word_ends_with_its_column_and_shingles_go_on_into_the_next():
    one = pa.table({"question": ["a b c d e"], "answer": ["f g"]})
    other = pa.table({"question": ["a b c d"], "answer": ["e f g"]})
    assert hashed_in(one) == hashed_in(other)
    assert len(hashed_in(one)[0]) == 3


@pytest.mark.parametrize("question", ["", "a b c", "Ä b c"])
@pytest.mark.parametrize("answer", ["", "d E f"])
def test_a_column_may_be_empty_or_beyond_ascii_beside_one_that_is_not(question, answer):
    two = pa.table({"question": [question, "x"], "answer": [answer, "x"]}).slice(0, 1)
    one = pa.table({"text": [f"{question} {answer}".lower()]})
    assert hashed_in(two) == hashed_in(one)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65])
def test_who_shares_a_bucket_is_found_and_nobody_without_a_word(count):
    buckets = mix(np.arange(1, count + 1, dtype=np.uint64))
    buckets[3:5] = 0
    buckets[-1:] = buckets[:1]
    expected = [n for n in (0, count - 1) if count > 1]
    assert np.flatnonzero(duplicates._shared(buckets)).tolist() == expected


def test_the_compiled_hash_is_that_of_the_arrays():
    numbers = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert [_mix(number) for number in numbers] == mix(numbers).tolist()


def test_case_and_punctuation_do_not_count():
    rows = ["Sort the list, then print it: now", "sort the LIST then print it now!"]
    assert found_in(rows, 1.0).tolist() == [-1, 0]


def test_texts_without_a_word_are_not_duplicates_of_each_other():
    assert found_in(["", "?!", ""], 0.6).tolist() == [-1] * 3


def test_no_texts_give_no_duplicates():
    assert len(found_in([], 0.8)) == 0
