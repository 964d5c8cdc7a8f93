"""`qaq select --explain`: what each rule was shown to do, as docs/which_rule.md has it."""

from qaq.api.work import RULE
from qaq.host.errors import UserError
from qaq.host.plugins import conf_dir

PAGE = "which_rule.md"


def explanation(rule: str | None = None) -> str:
    """The decision page; of one rule, its line.

    Raises:
        UserError: the page says nothing of the rule.
    """
    text = (conf_dir().parent / "docs" / PAGE).read_text(encoding="utf-8").rstrip()
    if rule is None:
        return text
    if rule == RULE:  # has a section, since it was not measured by itself
        return text[text.index("## Why") :].partition("\n## ")[0].rstrip()
    lines = [line for line in text.splitlines() if line.startswith("|") and f"`{rule}`" in line]
    if not lines:
        raise UserError(f"nothing was shown of {rule} here; qaq select --explain has what was")
    return "\n".join(line.strip("| ").replace(" | ", "\n  ") for line in lines)
