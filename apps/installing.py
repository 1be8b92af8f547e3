"""Where applications come from: their registries, by their ordinary clients, once for each lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from apps.stand import HOME
from tests.support.gunicorn import PROJECT

HERE = PROJECT / "apps"


@contextlib.contextmanager
def _once(folder: Path, key: str) -> Iterator[bool]:
    """Whether it must be made: its mark is missing, or another lock's. Of several processes one makes it."""
    mark, turn = folder / ".installed", folder.with_name(f"{folder.name}.turn")
    turn.parent.mkdir(parents=True, exist_ok=True)
    with turn.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if mark.exists() and mark.read_text() == key:
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        mark.write_text(key)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


class Missing(Exception):
    """A program that an application needs is not on this machine."""


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """Run an installer; what it printed, or a failure that says it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environ,
    )
    assert done.returncode == 0, f"{command[0]}: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout


def python(name: str, *, source: Path | None = None) -> Path:
    """The interpreter of a virtual environment with the packages of `apps/python/NAME.txt`, or of another folder's."""
    lock = (source or HERE / "python") / f"{name}.txt"
    key = f"{sys.version} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    folder = HOME / "python" / name
    with _once(folder, key) as wanted:
        if wanted:
            run(sys.executable, "-m", "venv", folder)
            run(
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--requirement",
                lock,
            )
    return folder / "bin/python"


def python_version(name: str, package: str) -> str:
    """The version of a package in such an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return run(python(name), "-c", code).strip()


def node() -> str:
    """Node: the tests' own, or the machine's."""
    own = next((PROJECT / "tests/js").glob("node_modules/node-linux-*/bin/node"), None)
    program = str(own) if own else shutil.which("node")
    assert program, "no Node here: run tests/js/install"
    return program


def npm() -> Path:
    """The folder whose `node_modules` has the packages of `apps/js/package-lock.json`."""
    source = HERE / "js"
    lock = (source / "package-lock.json").read_bytes()
    key = hashlib.sha256(lock).hexdigest()
    folder = HOME / "js"
    with _once(folder, key) as wanted:
        if wanted:
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(source / name, folder / name)
            run(_program("npm"), "ci", "--loglevel=error", "--ignore-scripts", cwd=folder)
    return folder


def npm_version(package: str) -> str:
    """The version of an npm package there."""
    return str(json.loads((npm() / "node_modules" / package / "package.json").read_text())["version"])


def go_program(
    name: str, package: str = ".", *, source: Path | None = None, build: Sequence[str] = (), nice: int = 0
) -> Path:
    """A program of `apps/go`: a package of others, or what is already there; all that it needs is locked.

    Args:
        name: Of the program, and of its folder.
        package: What is built.
        source: Another folder that has its files.
        build: More arguments for `go build`.
        nice: How far it gives way to other programs.
    """
    source = source or HERE / "go" / name
    files = sorted(file.relative_to(source) for file in source.rglob("*") if file.is_file())
    text = b"".join((source / file).read_bytes() for file in files)
    key = hashlib.sha256(text + " ".join(build).encode()).hexdigest()
    folder = HOME / "go" / name
    with _once(folder, key) as wanted:
        if wanted:
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / file, folder / file)
            if package != ".":
                (folder / "tools.go").write_text(
                    f'//go:build tools\n\npackage tools\n\nimport _ "{package}"\n'
                )
            command = ["build", "-buildvcs=false", "-mod=mod", *build, "-o", folder / name, package]
            run("nice", "-n", str(nice), _program("go"), *command, cwd=folder)
    return folder / name


def go_programs(name: str, sources: Mapping[str, str]) -> Path:
    """The folder of programs of one file each: their text by their name, and what they need locked in `apps/go`."""
    lock = HERE / "go" / name
    texts = {file.name: file.read_text() for file in sorted(lock.iterdir())}
    texts |= {f"{program}/main.go": text for program, text in sources.items()}
    folder = HOME / "go" / name
    with _once(folder, hashlib.sha256(json.dumps(texts).encode()).hexdigest()) as wanted:
        if wanted:
            for file, text in texts.items():
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_text(text)
            (folder / "bin").mkdir()
            run(_program("go"), "build", "-buildvcs=false", "-o", "bin/", "./...", cwd=folder)
    return folder / "bin"


def go_folder(program: Path, module: str) -> Path:
    """Where the files of a module are that such a program is built from."""
    command = [_program("go"), "list", "-mod=mod", "-m", "-f", "{{.Dir}}", module]
    return Path(run(*command, cwd=program.parent).strip())


def go_version(name: str, module: str, *, source: Path | None = None) -> str:
    """The version of the module that it is built from."""
    for line in ((source or HERE / "go" / name) / "go.mod").read_text().splitlines():
        words = line.removeprefix("require ").split()
        if words[:1] == [module]:
            return words[1].removeprefix("v").removesuffix("+incompatible")
    raise AssertionError(f"{module} is not in go.mod")


def maven_zip(name: str, artifact: str) -> Path:
    """The folder of a distribution in Maven's repository, `group:name:version`."""
    folder = HOME / "java" / name
    with _once(folder, artifact) as wanted:
        if wanted:
            _program("java")
            get = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
            run(_program("mvn"), "-q", "-B", f"{get}:get", f"-Dartifact={artifact}:zip", "-Dtransitive=false")
            run(
                _program("mvn"),
                "-q",
                "-B",
                f"{get}:copy",
                f"-Dartifact={artifact}:zip",
                f"-DoutputDirectory={folder}",
            )
            for archive in folder.glob("*.zip"):
                shutil.unpack_archive(archive, folder)
                archive.unlink()
    return folder


def maven_package(name: str, sources: Mapping[str, str] | None = None) -> Path:
    """The jar of a project of `apps/java`, with more files of Java where they are given: their text by their name."""
    source, more = HERE / "java" / name, sources or {}
    texts = b"".join(file.read_bytes() for file in sorted(source.rglob("*")) if file.is_file())
    folder = HOME / "java" / name
    with _once(folder, hashlib.sha256(texts + "".join(more.values()).encode()).hexdigest()) as wanted:
        if wanted:
            _program("java")
            shutil.copytree(source, folder, dirs_exist_ok=True)
            for file, text in more.items():
                (folder / "src/main/java").mkdir(parents=True, exist_ok=True)
                (folder / "src/main/java" / file).write_text(text)
            run(_program("mvn"), "-q", "-B", "package", cwd=folder)
    return next((folder / "target").glob("*.jar"))
