"""What a model is asked: one prompt per problem, in one of three modes, never guessed.

- `chat`: an instruction that holds the problem, rendered by the same `ChatTemplate` object as in
  scoring and fine-tuning. The model writes the whole answer itself.
- `completion`: the problem's own text, with no template; the model goes on writing.
- `evalplus_chat`: EvalPlus 0.3.1's prompt for chat models, whose answer is begun for the model, for
  comparing with EvalPlus's leaderboard (`evalplus/codegen.py`, `evalplus/provider/utility.py`).

Each mode also says where an answer ends (`Stops`), and where the canonical solution stands in it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.evaluation import answers
from qaq.evaluation.config import Mode
from qaq.evaluation.problems import FUNCTION, Problem
from qaq.host.errors import ModelError, UserError
from qaq.models.config import ModelConfig
from qaq.models.template import ChatTemplate, chat_template, refuse_foreign, text_ids
from qaq.store.keys import content_key
from qaq.store.tables import read_json

Ids = tuple[int, ...]

# EvalPlus 0.3.1, word for word: run_codegen in codegen.py; EOS and the extra ones in
# provider/utility.py; the closing fence in provider/hf.py
EVALPLUS_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a "
    "markdown code block:"
)
EVALPLUS_RESPONSE = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:"
)
END_MARKERS = ("<|endoftext|>", "<|endofmask|>", "</s>")
EVALPLUS_STOPS = (*END_MARKERS, "\nif __name__", "\ndef main(", "\nprint(")
EVALPLUS_COMPLETION_STOPS: dict[str, tuple[str, ...]] = {
    "humaneval": ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
    "mbpp": ('\n"""', "\nassert"),
}
EVALPLUS_CLOSING_FENCE = "\n```\n"

SPLITTER = "QAQANSWERGOESHEREQAQ"


@dataclass(frozen=True)
class Stops:
    """Where an answer ends, besides the end-of-turn token; only new text is looked at.

    `texts` are cut off with all that follows. With `fenced`, an answer also ends behind its first
    closed code block that defines the asked function (`qaq.evaluation.answers`); `thinking` says
    that the prompt itself opened a `<think>` part.
    """

    texts: tuple[str, ...]
    fenced: bool = False
    thinking: bool = False

    @property
    def signals(self) -> tuple[str, ...]:
        """Strings one of which newly appears whenever an answer may have ended."""
        return (*self.texts, "```", "~~~") if self.fenced else self.texts

    def cut(self, text: str, entry_point: str = "") -> int | None:
        """The length to which a finished answer is cut; None while it goes on."""
        ends = [at for stop in self.texts if (at := text.find(stop)) >= 0]
        block = answers.end(text, entry_point, self.thinking) if self.fenced else None
        return min([*ends, *([block] if block else [])], default=None)


@dataclass(frozen=True)
class Prompt:
    """What the model reads for one problem; `text` is exactly what `ids` stand for."""

    task_id: str
    text: str
    ids: Ids

    @property
    def sha(self) -> str:
        """Identifies text and tokens."""
        return content_key([self.text, list(self.ids)])


@dataclass(frozen=True)
class Reference:
    """A canonical solution as an answer: `ids[start:]` is its text, what stands before is given."""

    task_id: str
    ids: Ids
    start: int
    bytes: int


class Asker(ABC):
    """One mode of asking, bound to a tokenizer.

    `continues`: an answer goes on in the text of the prompt, and does not open a turn.
    """

    continues = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.end_ids = frozenset({tokenizer.eos_token_id} - {None})

    @abstractmethod
    def ids(self, problem: Problem) -> Ids:
        """The tokens of the prompt."""

    @abstractmethod
    def stops(self, suite_format: str) -> Stops:
        """Where an answer ends."""

    def program(self, problem: Problem, answer: str) -> str:
        """The text to sanitise and judge. Tabs become four spaces, as EvalPlus has it."""
        return answer.replace("\t", "    ")

    def before_solution(self, problem: Problem) -> Ids:
        """What the canonical solution follows, the prompt included.

        The solution continues the problem's text where that is the head of the function; so the
        same bytes are measured in every mode.
        """
        ids, given = self.ids(problem), stub(problem) if defines_entry_point(problem) else ""
        return ids + _going_on(self.tokenizer, ids, given)

    def prompt(self, problem: Problem) -> Prompt:
        """The prompt of a problem."""
        ids = self.ids(problem)
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Prompt(problem.task_id, str(text), ids)

    def reference(self, problem: Problem) -> Reference:
        """The canonical solution behind the prompt, for bits per byte."""
        before = self.before_solution(problem)
        text = problem.canonical_solution.strip("\n").rstrip()
        if self.continues or defines_entry_point(problem):
            ids = _going_on(self.tokenizer, before, text)
        else:
            ids = text_ids(self.tokenizer, text)
        return Reference(problem.task_id, before + ids, len(before), len(text.encode()))


class ChatAsker(Asker):
    """An instruction in the layout of fine-tuning."""

    continues = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        instruction: str = FUNCTION,
    ):
        super().__init__(tokenizer)
        self.template = template
        self.instruction = instruction
        self.end_ids |= end_of_turn(tokenizer, template)
        self.thinking = template.turn.rstrip().endswith("<think>")

    def ids(self, problem: Problem) -> Ids:
        """The tokens of the prompt."""
        question = self.instruction.replace("{problem}", problem.prompt.strip())
        return self.template.prompt_ids(text_ids(self.tokenizer, question))

    def stops(self, suite_format: str) -> Stops:
        """The end of the block that defines the function; no text that could stand before it."""
        return Stops(END_MARKERS, fenced=True, thinking=self.thinking)

    def program(self, problem: Problem, answer: str) -> str:
        """The block that defines the function with what it needs, or all of the answer."""
        text = super().program(problem, answer)
        return answers.program(text, problem.entry_point, self.thinking)

    def before_solution(self, problem: Problem) -> Ids:
        """As in the other modes, behind what the template puts before an answer."""
        given = stub(problem) if defines_entry_point(problem) else ""
        return self.ids(problem) + self.template.lead_ids + text_ids(self.tokenizer, given)


class CompletionAsker(Asker):
    """The problem's own text."""

    def ids(self, problem: Problem) -> Ids:
        """The tokens of the prompt, with the special tokens that the tokenizer itself adds."""
        return _encoded(self.tokenizer, stub(problem))

    def stops(self, suite_format: str) -> Stops:
        """EvalPlus's for this data set; a whole program may print and have a main function."""
        if suite_format not in EVALPLUS_COMPLETION_STOPS:
            return Stops(END_MARKERS)
        return Stops(EVALPLUS_STOPS + EVALPLUS_COMPLETION_STOPS[suite_format])

    def program(self, problem: Problem, answer: str) -> str:
        """The prompt and what the model wrote behind it; of a whole program the latter only."""
        given = stub(problem) if problem.entry_point else ""
        return given + super().program(problem, answer)

    def before_solution(self, problem: Problem) -> Ids:
        """The prompt."""
        return self.ids(problem)


class EvalPlusChatAsker(Asker):
    """EvalPlus's prompt for chat models; the tokenizer's own template without any option."""

    def ids(self, problem: Problem) -> Ids:
        """The tokens of the prompt; unlike EvalPlus's, never with two tokens of beginning."""
        return _encoded(self.tokenizer, evalplus_chat_text(self.tokenizer, problem.prompt))

    def stops(self, suite_format: str) -> Stops:
        """EvalPlus's; the opening fence is in the prompt, so the first fence closes the block."""
        known = suite_format in EVALPLUS_COMPLETION_STOPS
        return Stops((*(EVALPLUS_STOPS if known else END_MARKERS), EVALPLUS_CLOSING_FENCE))


def make_asker(
    mode: Mode,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    adapter: Path | None = None,
    instruction: str = FUNCTION,
) -> Asker:
    """The asker of a mode for a model, and for the adapter on it, if any.

    Raises:
        ModelError: there is no chat template, or the adapter was trained with another one.
    """
    if mode == "completion":
        return CompletionAsker(tokenizer)
    if mode == "evalplus_chat":
        if not tokenizer.chat_template:
            raise ModelError(
                f"{config.name}: evalplus_chat (eval.prompt, eval.bits_prompt) needs a chat "
                f"template and the tokenizer of {config.id} has none; use completion, as "
                "EvalPlus does"
            )
        refuse_foreign(tokenizer, config)
        return EvalPlusChatAsker(tokenizer)
    asker = ChatAsker(tokenizer, chat_template(tokenizer, config, system_prompt), instruction)
    if adapter is not None:
        check_adapter(adapter, asker.template, system_prompt)
    return asker


def check_adapter(folder: Path, template: ChatTemplate, system_prompt: str | None) -> None:
    """Refuse an adapter that was trained with another prompt layout than it would be asked with.

    Raises:
        ModelError: it was, or its folder does not say.
    """
    file = folder / "prompt.json"
    if not file.is_file():
        raise ModelError(
            f"{folder}: there is no prompt.json, so it is unknown which chat template the adapter "
            "was trained with; train it with qaq, or evaluate with completion "
            "(eval.prompt, eval.bits_prompt)"
        )
    trained = read_json(file)
    if trained["template_sha"] == template.sha and trained["system_prompt"] == system_prompt:
        return
    examples = trained.get("examples") or [{"prompt": "(no example kept)"}]
    raise ModelError(
        f"{folder}: the adapter was trained with another prompt than it would be asked with.\n"
        f"  trained: template {trained['template_sha'][:16]}, system prompt "
        f"{trained['system_prompt']!r}, for example {examples[0]['prompt']!r}\n"
        f"  asked:   template {template.sha[:16]}, system prompt {system_prompt!r}, "
        f"{template.head + '…' + template.turn!r}\n"
        "Set chat_template of the target model and system_prompt as in training. If nothing of "
        "that was changed, another version of Transformers renders the template otherwise: delete "
        "the adapter's folder, and it is trained again"
    )


def check_lengths(prompts: Sequence[Prompt], context: int | None) -> None:
    """Refuse prompts that leave no room for an answer in a context of that many tokens."""
    if context is None:
        return
    long = [p for p in prompts if len(p.ids) >= context]
    if long:
        worst = max(long, key=lambda p: len(p.ids))
        raise UserError(
            f"{len(long)} of {len(prompts)} prompts do not fit the model's context of {context} "
            f"tokens; the longest is {worst.task_id} with {len(worst.ids)} tokens. Leave these "
            "tasks out (benchmark.tasks=[…]) or use a model with a longer context"
        )


def stub(problem: Problem) -> str:
    """The problem's text as EvalPlus gives it: stripped, and one line break."""
    return problem.prompt.strip() + "\n"


def defines_entry_point(problem: Problem) -> bool:
    """Whether the problem's text is the head of its function (HumanEval) or only describes it."""
    if not problem.entry_point:
        return False
    return re.search(rf"^def {re.escape(problem.entry_point)}\b", problem.prompt, re.M) is not None


def end_of_turn(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> frozenset[int]:
    """The token that ends an answer in this layout, where it is one that texts do not have."""
    reserved = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return frozenset(template.tail_ids[-1:]) & reserved


def evalplus_chat_text(tokenizer: PreTrainedTokenizerBase, problem: str) -> str:
    """EvalPlus's `make_raw_chat_prompt`: a conversation, cut where the code would begin."""
    question = f"{EVALPLUS_INSTRUCTION}\n```\n{problem.strip()}\n```\n"
    answer = f"{EVALPLUS_RESPONSE}\n```python\n{SPLITTER}\n```\n"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False)).split(SPLITTER)[0]


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    ids: list[int] = tokenizer(text)["input_ids"]
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        del ids[0]
    while ids and ids[-1] == tokenizer.eos_token_id:  # some append it, and nothing would follow
        ids.pop()
    return tuple(ids)


def _going_on(tokenizer: PreTrainedTokenizerBase, before: Ids, text: str) -> Ids:
    """Tokens of a text that goes on in that of others.

    Tokenizers of Llama's kind put a space before a text, which here would be one of an indentation:
    then behind a line break, which is taken off again.
    """

    def read(ids: Ids) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    ids, start = text_ids(tokenizer, text), text_ids(tokenizer, "\n")
    if read(before + ids) != f"{read(before)} {text}":
        return ids
    behind = text_ids(tokenizer, f"\n{text}")
    return behind[len(start) :] if behind[: len(start)] == start else ids
