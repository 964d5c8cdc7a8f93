"""Chat templates are programs: they are run with a clock that stands still, and for seconds only.

Some (Llama 3.2, Granite, Mistral Small 3) write today's date into the conversation, so that the
same rows have other scores tomorrow. In this process every template sees `PINNED`, the date that
Llama's own template falls back to where no clock is given. A date of one's own is a template's
variable, where it has one: `template_kwargs: {date_string: …}`.
"""

import datetime as dates
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qaq.host.errors import ModelError

PINNED = dates.datetime(2024, 7, 26)
SECONDS = 10
QUESTION, ANSWER = "QAQQUESTIONMARKQAQ", "QAQANSWERMARKQAQ"
SYSTEM = "QAQSYSTEMMARKQAQ"


class _Clock:
    """Stands for `datetime` where Transformers gives templates the time; notes that it was read."""

    read = False

    @classmethod
    def now(cls) -> dates.datetime:
        cls.read = True
        return PINNED


def pin() -> None:
    """From here on the templates of this process are rendered as of `PINNED`."""
    from transformers.utils import chat_template_utils

    if not hasattr(chat_template_utils, "datetime"):
        raise ModelError(
            "this version of Transformers gives chat templates another clock than "
            "qaq.models.rendering knows; install the version that constraints.txt names"
        )
    chat_template_utils.datetime = _Clock


def reads_the_clock(template: str, options: Mapping[str, Any], label: str) -> bool:
    """Whether a conversation of one question and one answer asks for the time as it is rendered.

    A template that cannot be rendered like this is asked nothing else: it is refused where it is
    needed, with what is wrong.

    Raises:
        ModelError: it does not come to an end.
    """
    from transformers.utils import chat_template_utils

    pin()
    _Clock.read = False
    reply = {"role": "assistant", "content": ANSWER}
    messages = [{"role": "user", "content": QUESTION}, reply]
    for turns, generation in ((messages, False), (messages[:1], True)):
        with within_seconds(label):
            try:
                chat_template_utils.render_jinja_template(
                    [turns], chat_template=template, add_generation_prompt=generation, **options
                )
            except ModelError:
                raise
            except Exception:  # Jinja's errors and the template's own
                continue
    return _Clock.read


@contextmanager
def within_seconds(label: str) -> Iterator[None]:
    """Stop a template that does not end. Only the main thread can be stopped like this.

    Raises:
        ModelError: it took longer than `SECONDS`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise ModelError(
            f"{label}: the chat template did not end within {SECONDS} s; it loops, or does far "
            "more than lay out a conversation. Give another one (chat_template)"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
