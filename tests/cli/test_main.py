"""The frame of `nnc`: help, usage errors, exit codes, errors nobody foresaw, closed pipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nncompiler import __version__, cli
from nncompiler.errors import CompilerBug, Limitation, UserError
from tests.cli.conftest import MODELS, REPOSITORY, Nnc


def run_python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A Python process that can import the package."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=REPOSITORY, timeout=60,
        env={**os.environ, **env}, check=False,
    )  # fmt: skip


def test_help_lists_every_verb(nnc: Nnc) -> None:
    """`nnc --help` names each verb with what it does, and exits with 0."""
    result = nnc("--help")
    assert result.code == 0
    for verb, text in cli.VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(text)}$", result.out, re.M)


@pytest.mark.parametrize("verb", sorted(set(cli.VERBS) - {"report"}))
def test_every_verb_has_help(nnc: Nnc, verb: str) -> None:
    """`nnc VERB --help` shows the usage of that verb."""
    result = nnc(verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"usage: nnc {verb} ")


def test_version_is_that_of_the_project(nnc: Nnc) -> None:
    """`nnc --version`, the package and pyproject.toml agree."""
    declared = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    assert declared is not None and declared[1] == __version__
    assert nnc("--version").out == f"nnc {__version__}\n"


@pytest.mark.parametrize(("words", "text"), [
    (["chekc", "a.nn"], "did you mean 'check'?"),
    (["xyzzy"], "verbs: check, compile"),
    (["check"], "the following arguments are required: file"),
    (["check", "a.nn", "--bogus"], "unrecognized arguments: --bogus"),
    (["train", "a.nn", "--data", "d", "--epoch", "1"], "did you mean '--epochs'?"),
    (["check", "a.nn", "--parms"], "did you mean '--params'?"),
    (["dump", "a.nn", "--stage", "bogus"], "invalid choice: 'bogus'"),
    (["check", str(MODELS / "tiny.nn"), "--batch", "0"], "from 1 to 2147483647, but found '0'"),
    (["check", str(MODELS / "tiny.nn"), "--batch", "1e3"], "found '1e3'"),
    (["check", str(MODELS / "tiny.nn"), "--batch", "-4"], "found '-4'"),
    (["check", str(MODELS / "tiny.nn"), "--size", "batch"], "write NAME=N"),
    (["check", str(MODELS / "tiny.nn"), "--size", "batch=9" + "9" * 5000], "found '9999"),
    (["check", str(MODELS / "tiny.nn"), "--size", "batch=2", "--batch", "3"], "given twice"),
    (["check", str(MODELS / "tiny.nn"), "--dtype", "f16"], "f32 or f64, but found 'f16'"),
    (["compile", str(MODELS / "tiny.nn"), "--size", "batch=2", "--batch", "3"], "by both"),
    (["train", "a.nn", "--data", "b.npz", "--lr", "-1"], "found '-1'"),
    (["train", "a.nn", "--data", "b.npz", "--lr=nan"], "number above 0, but found 'nan'"),
    (["train", "a.nn", "--data", "b.npz", "--validation", "1"], "below 1, but found '1'"),
])  # fmt: skip
def test_wrong_command_line(nnc: Nnc, words: list[str], text: str) -> None:
    """A wrong command line says what was expected and exits with 2."""
    result = nnc(*words)
    assert (result.code, result.out) == (2, "")
    assert text in result.err
    assert re.match(r"error NN09\d\d: ", result.err)


def test_no_verb_shows_help_on_stderr(nnc: Nnc) -> None:
    """`nnc` alone is a wrong command line."""
    result = nnc()
    assert result.code == 2 and result.out == "" and "usage: nnc" in result.err


@pytest.mark.parametrize(("error", "code", "text"), [
    (UserError("NN0101", "bad"), 1, "error NN0101: bad\n"),
    (Limitation("NN0102", "later"), 3, "limitation NN0102: later\n"),
    (CompilerBug("NN0103", "broken"), 70, "internal error NN0103: broken\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
])  # fmt: skip
def test_exit_code_of_an_error(
    nnc: Nnc, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    """Each kind of error has its exit code and is told without a traceback."""
    _raise(monkeypatch, error)
    result = nnc("ops")
    assert (result.code, result.out, result.err) == (code, "", text)


def test_unforeseen_error(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other exception exits with 70, asks for a report and says where it was."""
    _raise(monkeypatch, ZeroDivisionError("oh"))
    result = nnc("ops")
    assert result.code == 70
    assert "internal error NN0999: ZeroDivisionError: oh (test_main.py:" in result.err
    assert "report it" in result.err and "Traceback" not in result.err


def test_traceback_on_request(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """NNC_TRACEBACK=1 shows the traceback of errors raised on purpose, too."""
    _raise(monkeypatch, UserError("NN0101", "bad"))
    monkeypatch.setenv("NNC_TRACEBACK", "1")
    assert "Traceback" in nnc("ops").err
    monkeypatch.setenv("NNC_TRACEBACK", "0")
    assert "Traceback" not in nnc("ops").err


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from nncompiler.cli import ops

    def run(args: object) -> None:
        raise error

    monkeypatch.setattr(ops, "run", run)


def test_what_is_no_source(nnc: Nnc, tmp_path: Path) -> None:
    """A library in place of the source it was made from, a source in place of a graph."""
    library = tmp_path / "a.so"
    library.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    for verb in ("check", "dump", "fmt", "bench", "profile", "report", "gradcheck"):
        result = nnc(verb, library)
        assert result.code == 1 and "the .nn file it was compiled from" in result.err, verb
    source = tmp_path / "a.nn"
    source.write_text("model a { }")
    result = nnc("opt", source, "-p", "cse")
    assert result.code == 1 and f"help: make one: nnc dump {source} --stage graph" in result.err


def test_arguments_that_are_too_many(nnc: Nnc) -> None:
    """The help is that of the verb."""
    result = nnc("check", "a.nn", "b.nn", "--bogus")
    assert result.code == 2 and "unrecognized arguments: b.nn --bogus" in result.err
    assert "`nnc check --help`" in result.err


def test_missing_file(nnc: Nnc, tmp_path: Path) -> None:
    """A file that is not there is an error of the user, for every verb that reads one."""
    missing = tmp_path / "missing.nn"
    for words in (["check"], ["dump"], ["fmt"], ["opt"], ["gradcheck"], ["compile"]):
        result = nnc(*words, missing)
        assert result.code == 1 and "error NN0901: cannot read" in result.err, words


@pytest.mark.parametrize("verb", ["--help", "fmt", "check"])
def test_imports_stay_away(verb: str) -> None:
    """Help, and verbs that make no machine code, do not import llvmlite; help not even NumPy."""
    heavy = ["llvmlite", "networkx"] + (["numpy", "nncompiler.ir"] if verb != "check" else [])
    words = [verb] if verb == "--help" else [verb, "models/tiny.nn"]
    code = (
        "import sys; from nncompiler.cli import main; code = main(sys.argv[2:]);"
        "found = [m for m in sys.argv[1].split() if m in sys.modules];"
        "sys.exit(f'{code} {found}' if code or found else 0)"
    )
    result = run_python("-c", code, " ".join(heavy), *words)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_none_of_its_rooms() -> None:
    """`import nncompiler` costs nothing: no NumPy, no room."""
    code = (
        "import sys, nncompiler;"
        "print(*[m for m in sys.modules if m.startswith(('nncompiler', 'numpy'))])"
    )
    assert run_python("-c", code).stdout.split() == ["nncompiler"]


def test_reader_gone() -> None:
    """When the reader of stdout goes away, nnc ends quietly with 141."""
    command = "exec 2>&3; { python -m nncompiler ops; echo $? >&4; } | true"
    command = command.replace("python", f"'{sys.executable}'")
    reading, writing = os.pipe()
    codes, code_in = os.pipe()
    script = f"exec 3>&{writing} 4>&{code_in}; (sleep 0.05; {command})"
    subprocess.run(["bash", "-c", script], cwd=REPOSITORY, pass_fds=(writing, code_in), check=True)
    os.close(writing)
    os.close(code_in)
    with os.fdopen(reading) as errors, os.fdopen(codes) as found:
        assert errors.read() == ""
        assert found.read() == "141\n"


@pytest.mark.parametrize("words", [["check"], ["eval", "--data", "x.npz"]])
def test_a_file_without_its_suffix(nnc: Nnc, words: list[str]) -> None:
    """The file that is there is named."""
    result = nnc(words[0], MODELS / "tiny", *words[1:])
    assert result.code == 1 and "NN0901" in result.err and "tiny.nn'?" in result.err
    assert "help" not in nnc(words[0], MODELS / "tinny", *words[1:]).err


def test_not_enough_memory(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is too large for the machine is no error of the compiler."""
    def greedy(size: int) -> None:
        raise MemoryError(f"Unable to allocate {size} bytes")

    monkeypatch.setattr("nncompiler.runtime.state.aligned", greedy)
    result = nnc("bench", MODELS / "tiny.nn", "--seconds", "0.01")
    assert result.code == 1 and "NN0927" in result.err and "unable to allocate" in result.err
    assert "bug" not in result.err and "nnc report" in result.err


@pytest.mark.parametrize("words", [["ops"], ["doctor", "--json"]])
def test_results_that_stdout_does_not_take(words: list[str]) -> None:
    """A full disk behind stdout is no error of the compiler."""
    command = [sys.executable, "-m", "nncompiler", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "error NN0906: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full"])
def test_streams_that_are_not_there(closed: str, tmp_path: Path) -> None:
    """Who closes stdout or stderr wants to hear nothing of it, and has the work done."""
    script = f"'{sys.executable}' -m nncompiler compile models/tiny.nn --time -o {tmp_path}/t.so"
    done = subprocess.run(
        ["bash", "-c", f"{script} {closed}"], cwd=REPOSITORY, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "t.so").exists()


def test_module_is_the_command() -> None:
    """`python -m nncompiler` is `nnc`, exit codes included."""
    assert run_python("-m", "nncompiler", "--version").stdout == f"nnc {__version__}\n"
    assert run_python("-m", "nncompiler", "bogus").returncode == 2


@pytest.mark.parametrize(("words", "kept"), [(["ops"], True), (["compile", "--help"], False)])
def test_a_process_does_not_search_for_garbage_as_it_ends(words: list[str], kept: bool) -> None:
    """What is left is frozen; `compile` goes without searches from the start."""
    script = (
        "import gc, sys\nfrom nncompiler.cli import main\n"
        f"sys.argv[1:] = {words!r}\nmain()\n"
        "print(gc.get_freeze_count() > 0, gc.isenabled(), file=sys.stderr)"
    )
    assert run_python("-c", script).stderr.split() == ["True", str(kept)]


def test_commands_inside_a_process_leave_its_garbage_to_it() -> None:
    """`main` with arguments changes nothing of the collector."""
    script = (
        "import gc, sys\nfrom nncompiler.cli import main\nmain(['compile', '--help'])\n"
        "print(gc.get_freeze_count(), gc.isenabled(), file=sys.stderr)"
    )
    assert run_python("-c", script).stderr.split() == ["0", "True"]
