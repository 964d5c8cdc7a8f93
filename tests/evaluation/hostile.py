"""Programs that attack the judge; `{...}` is filled in with what the test has set up.

Each computes `f(x) = x + 1`, the right answer, only if its attack worked: passing means that the
judge let it happen. EvalPlus sets `os.kill`, `open` and others to None in the sample's process;
the attacks go around that, as hostile code would, through `posix`, `ctypes` and `io`.
"""

OUTSIDE = {  # they must fail at every level
    "reads a token from the environment": """
import os, ctypes
def f(x):
    found = os.environ.get("HF_TOKEN") or ctypes.CDLL(None).getenv(b"HF_TOKEN")
    assert found
    return x + 1
""",
    "reads the environment block of every process": """
import os, io
def f(x):
    for name in os.listdir("/proc"):
        if name.isdigit() or name == "self":
            try:
                block = io.open(f"/proc/{{name}}/environ", "rb").read()
            except OSError:
                continue
            if b"{token}" in block:
                return x + 1
    raise PermissionError
""",
    "reads a file of the user's": """
import io
def f(x):
    assert io.open("{secret}").read()
    return x + 1
""",
    "reads the ground truth": """
import io, pickle
def f(x):
    return pickle.loads(io.open("{truth}", "rb").read())["base"][0] and x + 1
""",
    "reads the benchmark file": """
import io
def f(x):
    assert io.open("{data}").read()
    return x + 1
""",
    "connects to a loopback listener": """
import socket
def f(x):
    with socket.create_connection(("127.0.0.1", {port}), timeout=1) as s:
        s.sendall(b"hit")
    return x + 1
""",
    "sends a datagram to a loopback listener": """
import socket
def f(x):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"hit", ("127.0.0.1", {port}))
    return x + 1
""",
    "connects to an abstract Unix socket": """
import socket
def f(x):
    s = socket.socket(socket.AF_UNIX)
    s.connect("\\0{abstract}")
    return x + 1
""",
    "writes a file outside": """
import io
def f(x):
    io.open("{folder}/written", "w").write("x")
    return x + 1
""",
    "deletes a file outside": """
import posix
def f(x):
    posix.unlink("{victim}")
    return x + 1
""",
    "empties a file outside": """
import posix
def f(x):
    posix.truncate("{victim}", 0)
    return x + 1
""",
    "makes a file outside readable for all": """
import posix
def f(x):
    posix.chmod("{victim}", 0o777)
    return x + 1
""",
    "replaces a folder outside by a link": """
import posix
def f(x):
    posix.rename("{folder}", "{folder}-moved")
    return x + 1
""",
    "forges the journal": """
import io
def f(x):
    io.open("{journal}", "a").write("{{}}\\n")
    return x + 1
""",
    "forks": """
import posix, time
def f(x):
    for _ in range(20):
        if posix.fork() == 0:
            time.sleep(3)
            posix._exit(0)
    return x + 1
""",
    "forks through the C library": """
import ctypes
def f(x):
    child = ctypes.CDLL(None).fork()
    if child == 0:
        ctypes.CDLL(None).sleep(3)
        ctypes.CDLL(None)._exit(0)
    assert child > 0
    return x + 1
""",
    "starts a program": """
import _posixsubprocess, posix
def f(x):
    posix.execv("/bin/true", ["true"])
    return x + 1
""",
    "starts a thread": """
import threading
def f(x):
    threading.Thread(target=lambda: None).start()
    return x + 1
""",
    "starts 2,500 threads, and goes on where that fails": """
import threading, time
def f(x):
    started = 0
    for _ in range(2500):
        try:
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
            started += 1
        except RuntimeError:
            pass
    assert started
    return x + 1
""",
    "has the kernel signal its parent": """
import fcntl, posix, signal
def f(x):
    read, write = posix.pipe()
    fcntl.fcntl(read, 8, posix.getppid())
    fcntl.fcntl(read, 10, signal.SIGKILL)
    fcntl.fcntl(read, fcntl.F_SETFL, 0o20000)
    posix.write(write, b"x")
    return x + 1
""",
    "has the kernel signal its parent by ioctl": """
import fcntl, posix, struct
def f(x):
    read, write = posix.pipe()
    fcntl.fcntl(read, 15, struct.pack("ii", 1, posix.getppid()))
    fcntl.fcntl(read, 10, 9)
    fcntl.ioctl(read, 0x5452, struct.pack("i", 1))
    posix.write(write, b"x")
    return x + 1
""",
    "changes the attributes of a file": """
import fcntl, struct, posix
def f(x):
    file = posix.open("/usr", posix.O_RDONLY)
    flags = bytearray(8)
    fcntl.ioctl(file, 0x80086601, flags)
    return x + 1
""",
    "reads another process's shared memory": """
import ctypes
def f(x):
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    assert libc.shmat({shared}, None, 0) != ctypes.c_void_p(-1).value
    return x + 1
""",
    "takes another process's shared memory away": """
import ctypes
def f(x):
    assert ctypes.CDLL(None).shmctl({shared}, 0, None) == 0
    return x + 1
""",
    "takes another process's semaphore": """
import ctypes, struct
def f(x):
    libc = ctypes.CDLL(None)
    assert libc.semop({semaphore}, struct.pack("Hhh", 0, 1, 0), 1) == 0
    assert libc.semctl({semaphore}, 0, 0) == 0
    return x + 1
""",
    "writes into another process's message queue": """
import ctypes, struct
def f(x):
    libc = ctypes.CDLL(None)
    assert libc.msgsnd({queue}, struct.pack("l", 1) + b"x", 1, 0o4000) == 0
    return x + 1
""",
    "removes another process's POSIX queue": """
import ctypes
def f(x):
    libc = ctypes.CDLL("librt.so.1")
    assert libc.mq_unlink(b"/{posix_queue}") == 0
    return x + 1
""",
    "reads the checker's oracles": """
import importlib.util, io
def f(x):
    package = importlib.util.find_spec("evalplus")
    place = package.origin.replace("__init__", "eval/_special_oracle")
    assert io.open(place).read()
    return x + 1
""",
    "kills its parent": """
import posix
def f(x):
    posix.kill(posix.getppid(), 9)
    return x + 1
""",
    "takes its parent's memory away": """
import sys, ctypes, posix, struct
def f(x):
    tiny = struct.pack("QQ", 4096, 4096)
    assert ctypes.CDLL(None).prlimit(posix.getppid(), 9, tiny, None) == 0
    return x + 1
""",
    "writes into its parent's memory": """
import ctypes, posix
def f(x):
    assert ctypes.CDLL(None).ptrace(16, posix.getppid(), 0, 0) == 0
    return x + 1
""",
    "asks for 20 GiB": """
def f(x):
    block = bytearray(20 << 30)
    return x + 1
""",
    "asks for 20 GiB behind the limits": """
import ctypes
def f(x):
    libc = ctypes.CDLL(None)
    handle = libc.memfd_create(b"x", 0)
    assert handle >= 0
    assert libc.ftruncate(handle, ctypes.c_long(20 << 30)) == 0
    return x + 1
""",
    "writes a file where it stands": """
import io
def f(x):
    with io.open("large", "wb") as file:
        file.write(bytes(1 << 20))
    return x + 1
""",
    "makes folders": """
import posix
def f(x):
    posix.mkdir("folder-%d" % x)
    return x + 1
""",
    "leaves by os._exit(0)": """
import posix
def f(x):
    posix._exit(0)
""",
    "leaves by sys.exit(0)": """
import sys
def f(x):
    sys.exit(0)
""",
    "leaves at import": """
import os
os._exit(0)
def f(x):
    return x + 1
""",
    "crashes the interpreter": """
import ctypes
def f(x):
    ctypes.string_at(0)
    return x + 1
""",
}

# Attacks that a plain process can carry out on any Linux machine and survive.
WORKS_UNSTOPPED = [
    name
    for name in OUTSIDE
    if not name.startswith(("leaves", "crashes", "asks for", "writes into its parent"))
]

SLOW = {  # they end by a time limit
    "loops in the function": """
def f(x):
    while True:
        pass
""",
    "loops and swallows every exception": """
def f(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
""",
    "loops at import": """
while True:
    pass
""",
    "loops without signals": """
import signal
def f(x):
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass
""",
    "floods the output": """
import posix
def f(x):
    while True:
        posix.write(1, b"flood" * 10000)
        posix.write(2, b"flood" * 10000)
""",
    "closes every descriptor and sleeps": """
import os, posix, time
os.closerange(3, 4096)
for d in range(3, 4096):
    try:
        posix.close(d)
    except OSError:
        pass
def f(x):
    time.sleep(1000)
""",
    "tells its parent that it has ended": """
import posix, time
for d in range(3, 256):
    for act in (lambda: posix.write(d, b"x"), lambda: posix.dup2(0, d), lambda: posix.dup(d)):
        try:
            act()
        except OSError:
            pass
def f(x):
    time.sleep(1000)
""",
}

CHEATS = {  # they look for the answer, or for the judge, in their own process
    "an answer that equals everything": """
class Same:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    __hash__ = None
def f(x):
    return Same()
""",
    "a number that equals everything": """
class Same(int):
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    __hash__ = int.__hash__
def f(x):
    return Same(0)
""",
    "finds the expected values on the stack": """
import sys
def f(x):
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            for found in (value, *(value.values() if isinstance(value, dict) else ())):
                if isinstance(found, list) and found in ([2, 3, 41], [6, -2]):
                    return found[([1, 2, 40] + [5, -3]).index(x) % 3]
        frame = frame.f_back
    raise LookupError
""",
    "finds the expected values among all objects": """
import gc
def f(x):
    for found in gc.get_objects():
        if type(found) is list and len(found) == 3 and found[:2] == [2, 3]:
            return found[[1, 2, 40].index(x)]
    raise LookupError
""",
    "finds the canonical solution among all objects": """
import gc
def f(x):
    for found in gc.get_objects():
        if type(found) is dict and "canonical_solution" in found and "prompt" in found:
            names = {}
            exec(found["prompt"] + found["canonical_solution"], names)
            return names["f"](x)
    raise LookupError
""",
    "asks the modules of the judge": """
import sys
def f(x):
    assert [name for name in sys.modules if name.startswith("evalplus") or "checks" in name]
    return x + 1
""",
    "forges what the process says": """
import os, posix, struct
for d in range(3, 64):
    for frame in (b"R", b"V"):
        try:
            posix.write(d, struct.pack("<cQ", frame, 4) + b"\\x80\\x04N.")
        except OSError:
            pass
posix._exit(0)
""",
}

# Cheats that need no checker of a special make, only one that runs beside the program.
WORK_IN_ONE_PROCESS = [
    name for name in CHEATS if "modules of the judge" not in name and "forges" not in name
]

# What a program may send in place of a value, by its process's own pipe; none may end anything.
FORGED = {
    "a name to call": r"""b"cposix\nsystem\n(S'true'\ntR." """,
    "nothing at all": r"""b"" """,
    "a truncated pickle": r"""b"\x80\x05](" """,
    "a list in itself": r"""b"\x80\x05]q\x00h\x00a." """,
    "a place far out in the memo": r"""b"\x80\x05Nr\xff\xff\xff\x7f." """,
    "an array of nonsense": (
        r"""b"cqaq.evaluation.judge.wire\nrebuild\n(S'array'\n(S'f8'\n(K\xfftS'x'\nttR." """
    ),
    "an array of objects": (
        r"""b"cqaq.evaluation.judge.wire\nrebuild\n(S'array'\n(S'O'\n(K\x01tS'x'\nttR." """
    ),
    "a list of lists that holds 2 to the 60 items": (
        r"""b"\x80\x05]q\x00" + b"".join(b"](h%ch%ce" % (i, i) + b"q%c" % (i + 1) """
        r"""for i in range(60)) + b"." """
    ),
    "a set that takes for ever to build": (
        r"""b"\x80\x05\x8f(" + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") """
        r"""for i in range(200000)) + b"\x90." """
    ),
}
FORGE = """
import posix, struct
content = {content}
def tell(d, kind, text):
    left = struct.pack("<cQ", kind, len(text)) + text
    while left:
        left = left[posix.write(d, left):]
def f(x):
    for d in range(3, 64):
        try:
            tell(d, b"V", content)
        except OSError:
            pass
    return x + 1
"""

NUMPY_CHEAT = """
import numpy
numpy.allclose = lambda *a, **k: True
def f(x):
    return 0.0
"""
