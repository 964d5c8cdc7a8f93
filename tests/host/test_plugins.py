"""Files of one's own are found, named when they are wrong, and enter keys by their source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qaq.host import plugins
from qaq.host.plugins import PluginError, Registry, owner, source_hash
from qaq.run.comparison import SweepJob
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
            registry.add(name, value, owner(sys._getframe(1).f_globals["__name__"]))

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
    write(site, "forum_rules/other.py", "")
    write(site, "forum_rules/conf/selector/forum.yaml", "method: longest\n")
    entry = "[qaq.plugins]\nforum = forum_rules.mine\nother = forum_rules.other\n"
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


def test_a_helper_that_python_takes_from_elsewhere_is_refused(things, tmp_path, monkeypatch):
    folder, registry = things
    write(folder, "mine_i.py", "import _common_i\n" + ADD.format("i", "_common_i.x"))
    ours = write(folder, "_common_i.py", "x = 1\n")
    other = write(tmp_path / "cwd", "_common_i.py", "x = 2\n")
    monkeypatch.setattr(sys, "path", [str(other.parent), *sys.path])
    with pytest.raises(PluginError, match=f"{ours}: Python takes {other} in its place; rename"):
        dict(registry)
    sys.modules.pop("_common_i")
    write(folder, "mine_i.py", "def late():\n    import _common_i\n" + ADD.format("i", 1))
    sys.modules.pop("mine_i")
    with pytest.raises(PluginError, match=f"Python takes {other} in its place"):
        dict(registry)


def test_a_helper_of_which_two_folders_have_one_is_refused(things, tmp_path, monkeypatch):
    folder, registry = things
    second = tmp_path / "second"
    for place, value in ((folder, 1), (second, 2)):
        write(place, "_common_j.py", f"x = {value}\n")
    write(second, "mine_j.py", "import _common_j\n" + ADD.format("j", "_common_j.x"))
    monkeypatch.setenv("QAQ_PATH", os.pathsep.join([str(folder), str(second)]))
    with pytest.raises(PluginError, match="rename one of the two"):
        dict(registry)
    sys.modules.pop("_common_j")


@pytest.mark.parametrize("turned", [False, True])
def test_files_of_several_folders_import_one_another(things, tmp_path, monkeypatch, turned):
    folder, registry = things
    second = tmp_path / "second"
    base = write(folder, "mine_k.py", "x = 1\n")
    file = write(second, "mine_l.py", "import mine_k\n" + ADD.format("l", "mine_k.x"))
    both = [str(second), str(folder)] if turned else [str(folder), str(second)]
    monkeypatch.setenv("QAQ_PATH", os.pathsep.join(both))
    before = registry.fingerprint("l")
    base.write_text("x = 1  # changed\n")
    source_hash.cache_clear()
    assert registry.fingerprint("l") != before
    del sys.modules["mine_l"]
    assert file.is_file()


def test_what_a_helper_registers_is_hashed_with_the_file_that_asks_for_it(things):
    folder, registry = things
    make = "from qaq.host.plugins import Registry\nimport things_of_test\n"
    make += "def scaled(name, by):\n    things_of_test.add(name, 10 * by)\n"
    write(folder, "_factory.py", make)
    file = write(folder, "mine_m.py", "from _factory import scaled\nscaled('m', 2)\n")
    before = registry.fingerprint("m")
    assert registry["m"] == 20
    file.write_text("from _factory import scaled\nscaled('m', 3)\n")
    source_hash.cache_clear()
    assert registry.fingerprint("m") != before


def test_what_a_file_imports_of_ours_stays_ours(things):
    folder, _ = things
    before = sys.modules.pop("qaq.scoring.framings.plain", None)
    write(folder, "mine_n.py", "import qaq.scoring.framings.plain\n")
    from qaq.scoring.config import FRAMINGS

    try:
        assert FRAMINGS.fingerprint(*FRAMINGS) == {}
    finally:
        if before:
            sys.modules["qaq.scoring.framings.plain"] = before


def test_one_file_cannot_define_a_name_twice_but_may_be_tried_again(things):
    folder, registry = things
    file = write(folder, "mine_o.py", ADD.format("o", 1) + ADD.format("o", 2))
    with pytest.raises(PluginError, match=r"mine_o.py:6: the thing 'o' is .*mine_o.py already"):
        dict(registry)
    file.write_text(ADD.format("o", 3))
    assert registry["o"] == 3


@pytest.mark.parametrize("text", ["import sys\nsys.exit(0)\n", "\nraise SystemExit\n"])
def test_a_file_that_ends_the_program_is_named(things, text):
    folder, registry = things
    write(folder, "mine_p.py", text)
    with pytest.raises(PluginError, match=r"mine_p.py:2: it ended the program .*__main__"):
        dict(registry)


def test_a_link_to_a_file_is_a_file_of_the_folder_that_has_the_link(things, tmp_path):
    folder, registry = things
    real = write(tmp_path / "real", "mine_q.py", "import _near\n" + ADD.format("q", "_near.x"))
    write(folder, "_near.py", "x = 4\n")
    (folder / "mine_q.py").symlink_to(real)
    assert registry["q"] == 4
    assert registry.fingerprint("q")


def test_an_error_is_not_said_to_be_in_an_installed_package(things):
    folder, registry = things
    site = folder / "env" / "site-packages"
    write(site, "theirs_of_test.py", "def f():\n    return 1 / 0\n")
    text = f"import sys\nsys.path.append({str(site)!r})\nimport theirs_of_test\n"
    write(folder, "mine_r.py", text + "theirs_of_test.f()\n")
    with pytest.raises(PluginError, match=r"mine_r.py:4: ZeroDivisionError"):
        dict(registry)


def test_a_command_that_is_to_be_run_again_names_the_folder_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("QAQ_PATH", "")
    plugins.start(tmp_path)
    job = SweepJob(compose(["selector=full"]), ("selector=full",))
    assert job.command == f"qaq run --config-dir {tmp_path} selector=full"
    plugins.start(None)
    assert job.command == "qaq run selector=full"
