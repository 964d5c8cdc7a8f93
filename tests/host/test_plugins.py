"""Files of one's own are found, named when they are wrong, and enter keys by their source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qaq.host import plugins
from qaq.host.plugins import PluginError, Registry, source_hash
from qaq.run.compose import compose

ADD = "from qaq.host.plugins import Registry\nimport things_of_test\nthings_of_test.add({!r}, {})\n"


@pytest.fixture
def things(tmp_path, monkeypatch):
    """A folder in QAQ_PATH, and a registry that its files can reach; nothing of it stays."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("QAQ_PATH", str(folder))
    monkeypatch.setenv("QAQ_PLUGINS_SEEN", "{}")
    monkeypatch.setattr(plugins, "_STATE", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    registry: Registry[int] = Registry("thing")

    class Reach:
        @staticmethod
        def add(name, value):
            registry.add(name, value, sys._getframe(1).f_globals["__name__"])

    monkeypatch.setitem(sys.modules, "things_of_test", Reach)
    source_hash.cache_clear()
    yield folder, registry
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    source_hash.cache_clear()


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_in_the_folder_is_all_it_takes(things):
    folder, registry = things
    write(folder, "mine_a.py", ADD.format("seven", 7))
    write(folder, "_helper.py", "raise RuntimeError('never imported by itself')")
    assert dict(registry) == {"seven": 7}
    assert set(registry.fingerprint("seven")) == {"thing/seven"}


def test_what_is_ours_has_no_fingerprint_and_cannot_be_taken(things):
    folder, registry = things
    registry.add("ours", 1, "qaq.host.plugins")
    write(folder, "mine_b.py", "\n" + ADD.format("ours", 2))
    with pytest.raises(PluginError, match=r"mine_b.py:4: the thing 'ours' is defined in .*qaq"):
        dict(registry)


def test_two_files_cannot_define_one_name(things):
    folder, registry = things
    for name in ("mine_c.py", "mine_d.py"):
        write(folder, name, ADD.format("same", 1))
    with pytest.raises(PluginError, match=r"mine_d.py:3: the thing 'same' .*mine_c.py already"):
        dict(registry)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("x = 1\nfor\n", 2, "SyntaxError"),
        ("x = 1\n\nimport no_such_module_at_all\n", 3, "no_such_module_at_all"),
        ("def f():\n    return {}['a']\n\nf()\n", 2, "KeyError"),
    ],
)
def test_an_error_in_a_file_names_file_and_line(things, text, line, what):
    folder, registry = things
    file = write(folder, "mine_e.py", text)
    with pytest.raises(PluginError, match=rf"mine_e.py:{line}: .*{what}") as caught:
        dict(registry)
    assert str(file.resolve()) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["random.py", "numpy.py", "my-rule.py"])
def test_a_file_that_python_would_confuse_is_refused(things, name):
    folder, registry = things
    write(folder, name, "")
    with pytest.raises(PluginError, match="rename it"):
        dict(registry)


def test_the_hash_covers_what_the_file_imports_from_its_folder_and_nothing_else(things):
    folder, registry = things
    write(folder, "mine_f.py", "def late():\n    from inner.part import x\n" + ADD.format("f", 1))
    write(folder, "inner/__init__.py", "")
    part = write(folder, "inner/part.py", "from . import deep\nx = 1\n")
    deep = write(folder, "inner/deep.py", "y = 1\n")
    other = write(folder, "mine_g.py", "z = 1\n")
    hashes = [registry.fingerprint("f")["thing/f"]]
    for file in (part, deep, other):
        file.write_text(file.read_text() + "# changed\n")
        source_hash.cache_clear()
        hashes.append(registry.fingerprint("f")["thing/f"])
    assert len(set(hashes[:3])) == 3
    assert hashes[3] == hashes[2]


def test_a_file_that_changes_while_qaq_runs_is_refused_by_the_worker(things, monkeypatch):
    folder, registry = things
    file = write(folder, "mine_h.py", ADD.format("h", 1))
    assert registry["h"] == 1
    code = "from qaq.host import plugins; plugins.load()"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder.parent), *sys.path])}
    write(folder.parent, "things_of_test.py", "def add(*a): pass\n")
    ask = [sys.executable, "-c", code]
    assert subprocess.run(ask, env=env, check=False).returncode == 0
    file.write_text(ADD.format("h", 2))
    done = subprocess.run(ask, env=env, capture_output=True, text=True, check=False)
    assert "mine_h.py changed while qaq was running" in done.stderr


def test_an_installed_package_is_found_by_its_entry_point(things, tmp_path):
    site = tmp_path / "site"
    write(site, "forum_rules/__init__.py", "")
    write(site, "forum_rules/mine.py", "from forum_rules import base\n" + ADD.format("entry", 5))
    write(site, "forum_rules/base.py", "")
    write(site, "forum_rules/conf/selector/forum.yaml", "method: longest\n")
    entry = "[qaq.plugins]\nforum = forum_rules.mine\n"
    write(site, "forum_rules-1.dist-info/entry_points.txt", entry)
    write(site, "forum_rules-1.dist-info/METADATA", "Name: forum-rules\nVersion: 1\n")
    write(
        tmp_path,
        "things_of_test.py",
        "from qaq.host.plugins import Registry\nT = Registry('t')\n"
        "def add(name, value): T.add(name, value, 'forum_rules.mine')\n",
    )
    code = (
        "import things_of_test as t; from qaq.run.compose import compose;"
        "print(dict(t.T), compose(['selector=forum']).selector.method, t.T.fingerprint('entry'))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("{'entry': 5} longest {'t/entry': "), done.stderr


def test_options_of_the_folder_join_their_group_and_clashes_are_refused(things):
    folder, _ = things
    write(folder, "selector/the_longest.yaml", "method: longest\n")
    assert compose(["selector=the_longest"]).selector.method == "longest"
    clash = write(folder, "selector/random.yaml", "method: longest\n")
    with pytest.raises(PluginError, match=r"random.yaml: the option selector=random is .* already"):
        compose(["selector=random"])
    clash.unlink()


def test_a_folder_that_is_not_there_is_the_users_mistake(things, monkeypatch):
    monkeypatch.setenv("QAQ_PATH", "/no/such/folder")
    with pytest.raises(PluginError, match="there is no folder /no/such/folder"):
        plugins.conf_dirs()
