"""What a decoder's process can do: next to nothing, whatever code has taken it over."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from sightline.media import pool as pool_module, sandbox
from sightline.media.pool import DecodePool

Pool: Any = DecodePool
linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's; see the table in sandbox")


def taken_over(monkeypatch, body, before=""):
    """Children run ``body``, which fills the dict ``found``, when asked for a file of the name "evil"."""
    source = textwrap.dedent("""
        import sys; sys.path.append(sys.argv[1])
        from sightline.media import sandbox, units
        BEFORE
        def evil(path, settings, handed):
            import contextlib, ctypes, errno, json, os, signal, socket, subprocess, threading
            found = {}
            @contextlib.contextmanager
            def trying(name):
                try:
                    yield
                    found[name] = "done"
                except OSError as error:
                    found[name] = errno.errorcode.get(error.errno, str(error))
            BODY
            yield units.Unit(kind="text", text=json.dumps(found))
        real = units.units
        units.units = lambda path, *rest: (evil if path == "evil" else real)(path, *rest)
        from sightline.media.child import main
        main(int(sys.argv[2]))
    """)
    source = source.replace("BEFORE", before).replace(
        "    BODY", textwrap.indent(textwrap.dedent(body), "    ").lstrip("\n")
    )
    monkeypatch.setattr(pool_module, "_START", source)


@pytest.fixture
def ask(tmp_path):
    """What the code in the child found, and what the child gave up."""
    (tmp_path / "evil").write_text("the words of the file itself")

    def ask():
        with Pool() as pool:
            (unit,) = pool.units(tmp_path / "evil")
            return json.loads(unit.text), pool.held

    return ask


def landlock():
    """The kernel's version of Landlock, 0 without."""
    import ctypes

    return max(ctypes.CDLL(None).syscall(sandbox.LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1), 0)


@linux
def test_everything_is_given_up_that_this_kernel_knows(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with Pool() as pool:
        list(pool.units(tmp_path / "a.txt"))
        held = pool.held
    assert held.pop("paths") == (landlock() > 0)
    assert held.pop("calls") == (os.uname().machine in sandbox.ARCHITECTURES)
    assert held == {"memory": True, "files": True, "rights": True, "parent": True, "network": True}


@linux
def test_no_socket_of_any_family(monkeypatch, ask):
    taken_over(
        monkeypatch,
        """
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                with trying(f"{family} {kind}"):
                    socket.socket(family, kind)
        with trying("pair"):
            socket.socketpair()
        """,
    )
    found, held = ask()
    if not held["calls"]:
        pytest.skip("this architecture has no filter of calls here")
    assert len(found) == 19 and set(found.values()) == {"EPERM"}


@linux
def test_a_network_that_leads_nowhere_where_there_is_no_filter(monkeypatch, ask):
    taken_over(
        monkeypatch,
        """
        for place in (("127.0.0.1", 9), ("192.0.2.1", 80)):
            with trying(place[0]):
                socket.create_connection(place, 1)
        """,
        before="sandbox._refuse_calls = lambda libc: False",
    )
    found, held = ask()
    if not held["network"]:
        pytest.skip("this machine gives no network namespace to this user")
    assert not held["calls"] and "done" not in found.values() and "ECONNREFUSED" not in found.values()


@linux
def test_nothing_on_the_disk_changes(monkeypatch, ask, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    (room / "full").write_text("kept")
    (room / "folder").mkdir()
    before = {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in [room, *room.iterdir()]}
    taken_over(
        monkeypatch,
        f"""
        room = {str(room)!r}
        full = room + "/full"
        with trying("create"): open(room + "/new", "w")
        with trying("append"): open(full, "a")
        with trying("replace"): open(full, "w")
        with trying("truncate"): os.truncate(full, 0)
        with trying("remove"): os.remove(full)
        with trying("rename"): os.rename(full, room + "/other")
        with trying("link"): os.link(full, room + "/other")
        with trying("symlink"): os.symlink(full, room + "/other")
        with trying("mkdir"): os.mkdir(room + "/new")
        with trying("rmdir"): os.rmdir(room + "/folder")
        with trying("fifo"): os.mkfifo(room + "/new")
        with trying("mode"): os.chmod(full, 0o777)
        with trying("owner"): os.chown(full, 1, 1)
        with trying("times"): os.utime(full, (0, 0))
        with trying("attribute"): os.setxattr(full, "user.a", b"b")
        with trying("through the file"): os.write(handed.descriptor, b"x")
        with trying("mode of the file"): os.fchmod(handed.descriptor, 0o777)
        with trying("memory"): os.write(os.memfd_create("x"), b"x")
        for place in ("/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")):
            with trying(place): open(place + "/sightline-was-here", "w")
        """,
    )
    found, held = ask()
    if not held["paths"]:
        pytest.skip("this kernel has no Landlock: only RLIMIT_FSIZE holds, see test_pool")
    assert "done" not in found.values(), found
    assert {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in [room, *room.iterdir()]} == before
    assert (room / "full").read_text() == "kept"
    assert (tmp_path / "evil").read_text() == "the words of the file itself"


@linux
def test_of_all_files_only_the_given_one_is_read(monkeypatch, ask, tmp_path):
    (tmp_path / "secret").write_text("a key")
    monkeypatch.setenv("SECRET_TOKEN", "a token")
    taken_over(
        monkeypatch,
        f"""
        found["given"] = os.pread(handed.descriptor, 100, 0).decode()
        found["told"] = path
        for place in ({str(tmp_path / "secret")!r}, {str(tmp_path / "evil")!r}, "/etc/passwd", "/etc/hostname",
                      "/proc/self/environ", "/proc/self/mem", f"/proc/{{os.getppid()}}/environ",
                      f"/proc/{{os.getppid()}}/mem", f"/proc/self/fd/{{handed.descriptor}}", "/dev/mem"):
            with trying(place): open(place, "rb").read(1)
        for place in ("/", "/etc", "/home", "/root", "/proc", {str(tmp_path)!r}):
            with trying(place): os.listdir(place)
        """,
    )
    found, held = ask()
    if not held["paths"]:
        pytest.skip("this kernel has no Landlock")
    assert found.pop("given") == "the words of the file itself" and found.pop("told") == "evil"
    assert set(found.values()) <= {"EACCES", "ENOENT"}, found


@linux
def test_no_processes_and_no_signals(monkeypatch, ask):
    taken_over(
        monkeypatch,
        """
        with trying("fork"):
            if os.fork() == 0:
                os._exit(0)
        with trying("program"): subprocess.run(["/bin/true"])
        with trying("exec"): os.execv("/bin/true", ["true"])
        with trying("parent"): os.kill(os.getppid(), signal.SIGTERM)
        with trying("everybody"): os.kill(-1, 0)
        with trying("first"): os.kill(1, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        for name, numbers in sandbox.REFUSED.items():
            number = numbers[sandbox.ARCHITECTURES[os.uname().machine][1]]
            if number >= 0:
                ctypes.set_errno(0)
                libc.syscall(number, *[ctypes.c_long(-1)] * 6)
                found[name] = errno.errorcode.get(ctypes.get_errno(), "done")
        # and what decoders do need
        threads = [threading.Thread(target=found.setdefault, args=(str(n), "thread")) for n in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
    )
    found, held = ask()
    if not held["calls"]:
        pytest.skip("this architecture has no filter of calls here")
    assert [found.pop(str(number)) for number in range(4)] == ["thread"] * 4
    assert set(found.values()) == {"EPERM"}, found
    assert len(found) > 80


@linux
def test_rights_do_not_come_back(monkeypatch, ask):
    taken_over(
        monkeypatch,
        """
        import resource
        status = (ctypes.c_uint32 * 6)()
        header = (ctypes.c_uint32 * 2)(sandbox.CAPABILITY_VERSION_3, 0)
        ctypes.CDLL(None).capget(header, status)
        found["capabilities"] = [int(status[0]), int(status[1])]
        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CORE):
            try:
                resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                found[str(limit)] = "done"
            except (ValueError, OSError):
                found[str(limit)] = "refused"
        """,
    )
    found, _ = ask()
    effective, permitted = found.pop("capabilities")
    assert effective == permitted and effective in {0, sandbox.CAP_DAC_READ_SEARCH if os.geteuid() == 0 else 0}
    assert set(found.values()) == {"refused"}


@linux
@pytest.mark.parametrize("without", ["_lock_paths", "_refuse_calls", "_drop_capabilities"])
def test_what_the_system_does_not_grant_is_said_and_decoding_goes_on(without, monkeypatch, tmp_path):
    taken_over(monkeypatch, "pass", before=f"sandbox.{without} = lambda *_: False")
    (tmp_path / "a.txt").write_text("words")
    with Pool() as pool:
        assert [unit.text for unit in pool.units(tmp_path / "a.txt")] == ["words"]
    assert [name for name, given in pool.held.items() if not given] == [
        {"_lock_paths": "paths", "_refuse_calls": "calls", "_drop_capabilities": "rights"}[without]
    ]


@linux
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_well_formed(machine):
    code = sandbox._filter(machine, 1234)
    assert len(code) < 4096, "the kernel's limit"
    for place, (operation, yes, no, _) in enumerate(code):
        if operation != sandbox.RETURN:
            assert place + 1 + max(yes, no) < len(code)
    numbers = [calls[sandbox.ARCHITECTURES[machine][1]] for calls in sandbox.REFUSED.values()]
    numbers = [number for number in numbers if number >= 0]
    assert len(set(numbers)) == len(numbers)


@linux
def test_an_ordinary_user_has_the_same(tmp_path):
    """Root is made ordinary: without capabilities, and so that a new program gets none either."""
    script = textwrap.dedent("""
        import ctypes, json, struct, sys
        libc = ctypes.CDLL(None)
        no_root = 0b11
        libc.prctl(28, no_root, 0, 0, 0)  # PR_SET_SECUREBITS
        assert libc.capset(struct.pack("<Ii", 0x20080522, 0), bytes(24)) == 0
        assert libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == -1
        from sightline.media.pool import DecodePool
        with DecodePool() as pool:
            print(json.dumps([[unit.text for unit in pool.units(sys.argv[1])], pool.held]))
    """)
    (tmp_path / "a.txt").write_text("words")
    command = [sys.executable, "-P", "-B", "-c", script, str(tmp_path / "a.txt")]
    environment = {"PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    texts, held = json.loads(run.stdout)
    assert texts == ["words"]
    assert held["files"] and held["memory"] and held["rights"] and held["parent"] and held["network"]
    assert held["paths"] == (landlock() > 0)


def test_a_child_that_was_taken_over_cannot_keep_the_parent(monkeypatch, ask, tmp_path):
    """It may say anything on the pipe, or nothing: that costs its one file."""
    taken_over(monkeypatch, "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG)); threading.Event().wait()")
    caught: Any = []
    pool = Pool()
    stream = pool.units(tmp_path / "evil")
    thread = threading.Thread(target=lambda: caught.append(next(stream, None)), daemon=True)
    monkeypatch.setattr(threading, "excepthook", lambda error: caught.append(error.exc_value))
    thread.start()
    while not pool._alive:
        thread.join(0.05)
    pool.close()
    thread.join(30)
    assert not thread.is_alive() and caught[0].code == "crash"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
