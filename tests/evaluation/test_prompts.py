"""Prompts: the texts of each mode, where an answer ends, and adapters asked as they were taught."""

import inspect
import json
import string
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tokenizers import normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from qaq.evaluation import prompts
from qaq.evaluation.benchmarks import Problem, load
from qaq.evaluation.generation.generate import Decoding, Request
from qaq.evaluation.generation.hf import HfGenerator
from qaq.evaluation.generation.vllm import VllmGenerator
from qaq.evaluation.prompts import Prompt, Stops, check_lengths, make_asker
from qaq.host.errors import ModelError, UserError
from qaq.models.config import ModelConfig
from qaq.models.load import load_tokenizer
from qaq.models.template import chat_template, text_ids
from tests.tiny import CHATML

MODES = ("chat", "completion", "evalplus_chat")


@pytest.fixture
def config(tiny_model):
    return ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")


@pytest.fixture
def tokenizer(config):
    return load_tokenizer(config)


@pytest.fixture(scope="module")
def function():
    return load("mini").problems[2]


@pytest.fixture(scope="module")
def description():
    return Problem(
        task_id="Mbpp/1",
        prompt='"""\nWrite a function to add one.\nassert up(1) == 2\n"""\n',
        entry_point="up",
        canonical_solution="\ndef up(x):\n  return x + 1\n",
        base_input=[[1]],
        plus_input=[],
        contract="",
        atol=0,
    )


@pytest.mark.parametrize("system", [None, "You write code."])
def test_a_chat_prompt_is_the_template_around_the_instruction(config, tokenizer, function, system):
    asker = make_asker("chat", config, tokenizer, system)
    messages = [{"role": "system", "content": system}] if system else []
    question = prompts.FUNCTION.format(problem=function.prompt.strip())
    messages.append({"role": "user", "content": question})
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asker.prompt(function).text == expected
    assert function.prompt.strip() in expected


def test_a_chat_prompt_is_laid_out_as_in_fine_tuning(config, tokenizer, function):
    template = chat_template(tokenizer, config, None)
    question = prompts.FUNCTION.format(problem=function.prompt.strip())
    expected = template.prompt_ids(text_ids(tokenizer, question))
    assert make_asker("chat", config, tokenizer, None).ids(function) == expected


def test_a_completion_prompt_is_the_problem_and_nothing_else(config, tokenizer, function):
    asker = make_asker("completion", config, tokenizer, "ignored here")
    assert asker.prompt(function).text == function.prompt.strip() + "\n"
    assert asker.program(function, "\treturn 1") == function.prompt.strip() + "\n    return 1"


def test_the_evalplus_prompt_is_evalplus_own(config, tokenizer, function, description):
    from evalplus import codegen
    from evalplus.provider.utility import make_raw_chat_prompt

    source = inspect.getsource(codegen.run_codegen)
    assert f'"{prompts.EVALPLUS_INSTRUCTION}"' in source
    assert f'"{prompts.EVALPLUS_RESPONSE}"' in source
    asker = make_asker("evalplus_chat", config, tokenizer, None)
    for problem in (function, description):
        expected = make_raw_chat_prompt(
            problem.prompt.strip() + "\n",
            prompts.EVALPLUS_INSTRUCTION,
            prompts.EVALPLUS_RESPONSE,
            tokenizer,
        )
        assert asker.prompt(problem).text == expected
        assert expected.endswith("```python\n")


def test_the_stop_texts_are_evalplus_own(config, tokenizer):
    from evalplus.provider import hf
    from evalplus.provider.utility import EOS, extra_eos_for_direct_completion

    completion = make_asker("completion", config, tokenizer, None)
    for suite in ("humaneval", "mbpp"):
        expected = EOS + extra_eos_for_direct_completion(suite)
        assert list(completion.stops(suite).texts) == expected
    chat = make_asker("evalplus_chat", config, tokenizer, None)
    assert list(chat.stops("mbpp").texts) == [*EOS, "\n```\n"]
    assert 'self.eos += ["\\n```\\n"]' in inspect.getsource(hf)


def test_a_template_that_begins_the_text_and_a_tokenizer_that_does_so_too_begin_it_once(
    config, tokenizer, function
):
    begin = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    assert tokenizer("x")["input_ids"][0] == begin
    chat = make_asker("evalplus_chat", config, tokenizer, None).ids(function)
    assert chat[0] == begin and chat[1] != begin
    assert make_asker("completion", config, tokenizer, None).ids(function)[0] == begin


@pytest.mark.parametrize("mode", ["completion", "evalplus_chat"])
def test_a_prompt_does_not_end_with_the_end_that_a_tokenizer_appends(
    config, tokenizer, function, mode
):
    expected = make_asker(mode, config, tokenizer, None).ids(function)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", tokenizer.eos_token_id)]
    )
    assert tokenizer("x")["input_ids"][-1] == tokenizer.eos_token_id
    assert make_asker(mode, config, tokenizer, None).ids(function) == expected


def test_without_a_chat_template_only_completion_is_possible(config, tokenizer):
    tokenizer.chat_template = None
    make_asker("completion", config, tokenizer, None)
    for mode in ("chat", "evalplus_chat"):
        with pytest.raises(ModelError, match=r"has no chat template|has none"):
            make_asker(mode, config, tokenizer, None)


def adapter(folder, template_sha, system_prompt):
    facts = {"template_sha": template_sha, "system_prompt": system_prompt}
    examples = [{"prompt": "<taught>Hello", "response": "x"}]
    (folder / "prompt.json").write_text(json.dumps(facts | {"examples": examples}))
    return folder


def test_an_adapter_is_asked_with_the_layout_it_was_trained_with(config, tokenizer, tmp_path):
    sha = chat_template(tokenizer, config, "Be brief.").sha
    make_asker("chat", config, tokenizer, "Be brief.", adapter(tmp_path, sha, "Be brief."))


@pytest.mark.parametrize("trained_sha", ["same", "f" * 64])
def test_an_adapter_trained_with_another_prompt_is_refused_and_both_are_shown(
    config, tokenizer, tmp_path, trained_sha
):
    sha = chat_template(tokenizer, config, "Be brief.").sha
    folder = adapter(tmp_path, sha if trained_sha == "same" else trained_sha, "Be long.")
    with pytest.raises(ModelError) as error:
        make_asker("chat", config, tokenizer, "Be brief.", folder)
    for part in ("'Be long.'", "'Be brief.'", "<taught>Hello", sha[:16], "<|im_start|>"):
        assert part in str(error.value)
    assert error.value.exit_code == 2


def test_an_adapter_that_does_not_say_how_it_was_trained_is_refused(config, tokenizer, tmp_path):
    with pytest.raises(ModelError, match=r"no prompt\.json"):
        make_asker("chat", config, tokenizer, None, tmp_path)
    make_asker("completion", config, tokenizer, None, tmp_path)


def test_a_prompt_longer_than_the_context_is_named():
    short, long = Prompt("T/1", "a", (1,) * 7), Prompt("T/2", "b", (1,) * 8)
    check_lengths([short, long], None)
    check_lengths([short], 8)
    with pytest.raises(UserError, match=r"1 of 2 prompts.* 8 tokens; the longest is T/2 with 8"):
        check_lengths([short, long], 8)


@pytest.mark.parametrize("mode", MODES)
def test_the_canonical_solution_stands_behind_the_prompt_byte_for_byte(
    config, tokenizer, function, description, mode
):
    asker = make_asker(mode, config, tokenizer, None)
    for problem in (function, description):
        reference = asker.reference(problem)
        solution = tokenizer.decode(reference.ids[reference.start :])
        assert solution == problem.canonical_solution.strip("\n")
        assert reference.bytes == len(solution.encode())
        assert reference.ids[: len(asker.ids(problem))] == asker.ids(problem)
        before = tokenizer.decode(reference.ids[: reference.start])
        if problem is function:
            assert before.endswith(function.prompt.strip() + "\n")
        elif mode == "chat":
            assert before == asker.prompt(problem).text


LLAMA = {
    "as its file has it": (
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
    ),
    "as Transformers makes it": (
        None,
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
    ),
}


LLAMA_MERGES = [("▁", "▁"), ("▁▁", "▁▁"), ("▁▁", "▁"), ("r", "e"), ("d", "e"), ("▁", "de")]


def llama_vocabulary():
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    texts += [*string.printable[:94], *map("".join, LLAMA_MERGES)]
    return {text: at for at, text in enumerate(texts)}


@pytest.fixture(params=LLAMA)
def llama(request):
    """A tokenizer that puts a space before a text and takes one off when it decodes."""
    tokenizer = LlamaTokenizer(vocab=llama_vocabulary(), merges=LLAMA_MERGES)
    core = tokenizer.backend_tokenizer
    core.normalizer, core.pre_tokenizer = LLAMA[request.param]
    assert text_ids(tokenizer, "x") == tuple(tokenizer.convert_tokens_to_ids(["▁", "x"]))
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.mark.parametrize("mode", MODES)
def test_the_canonical_solution_has_no_space_that_the_tokenizer_puts_before_texts(
    config, llama, function, description, mode
):
    config = replace(config, allow_split_markers=True)
    asker = make_asker(mode, config, llama, None)
    for problem in (function, description):
        if mode == "chat" and problem is description:
            continue  # it opens a turn, laid out as in fine-tuning
        reference = asker.reference(problem)
        text = problem.canonical_solution.strip("\n").rstrip()
        whole, before = (llama.decode(i) for i in (reference.ids, reference.ids[: reference.start]))
        assert whole == before + text and before.endswith("\n")
        assert mode == "chat" or "\n def " not in before  # chat is laid out as in fine-tuning


def writes(tokens, vocabulary):
    """A model that goes on from each of these tokens with the next of them."""
    shape = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=vocabulary,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(shape).eval()
    with torch.no_grad():
        for layer in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            layer.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(vocabulary))
        model.lm_head.weight.mul_(0.1)
        for one, two in pairwise(tokens):
            model.lm_head.weight[two, one] = 9.0
    return model


def test_an_answer_that_goes_on_in_the_prompt_keeps_its_indentation(config, llama, function):
    asker = make_asker("completion", config, llama, None)
    decoding = Decoding(30, asker.stops("humaneval"), frozenset({2}), continues=asker.continues)
    request = Request("T/0", 0, asker.ids(function), "")
    answer = "    return 1"
    new = text_ids(llama, f"\n{answer}")[len(text_ids(llama, "\n")) :]
    assert llama.decode(new) == answer[1:]  # read alone it loses a space
    model = writes([request.prompt[-1], *new, 2], len(llama))
    (found,) = HfGenerator(model, llama, decoding)([request])
    assert (found.text, found.new_tokens, found.finish) == (answer, len(new) + 1, "end")
    served = VllmGenerator(None, llama, decoding)._completion(request, [*new, 2], ended=True)
    assert served == found


FENCED = Stops(prompts.END_MARKERS, fenced=True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("def f():\n    return 1", None),
        ("def f():\n    return 1\nprint(f())", None),
        ("def f():\n    return 1</s>print(f())", "def f():\n    return 1"),
        ("Here:\n```python\ndef f(): return 1\n", None),
        (
            "Here:\n```python\ndef f(): return 1\n```\nIt works",
            "Here:\n```python\ndef f(): return 1\n```",
        ),
        ("```\ndef f(): return 1\n```", "```\ndef f(): return 1\n```"),
        ("Here:\n```\ndef f(): return 1\n", None),
        ("a `b` and ```c``` inline\n", None),
        ("```python\nx = 1\nif __name__ == 1:\n    pass\n```\n", None),
        ("```python\nx = 1\n```\n```\nf = 2\n```\n", "```python\nx = 1\n```\n```\nf = 2\n```"),
        ("```py\ntext = '''\n   ```\n'''\n", None),
    ],
)
def test_an_answer_ends_at_a_stop_text_or_behind_the_block_that_defines_the_function(text, kept):
    cut = FENCED.cut(text, "f")
    assert (None if cut is None else text[:cut]) == kept


def test_the_earliest_of_several_stop_texts_counts():
    stops = Stops(("\nassert", "\ndef ", "\nclass "))
    text = "    return 1\n\ndef g():\n    pass\nassert f() == 1\nclass A: pass"
    assert text[: stops.cut(text)] == "    return 1\n"


def test_a_whole_program_is_not_cut_where_it_prints_or_has_a_main_function(tokenizer):
    text = "import sys\ndef main():\n    pass\nif __name__ == '__main__':\n    main()\nprint(1)\n"
    for asker in (prompts.CompletionAsker(tokenizer), prompts.EvalPlusChatAsker(tokenizer)):
        assert asker.stops("livecodebench").cut(text) is None
        assert asker.stops("humaneval").cut(text) is not None
