import ast
import json
import shutil
import subprocess
import textwrap

import pytest

from qaq.data.javascript import to_javascript
from qaq.data.python_code import find_function


def translated(code):
    return to_javascript(ast.parse(textwrap.dedent(code)).body[0])


def test_a_function_keeps_its_names_and_its_shape():
    code = """
    def total(self, prices, limit=10, *rest):
        # a comment
        found = []
        for price in prices:
            if price is not None and not price < 0 or price in rest:
                found.append(price // 2)
            elif len(found) == limit:
                raise ValueError("too many: ", limit)
            else:
                break
        return sep.join(x.strip() for x in found[1:] if x)
    """
    assert translated(code) == textwrap.dedent("""\
        function total(prices, limit = 10, ...rest) {
            let price;
            let found = [];
            for (price of prices) {
                if (((price !== null) && (!(price < 0))) || (rest.includes(price))) {
                    found.push(Math.floor(price / 2));
                } else if (found.length === limit) {
                    throw new ValueError("too many: ", limit);
                } else {
                    break;
                }
            }
            return sep.join(found.slice(1).filter((x) => x).map((x) => x.trim()));
        }""")


@pytest.mark.parametrize(
    "code",
    [
        "@property\ndef f(self):\n    return self.x",
        "def f():\n    with a as b:\n        return b",
        "def f(a):\n    return a[::2]",
        "def f(*, a):\n    return a",
        "def f(**a):\n    return a",
        "def f(a):\n    return '%s' % a",
        "def f(a):\n    return f'{a}'",
        "def f(a):\n    return b'bytes'",
        "def f(a):\n    global x\n    x = a",
        "def f(function):\n    return function",
        "def f(a):\n    assert a",
        "def f(self):\n    self = 1",
        "def f(a):\n    for x in a:\n        pass\n    else:\n        return 1",
    ],
)
def test_what_has_no_plain_counterpart_is_not_translated_at_all(code):
    assert translated(code) is None


RUNS = [
    ("def f(n):\n    s = 0\n    for i in range(n):\n        s += i * i\n    return s", [7]),
    ("def f(a, b):\n    while b:\n        a, b = b, a % b\n    return a", [48, 36]),
    ("def f(x):\n    return -x ** 2 if x > 1 else (x - 1) - (x - 2)", [3]),
    (
        "def f(a, b):\n    return [x + 1 for x in a if x != b][0] if a[-1] in a else 0",
        [[1, 2, 3], 1],
    ),
    ("def f(s):\n    return s.upper().strip().replace('A', 'b')", [" xay "]),
    (
        "def f(s):\n    try:\n        raise Error('x')\n    except Error:\n        return s[1:-1]",
        ["abcd"],
    ),
    ("def f(a, b=2):\n    return a <= b < 5 and not a is None", [1]),
    ("def f(d):\n    return [k + 1 for k in d]", [[1, 2]]),
]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to run the translations")
@pytest.mark.parametrize(("code", "arguments"), RUNS)
def test_simple_functions_compute_the_same_in_both_languages(code, arguments):
    scope = {"Error": Exception}
    exec(code, scope)  # the code above
    script = f"{translated(code)}\nconsole.log(JSON.stringify(f(...{json.dumps(arguments)})))"
    printed = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == scope["f"](*arguments)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to run the translations")
def test_every_translation_of_the_library_is_valid_javascript(mined, tmp_path):
    texts = [to_javascript(find_function(pair.answer)) for pair in mined]
    texts = [text for text in texts if text]
    assert len(texts) > len(mined) / 3
    (tmp_path / "all.json").write_text(json.dumps(texts))
    check = """
    const fs = require("fs"), vm = require("vm");
    for (const text of JSON.parse(fs.readFileSync(process.argv[1]))) {
        try { new vm.Script(text) } catch (e) { console.log(e.message + "\\n" + text) }
    }
    """
    command = ["node", "-e", check, str(tmp_path / "all.json")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == ""
