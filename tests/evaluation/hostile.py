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

CHEATS = {  # they get at the judge's own process; the decoy must name them
    "an answer that equals everything": """
class Same:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
def f(x):
    return Same()
""",
    "reads the expected value off the stack": """
import sys
def f(x):
    frame = sys._getframe()
    while "expected" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["expected"][frame.f_locals["i"]]
""",
    "forges the shared verdict": """
import sys, posix
def f(x):
    frame = sys._getframe()
    while "progress" not in frame.f_locals:
        frame = frame.f_back
    names = frame.f_locals
    for i in range(len(names["inputs"])):
        names["details"][i] = True
    names["progress"].value = len(names["inputs"])
    names["stat"].value = 0
    posix._exit(0)
""",
    "changes the expected values": """
import sys
class Any:
    def __eq__(self, other):
        return True
def f(x):
    frame = sys._getframe()
    while "expected" not in frame.f_locals:
        frame = frame.f_back
    expected = frame.f_locals["expected"]
    for i in range(len(expected)):
        expected[i] = Any()
    return 0
""",
}

NUMPY_CHEAT = """
import numpy
numpy.allclose = lambda *a, **k: True
def f(x):
    return 0.0
"""
