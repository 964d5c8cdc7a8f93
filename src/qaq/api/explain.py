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
    if rule == RULE:  # has a section of its own
        return text[text.index("## Why") :].partition("\n## ")[0].rstrip()
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    )
    row = next((row for row in rows if row[0] == f"`{rule}`"), None)
    if row is None:
        raise UserError(f"nothing was shown of {rule} here; qaq select --explain has what was")
    shares = [f"{kind} rows kept (%)" for kind in head[1:4]]
    named = zip([*shares, *head[4:]], row[1:], strict=True)
    section = text[: text.index("\n|")].rpartition("\n## ")[2]  # says what the figures are
    return "\n".join([rule, *(f"  {name}: {value}" for name, value in named), "", section.strip()])
