"""Hostile answers to exercise 06.2: each tries to earn points, or to do harm, without the work.

Data, one entry an attack: name -> (what it tries, source). Every source defines `backward_pass` and
returns a wrong result unless its attack succeeds, so all points that it earns are unearned. `{...}`
stands for places that the runner fills in.
"""

HEAD = "import numpy as np\nimport os, sys\n"
WRONG = "(np.zeros((T + 1, len(end))), np.full((T, *r.shape), 1 / r.shape[1]))"
DEF = "def backward_pass(P, r, end, T, g, b):\n"
# with the check's own `_backward` in hand this is the whole answer
SOLVED = (
    "    v, q = back(P, r, end, T, g, b)\n    x = q / b\n    top = x.max(-1, keepdims=True)\n"
    "    p = np.exp(x - top)\n    return v, p / p.sum(-1, keepdims=True)\n"
)


def _steal(get: str) -> str:
    """An answer that tries to get hold of the check's reference."""
    tried = "".join(f"        {line}\n" for line in get.splitlines())
    return (
        f"{HEAD}{DEF}    try:\n{tried}    except BaseException:\n        return {WRONG}\n{SOLVED}"
    )


def _do(body: str, before: str = "") -> str:
    """An answer that does something and then returns a wrong result."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return (
        f"{HEAD}{before}{DEF}    try:\n{lines}    except Exception as problem:\n        pass\n"
        f"    return {WRONG}\n"
    )


def _frame(reply: str, number: str = "n", more: str = "") -> str:
    """An answer that writes bytes of its own where the replies go."""
    return _do(
        "import struct, json\n"
        f"body = {reply}\n"
        "for fd in range(3, 64):\n    for n in range(1, 4):\n        try:\n"
        f"            os.write(fd, struct.pack('<II', {number}, len(body)) + body)\n{more}"
        "        except OSError: pass"
    )


def _message(tree: str, buffers: str = "[]", raw: str = "b''") -> str:
    """The expression of a reply whose JSON is hand-made."""
    return (
        f"(lambda t: struct.pack('<I', len(t)) + t + {raw})"
        f"(json.dumps({{'tree': {{'t': 'dict', 'v': [[{{'t': 'str', 'v': 'value'}}, {tree}]]}},"
        f" 'buffers': {buffers}}}).encode())"
    )


_RIGHT = "{'t': 'tuple', 'v': [{'t': 'list', 'v': []}, {'t': 'list', 'v': []}]}"
_EXEC = "space = {}\nexec(compile(text, 'x', 'exec'), space)\nback = space['_backward']"
_LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_READ = _LIBC + (
    "fd = libc.open(b'{chapter}', 0)\nbuffer = ctypes.create_string_buffer(400000)\n"
    "n = libc.read(fd, buffer, 400000)\ntext = buffer.raw[:n].decode()\n"
)

# these are tried only where the kernel is known to stop them: they would hit the whole machine
RISKY = {"kills all that it may", "kills the grader in C", "copies the grader's memory in C"}

ANSWERS = {
    # ------------------------------------------------- the reference and the source of the check
    "imports the check": (
        "reference",
        _steal("from irlbook.exercises.chapters.ch06 import _backward as back"),
    ),
    "imports it by path": (
        "reference",
        _steal(
            "import importlib.util as u\ns = u.spec_from_file_location('c', '{chapter}')\n"
            "m = u.module_from_spec(s)\ns.loader.exec_module(m)\nback = m._backward"
        ),
    ),
    "asks the registry": (
        "reference",
        _steal(
            "from irlbook.exercises import get\nback = get('06.2').check.__globals__['_backward']"
        ),
    ),
    "executes its text": ("reference", _steal(f"text = open('{{chapter}}').read()\n{_EXEC}")),
    "reads it as a resource": (
        "reference",
        _steal(
            "import pkgutil\ntext = pkgutil.get_data('irlbook.exercises.chapters', 'ch06.py')"
            f".decode()\n{_EXEC}"
        ),
    ),
    "reads it line by line": (
        "reference",
        _steal(f"import linecache\ntext = ''.join(linecache.getlines('{{chapter}}'))\n{_EXEC}"),
    ),
    "opens it as code": (
        "reference",
        _steal(f"import io\ntext = io.open_code('{{chapter}}').read().decode()\n{_EXEC}"),
    ),
    "runs it as a script": (
        "reference",
        _steal("import runpy\nback = runpy.run_path('{chapter}')['_backward']"),
    ),
    "reads its bytecode": (
        "reference",
        _steal(
            "import glob, marshal\npath = glob.glob(os.path.dirname('{chapter}') + "
            "'/__pycache__/ch06*.pyc')[0]\nspace = {'__name__': 'c'}\n"
            "exec(marshal.loads(open(path, 'rb').read()[16:]), space)\nback = space['_backward']"
        ),
    ),
    "goes through a link": (
        "reference",
        _steal(f"os.symlink('{{chapter}}', 'mine')\ntext = open('mine').read()\n{_EXEC}"),
    ),
    "goes through a linked folder": (
        "reference",
        _steal(
            "os.symlink(os.path.dirname('{chapter}'), 'there')\n"
            f"text = open('there/ch06.py').read()\n{_EXEC}"
        ),
    ),
    "makes a hard link": (
        "reference",
        _steal(f"os.link('{{chapter}}', 'mine')\ntext = open('mine').read()\n{_EXEC}"),
    ),
    "goes through proc": (
        "reference",
        _steal(f"text = open('/proc/self/root{{chapter}}').read()\n{_EXEC}"),
    ),
    "goes through the parent's root": (
        "reference",
        _steal(f"text = open(f'/proc/{{os.getppid()}}/root{{chapter}}').read()\n{_EXEC}"),
    ),
    "opens the folder first": (
        "reference",
        _steal(
            "f = os.open(os.path.dirname('{chapter}'), os.O_RDONLY)\n"
            f"text = open(os.open('ch06.py', os.O_RDONLY, dir_fd=f)).read()\n{_EXEC}"
        ),
    ),
    "reads it in C": ("reference", _steal(_READ + _EXEC)),
    "maps it in C": (
        "reference",
        _steal(
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nfd = libc.open(b'{chapter}', 0)\n"
            "n = os.stat('{chapter}').st_size\nplace = libc.mmap(None, n, 1, 2, fd, 0)\n"
            f"text = ctypes.string_at(ctypes.c_void_p(place), n).decode()\n{_EXEC}"
        ),
    ),
    "copies it in C": (
        "reference",
        _steal(
            _LIBC + "i = libc.open(b'{chapter}', 0)\no = libc.open(b'mine', 0o102, 0o600)\n"
            "libc.sendfile(o, i, None, 400000)\n"
            f"text = open('mine').read()\n{_EXEC}"
        ),
    ),
    "empties the hook, then imports": (
        "reference",
        _steal(
            "import gc\nfor f in gc.get_objects():\n"
            "    if getattr(f, '__name__', '') == 'hook' and hasattr(f, '__closure__'):\n"
            "        for c in f.__closure__:\n"
            "            if isinstance(c.cell_contents, list):\n"
            "                c.cell_contents.append(True)\n"
            "from irlbook.exercises.chapters.ch06 import _backward as back"
        ),
    ),
    "looks for it among all objects": (
        "reference",
        _steal(
            "import gc\nback = [f for f in gc.get_objects() if getattr(f, '__name__', '') == "
            "'_backward'][0]"
        ),
    ),
    "walks up the stack": (
        "reference",
        _steal(
            "f = sys._getframe()\nwhile f and '_backward' not in f.f_globals:\n    f = f.f_back\n"
            "back = f.f_globals['_backward']"
        ),
    ),
    "takes the solution": (
        "reference",
        _steal(
            "import json\nbook = json.load(open('{solution}'))\n"
            "text = [''.join(c['source']) for c in book['cells'] if 'def backward_pass' in "
            "''.join(c['source'])][0]\nspace = {'np': np}\nexec(text, space)\n"
            "return space['backward_pass'](P, r, end, T, g, b)"
        ),
    ),
    "takes another student's": (
        "reference",
        _steal(
            "import json\nbook = json.load(open('{other}'))\n"
            "text = [''.join(c['source']) for c in book['cells'] if 'def backward_pass' in "
            "''.join(c['source'])][0]\nspace = {'np': np}\nexec(text, space)\n"
            "return space['backward_pass'](P, r, end, T, g, b)"
        ),
    ),
    "takes the wrong answers' module": (
        "reference",
        _steal("from irlbook.exercises.wrong_answers.ch06 import _backward as back"),
    ),
    "reads the grader's memory": (
        "reference",
        _steal(
            "parent = os.getppid()\nfor line in open(f'/proc/{parent}/maps'):\n"
            "    a, z = (int(x, 16) for x in line.split()[0].split('-'))\n"
            "    with open(f'/proc/{parent}/mem', 'rb') as m:\n        m.seek(a)\n"
            "        if b'def _backward(P' in (text := m.read(z - a)):\n            break\n"
            "raise ValueError"
        ),
    ),
    "copies the grader's memory in C": (
        "reference",
        _steal(
            _LIBC + "b2 = ctypes.create_string_buffer(64)\n"
            "done = libc.ptrace(16, os.getppid(), None, None)\n"
            "raise ValueError if done else KeyboardInterrupt"
        ),
    ),
    # ------------------------------------------------------------- what the comparison stands on
    "patches numpy": (
        "patch",
        _do(
            "np.allclose = np.isclose = np.all = lambda *a, **k: np.bool_(True)\n"
            "np.abs = lambda x: x * 0"
        ),
    ),
    "patches the helpers": (
        "patch",
        _do(
            "from irlbook.exercises import expect as e\n"
            "e.expect_close = e.expect = e.expect_distribution = lambda *a, **k: None"
        ),
    ),
    "patches the run": (
        "patch",
        _do(
            "from irlbook.exercises import model, partial\n"
            "model.run_check = partial.properties = lambda *a, **k: None"
        ),
    ),
    "makes failures impossible": (
        "patch",
        _do("from irlbook import errors as e\ne.CheckFailed.__init__ = None\ndel e.CheckFailed"),
    ),
    "replaces modules": (
        "patch",
        _do(
            "for name in list(sys.modules):\n    if 'exercises' in name:\n"
            "        sys.modules[name] = None"
        ),
    ),
    "patches the built-ins": (
        "patch",
        _do("import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a: True"),
    ),
    "leaves a sitecustomize": (
        "patch",
        _do("for n in ('sitecustomize.py', 'usercustomize.py', 'numpy.py'):\n"
            "    open(n, 'w').write('raise SystemExit(0)')"),
    ),
    "returns what is equal to all": (
        "patch",
        HEAD + "class Same(np.ndarray):\n    def __eq__(self, other):\n        return True\n"
        "    def __array_ufunc__(self, *a, **k):\n        return True\n"
        + DEF + f"    v, p = {WRONG}\n    return v.view(Same), p.view(Same)\n",
    ),
    "returns an object that pretends": (
        "patch",
        HEAD + "class Any:\n    shape = (1,)\n    def __array__(self, *a, **k):\n        raise "
        "SystemExit(0)\n    def __reduce__(self):\n        return (os._exit, (0,))\n"
        + DEF + "    return Any(), Any()\n",
    ),
    "returns nothing but NaN": ("patch", HEAD + DEF + f"    v, p = {WRONG}\n"
                                "    return v * np.nan, p * np.nan\n"),
    "returns infinities": ("patch", HEAD + DEF + f"    v, p = {WRONG}\n"
                           "    return v + np.inf, p + np.inf\n"),
    "changes the arguments": (
        "patch",
        HEAD + DEF + f"    r[:] = 0; P[:] = 0; end[:] = True\n    return {WRONG}\n",
    ),
    "returns its arguments": ("patch", HEAD + DEF + "    return P, r\n"),
    "remembers earlier calls": (
        "patch",
        HEAD + "seen = []\n" + DEF + f"    seen.append(r)\n    return {WRONG} if len(seen) < 2 "
        "else seen\n",
    ),
    "raises what checks look for": (
        "patch",
        HEAD + "from irlbook.errors import CheckFailed\n" + DEF
        + "    raise type('CheckFailed', (CheckFailed,), {})('all holds', 'ok: 06.2')\n",
    ),
    # ------------------------------------------------------------------------- replies of its own
    "forges a reply": ("forge", _frame(_message(_RIGHT))),
    "forges one too early": ("forge", _frame(_message(_RIGHT), number="n + 1")),
    "forges two at once": (
        "forge",
        _frame(_message(_RIGHT), more="            os.write(fd, struct.pack('<II', n + 1, 0))\n"),
    ),
    "says that all is well": (
        "forge",
        _do("import json\nfor fd in range(1, 64):\n    try: os.write(fd, b'ok: 06.2 The backward "
            "pass')\n    except OSError: pass"),
    ),
    "announces 4 GB": ("forge", _frame("b''", number="n, 2**32 - 1)[:8] + struct.pack('<II', 0")),
    "sends half a reply": ("forge", _frame(_message(_RIGHT) + "[:20]")),
    "replies from a child": (
        "forge",
        _do(_LIBC + "if libc.fork() == 0:\n    import time\n    time.sleep(1)\n    os._exit(0)"),
    ),
    "closes all files": ("forge", _do("os.closerange(0, 256)")),
    "patches the codec": (
        "forge",
        _do(
            "from irlbook.exercises import codec\nold = codec.dumps\n"
            "codec.dumps = lambda v, **k: old({'value': True, 'ok': True, 'points': 99})"
        ),
    ),
    "patches the frame": (
        "forge",
        _do(
            "from irlbook.exercises import worker\nworker.write_frame.__code__ = "
            "(lambda stream, number, payload: None).__code__"
        ),
    ),
    "names another class": (
        "forge",
        _frame(_message("{'t': 'dataclass', 'name': 'Popen', 'v': [['args', 'id']]}")),
    ),
    "sends a broken world": (
        "forge",
        _frame(_message("{'t': 'dataclass', 'name': 'TabularMDP', 'v': []}")),
    ),
    "sends a pickle": ("forge", _frame("__import__('pickle').dumps(print)")),
    # ----------------------------------------------------------------------- replies that exhaust
    "shares one buffer 10,000 times": (
        "exhaust",
        _frame(
            _message(
                "{'t': 'list', 'v': [{'t': 'array', 'd': '<f8', 's': [1000000], 'i': 0}] * 10000}",
                "[8000000]",
                "bytes(8000000)",
            )
        ),
    ),
    "sends a set of colliding keys": (
        "exhaust",
        _frame(_message("{'t': 'set', 'v': [i * (2**61 - 1) for i in range(60000)]}")),
    ),
    "sends a dict of colliding keys": (
        "exhaust",
        _frame(_message("{'t': 'dict', 'v': [[i * (2**61 - 1), 0] for i in range(60000)]}")),
    ),
    "sends colliding fractions": (
        "exhaust",
        _frame(_message("{'t': 'set', 'v': [2.0 ** (61 - 61 * k) for k in range(17)] * 3000}")),
    ),
    "sends a huge empty sparse matrix": (
        "exhaust",
        HEAD + "import scipy.sparse as sp\n" + DEF
        + "    return sp.csr_array((2**20, 2**30)), sp.csr_array((2**20, 2**30))\n",
    ),
    "sends a sparse matrix with wild indices": (
        "exhaust",
        _frame(
            _message(
                "{'t': 'csr', 'kind': 'array', 's': [4, 4], 'v': [{'t': 'array', 'd': '<f8', 's': "
                "[1], 'i': 0}, {'t': 'array', 'd': '<i4', 's': [1], 'i': 1}, {'t': 'array', 'd': "
                "'<i4', 's': [5], 'i': 2}]}",
                "[8, 4, 20]",
                "bytes(8) + b'\\xff\\xff\\xff\\x7f' + b'\\x01\\0\\0\\0' * 5",
            )
        ),
    ),
    "nests lists without end": (
        "exhaust",
        HEAD + DEF + "    x = []\n    x.append(x)\n    return x, x\n",
    ),
    "nests brackets in JSON": (
        "exhaust",
        _frame("struct.pack('<I', 2000000) + b'[' * 1000000 + b']' * 1000000"),
    ),
    "sends a million numbers one by one": (
        "exhaust",
        HEAD + DEF + "    return [0.0] * 3_000_000, [[]] * 3_000_000\n",
    ),
    "sends 2 GB": ("exhaust", HEAD + DEF + "    return np.zeros(2**27), np.zeros(2**27)\n"),
    "sends text of a GB": ("exhaust", HEAD + DEF + "    return 'x' * 10**9, ''\n"),
    "sends wide text": (
        "exhaust",
        HEAD + DEF + "    return np.zeros(10**6, 'U99999'), np.zeros(3)\n",
    ),
    "sends an array of zero by very many": (
        "exhaust",
        HEAD + DEF + "    return np.zeros((0, 2**39)), np.zeros((2**39, 0))\n",
    ),
    "sends an integer of a million digits": (
        "exhaust",
        _frame("(lambda t: struct.pack('<I', len(t)) + t)(b'{\"tree\": ' + b'9' * 10**6 + b', "
               "\"buffers\": []}')"),
    ),
    "sends shapes that overflow": (
        "exhaust",
        _frame(_message("{'t': 'array', 'd': '<f8', 's': [2**39, 2**39], 'i': 0}", "[0]")),
    ),
    "sends lists of lists of rows": (
        "exhaust",
        HEAD + DEF + "    return [[[1.0] * 50] * 50] * 50, [[[1.0] * 50] * 50] * 50\n",
    ),
    "prints without end": ("exhaust", _do("while True: print('x' * 10**6)")),
    # ------------------------------------------------------------------ processes, files, memory
    "forks without end": (
        "process",
        _do(
            _LIBC + "for n in range(300):\n    if libc.fork() == 0: libc.pause()"
        ),
    ),
    "forks in Python": ("process", _do("os.fork()")),
    "outlives its run": (
        "process",
        _do(
            _LIBC + "if libc.fork() == 0:\n    libc.setsid()\n    if libc.fork() == 0:\n"
            "        while True: libc.sleep(1)\n    os._exit(0)"
        ),
    ),
    "starts a shell": ("process", _do("import subprocess\nsubprocess.run('id > {victim}/id', "
                                      "shell=True)")),
    "starts a shell in C": ("process", _do(_LIBC + "libc.system(b'id > {victim}/id')")),
    "runs a file of memory": (
        "process",
        _do(
            _LIBC + "fd = libc.memfd_create(b'x', 0)\nlibc.write(fd, open('/bin/sh', 'rb').read(),"
            " 100000)\nif libc.fork() == 0:\n    libc.execve(f'/proc/self/fd/{fd}'.encode(), None, "
            "None)\n    os._exit(1)"
        ),
    ),
    "fills a file of memory": (
        "process",
        _do(_LIBC + "fd = libc.memfd_create(b'x', 0)\nb2 = bytes(2**20)\n"
            "for n in range(300): libc.write(fd, b2, 2**20)"),
    ),
    "leaves threads behind": (
        "process",
        _do(
            "import threading\nfor n in range(50):\n"
            "    threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()"
        ),
    ),
    "kills the grader": ("process", _do("import signal\nos.kill(os.getppid(), signal.SIGKILL)")),
    "kills the grader in C": ("process", _do(_LIBC + "libc.kill(os.getppid(), 9)")),
    "kills all that it may": ("process", _do(_LIBC + "libc.kill(-1, 19)\nlibc.kill(-1, 9)")),
    "ignores signals and loops": (
        "process",
        _do("import signal\nfor n in range(1, 30):\n    try: signal.signal(n, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nwhile True: pass"),
    ),
    "raises its limits": (
        "process",
        _do("import resource as q\nfor n in (q.RLIMIT_AS, q.RLIMIT_CPU, q.RLIMIT_FSIZE):\n"
            "    q.setrlimit(n, (q.RLIM_INFINITY,) * 2)\nopen('big', 'wb').truncate(2**40)"),
    ),
    "takes memory bit by bit": (
        "process",
        HEAD + DEF + "    x = []\n    while True: x.append(bytearray(2**20))\n",
    ),
    "takes memory outside of Python": (
        "process",
        _do(_LIBC + "libc.malloc.restype = ctypes.c_void_p\nfor n in range(4000):\n"
            "    ctypes.memset(libc.malloc(2**20), 1, 2**20)"),
    ),
    "fills the disk": (
        "process",
        _do("for n in range(40):\n    open(f'f{n}', 'wb').write(bytes(2**23))"),
    ),
    "digs 1,100 folders deep": (
        "process",
        _do("for n in range(1100):\n    os.mkdir('d')\n    os.chdir('d')"),
    ),
    "takes its folder's rights away": ("process", _do("os.mkdir('d')\nos.chmod('d', 0)\n"
                                                      "os.chmod('.', 0)")),
    "removes its own folder": ("process", _do("os.rmdir(os.getcwd())")),
    "writes outside": ("process", _do("open('{victim}/keep.txt', 'w').write('mine')")),
    "writes outside in C": (
        "process",
        _do(_LIBC + "fd = libc.open(b'{victim}/keep.txt', 1)\nlibc.write(fd, b'mine', 4)"),
    ),
    "removes the class": (
        "process",
        _do("import shutil\nshutil.rmtree('{submissions}')"),
    ),
    "removes the class in C": ("process", _do(_LIBC + "libc.unlink(b'{other}')")),
    "links a victim into its folder": (
        "process",
        _do("os.symlink('{victim}', 'there')\nopen('there/keep.txt', 'w').write('mine')"),
    ),
    "empties the hook, then writes": (
        "process",
        _do(
            "import gc\nfor f in gc.get_objects():\n"
            "    if getattr(f, '__name__', '') == 'hook' and hasattr(f, '__closure__'):\n"
            "        for c in f.__closure__:\n"
            "            if isinstance(c.cell_contents, list):\n"
            "                c.cell_contents.append(True)\n"
            "open('{victim}/keep.txt', 'w').write('mine')"
        ),
    ),
    "speaks to the network": ("process", _do("import socket\nsocket.create_connection(('1.1.1.1', "
                                             "80), 2)")),
    "speaks to a socket of this machine": (
        "process",
        _do("import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0irlbook')"),
    ),
    "crashes in C": ("process", _do("import ctypes\nctypes.string_at(0)")),
    "recurses without end": (
        "process",
        _do("sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"),
    ),
    "ends in a class": ("process", HEAD + "class A:\n    os._exit(0)\n" + DEF + "    return A\n"),
    "ends at the end": (
        "process",
        _do("import atexit\natexit.register(os._exit, 0)\nsys.exit(0)"),
    ),
}  # fmt: skip
