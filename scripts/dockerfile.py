"""Reads a Dockerfile. It knows the instructions that this project's has, and refuses all others:
a line that is not understood is not checked either.

https://docs.docker.com/reference/dockerfile/
"""

import fnmatch
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

# What these do is for whoever runs the image, and not for its build.
FOR_THE_RUN = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER"}
KNOWN = FOR_THE_RUN | {"ARG", "COPY", "ENV", "RUN", "WORKDIR"}


class NotUnderstood(Exception):
    """Something that this reader does not know."""


@dataclass
class Stage:
    base: str
    name: str
    steps: list = field(default_factory=list)  # (instruction, flags, text)

    def only(self, instruction):
        """The text of an instruction that is there once."""
        texts = [text for name, _, text in self.steps if name == instruction]
        if len(texts) != 1:
            raise NotUnderstood(f"{len(texts)} times {instruction} in the stage from {self.base}")
        return texts[0]

    def environment(self):
        pairs = [text for name, _, text in self.steps if name == "ENV"]
        return dict(pair.split("=", 1) for text in pairs for pair in text.split())

    def command(self):
        return json.loads(self.only("ENTRYPOINT")) + json.loads(self.only("CMD"))

    def health_command(self):
        return json.loads(self.only("HEALTHCHECK").split("CMD", 1)[1])


def read(path):
    """The stages of a Dockerfile, in order."""
    stages = []
    for line in _lines(Path(path).read_text()):
        name, text = line.split(None, 1)
        flags = {}
        while flag := re.match(r"--([a-z-]+)=(\S+)\s+", text):
            flags[flag[1]] = flag[2]
            text = text[flag.end() :]
        if name == "FROM":
            words = text.split()
            stages.append(Stage(words[0], words[2] if len(words) == 3 else ""))
        elif name not in KNOWN or not stages:
            raise NotUnderstood(line)
        elif flags.keys() - ({"from"} if name == "COPY" else set()) and name != "HEALTHCHECK":
            raise NotUnderstood(line)
        else:
            stages[-1].steps.append((name, flags, text))
    return stages


def _lines(text):
    """Instructions, each on one line and without comments."""
    whole = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", whole)
    return [line.strip() for line in joined.splitlines() if line.strip()]


def context(folder):
    """The files that .dockerignore lets through: the last pattern that fits a file, or a folder
    above it, decides. https://docs.docker.com/build/concepts/context/#dockerignore-files"""
    folder = Path(folder)
    patterns = [
        line.strip()
        for line in (folder / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if any("**" in pattern or pattern.strip("!").startswith("/") for pattern in patterns):
        raise NotUnderstood(".dockerignore: ** or a pattern that begins with /")

    def let_through(path):
        above = [path, *list(path.parents)[:-1]]
        ignored = False
        for pattern in patterns:
            if any(_fits(part, pattern.lstrip("!")) for part in above):
                ignored = not pattern.startswith("!")
        return not ignored

    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", "target")]
        for name in files:
            path = (Path(base) / name).relative_to(folder)
            if let_through(path):
                yield path


def _fits(path, pattern):
    wanted = Path(pattern.rstrip("/")).parts
    same_depth = len(wanted) == len(path.parts)
    return same_depth and all(map(fnmatch.fnmatchcase, path.parts, wanted))


def copy(root, workdir, files, text):
    """COPY of files (their paths, and where they are) into a tree."""
    *sources, target = text.split()
    into = root / (Path(workdir) / target).relative_to("/")
    for source in sources:
        found = [(path, at) for path, at in files if Path(source) in (path, *path.parents)]
        if not found:
            raise NotUnderstood(f"COPY {source}: .dockerignore lets nothing of it through")
        for path, at in found:
            if path == Path(source):
                to = into / path.name if target.endswith("/") else into
            else:
                to = into / path.relative_to(source)
            # Without a trailing slash "." and a folder that is there are folders all the same.
            if to.is_dir():
                to = to / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(at, to)
