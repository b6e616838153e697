"""The Dockerfile's text. scripts/check-image builds and runs it; this needs nothing, and looks at
how the file is read, and at what only an engine would act on."""

import re
import shutil
import sys
import tempfile
import unittest
from datetime import date
from pathlib import Path

import yaml
from deploy_processes import PROJECT
from deploy_rules import constant

sys.path.insert(0, str(PROJECT / "scripts"))
import dockerfile  # noqa: E402

FILE = PROJECT / "Dockerfile"
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
LABELS = ["title", "description", "version", "revision", "source", "licenses", "base.name"]
# Debian's releases by name, and until when each gets security fixes (the LTS team's come later and
# not for all packages; distroless drops a release at about this time):
# https://wiki.debian.org/DebianReleases
DEBIAN = {
    "bookworm": ("12", date(2026, 6, 10)),
    "trixie": ("13", date(2028, 8, 9)),
}


def base_problems(build, final, today):
    """What is wrong with the images that the build starts from."""
    wrong = []
    for base in (build.base, final.base):
        if not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base):
            wrong.append(f"{base}: no tag and digest, so that it may change between two builds")
    runs_on = re.match(r"gcr\.io/distroless/static-debian(\d+):nonroot\b", final.base)
    suite = build.base.split("@")[0].rsplit("-", 1)[-1]
    version, end = DEBIAN.get(suite, (None, date.min))
    if not runs_on or runs_on[1] != version:
        wrong.append("not the smallest base of the Debian that it is built on")
    if today >= end:
        wrong.append(f"Debian {suite} got its last security fixes on {end}: take the next")
    if f'base.name="{final.base.split("@")[0]}"' not in final.only("LABEL"):
        wrong.append("the label names another base")
    return wrong


def health_problems(final):
    (flags,) = [flags for name, flags, _ in final.steps if name == "HEALTHCHECK"]
    given = {name: float(text.removesuffix("s")) for name, text in flags.items() if text[-1] == "s"}
    wrong = []
    if given.get("timeout", 30) <= constant("cli/healthcheck.rs", "TIMEOUT"):
        wrong.append("Docker ends the health check before it gives up by itself")
    if given.get("start-interval", 5) > 1 or given.get("start-period", 0) < 30:
        wrong.append("a container that is healthy is not noticed at once")
    return wrong


def unnamed_platforms(text):
    """Commands that build an image for the machine that runs them, except for kind on it."""
    text = text.replace("\\\n", " ")
    builds = re.findall(r"docker (?:buildx |image )?build [^\n`]*", text)
    return [line for line in builds
            if "--platform linux/" not in line and "&& kind load " not in line]


def problems(path, today=None):
    build, program, final = dockerfile.read(path)
    wrong = base_problems(build, final, today or date.today()) + health_problems(final)
    if final.only("USER").split(":")[0] in ("0", "root", "nonroot"):
        wrong.append("root, or a name that Kubernetes cannot look up")
    if final.health_command()[1:] != ["healthcheck"] or final.command()[1:] != ["serve"]:
        wrong.append("other commands than the gateway has")
    if final.health_command()[0] != final.command()[0]:
        wrong.append("the health check is another program")
    if final.only("STOPSIGNAL") != "SIGTERM":
        wrong.append("a signal that begins no drain")
    labels = final.only("LABEL")
    wrong += [f"no label {name}" for name in LABELS if f"image.{name}=" not in labels]
    if program.base != "scratch" or [name for name, _, _ in program.steps] != ["COPY"]:
        wrong.append("the stage `program` has more than the program, so that its output has too")
    steps = ["sources" if text.startswith("src ") else name for name, _, text in build.steps]
    if [step for step in steps if step in ("RUN", "sources")] != ["RUN", "RUN", "sources", "RUN"]:
        wrong.append("no layer of the dependencies before the sources")
    return wrong


class Image(unittest.TestCase):
    def with_text(self, text):
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "Dockerfile").write_text(text)
        return folder / "Dockerfile"

    def test_what_only_an_engine_acts_on(self):
        self.assertEqual(problems(FILE), [])
        text = FILE.read_text()
        for old, new in [
            ("static-debian13:nonroot@", "static-debian12:nonroot@"),
            ("slim-trixie@", "slim-bookworm@"),
            ("static-debian13", "cc-debian13"),
            ('base.name="gcr.io/distroless/static-debian13', 'base.name="debian13'),
            ("--timeout=5s", "--timeout=3s"),
            ("--start-interval=1s ", ""),
            ("--start-period=30s", "--start-period=5s"),
            ("USER 65532:65532", "USER nonroot"),
            ('"healthcheck"', '"health"'),
            ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGQUIT"),
            ("image.revision", "image.rev"),
            ("COPY src src\n", ""),
            ("FROM scratch AS program\n", "FROM scratch AS program\nCOPY src src\n"),
        ]:
            self.assertIn(old, text)
            self.assertNotEqual(problems(self.with_text(text.replace(old, new))), [], new)

        for digest in re.findall("@sha256:[0-9a-f]{64}", text):
            for other in ("", digest[:-1], "@sha256:newest"):
                broken = self.with_text(text.replace(digest, other))
                self.assertIn("no tag and digest", "".join(problems(broken)), other)

    def test_a_base_out_of_support_is_refused(self):
        old = FILE.read_text().replace("trixie", "bookworm").replace("debian13", "debian12")
        self.assertIn("last security fixes", "".join(problems(self.with_text(old))))
        for suite, (version, end) in DEBIAN.items():
            text = FILE.read_text().replace("trixie", suite).replace("debian13", f"debian{version}")
            file = self.with_text(text)
            self.assertEqual(problems(file, date.fromordinal(end.toordinal() - 1)), [])
            self.assertNotEqual(problems(file, end), [])

    def test_newer_bases_are_proposed(self):
        file = yaml.safe_load((PROJECT / ".github/dependabot.yml").read_text())
        watched = {(one["package-ecosystem"], one["directory"]) for one in file["updates"]}
        self.assertEqual(watched, {("docker", "/"), ("docker-compose", "/deploy/local"),
                                   ("github-actions", "/")})
        for _, folder in watched:
            names = {path.name for path in (PROJECT / folder.strip("/")).iterdir()}
            self.assertTrue(names & {"Dockerfile", "compose.yaml", ".github"}, folder)

    def test_commands_name_the_machines_that_an_image_is_for(self):
        texts = [FILE, PROJECT / "docs/operations.md", PROJECT / "docs/deploy/gke.md", PROJECT / "docs/deploy/cloud-run.md"]
        for path in texts:
            text = path.read_text()
            self.assertIn("docker build --platform linux/amd64", text, path)
            without = text.replace("--platform linux/amd64", "")
            self.assertNotEqual(unnamed_platforms(without), [], path)
        texts += [path for path in (PROJECT / "deploy").rglob("*") if path.is_file()]
        texts += (PROJECT / "k8s").rglob("*.*")
        for path in texts:
            self.assertEqual(unnamed_platforms(path.read_text()), [], path)

    def test_what_is_not_understood_is_refused(self):
        for line in ["ONBUILD RUN true", "RUN --mount=type=cache,target=/x true", "ADD a b"]:
            with self.assertRaises(dockerfile.NotUnderstood):
                dockerfile.read(self.with_text(f"FROM x AS build\n{line}\n"))

    def test_lines_are_joined_and_comments_left_out(self):
        text = "FROM x AS y\n# one\nRUN a \\\n    # two\n    && b\n"
        stage = dockerfile.read(self.with_text(text))[0]
        self.assertEqual((stage.base, stage.name), ("x", "y"))
        self.assertEqual(stage.steps, [("RUN", {}, "a && b")])

    def test_the_context_is_what_dockerignore_lets_through(self):
        folder = self.with_text("").parent
        for name in ["a/b/c.rs", "a/secret", "d/e", "f", ".git/g"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        (folder / ".dockerignore").write_text("# all\n*\n!a\n!f\na/secret\n")
        found = {str(path) for path in dockerfile.context(folder)}
        self.assertEqual(found, {"a/b/c.rs", "f"})
        found = {path.parts[0] for path in dockerfile.context(PROJECT)}
        self.assertEqual(found, {"Cargo.toml", "Cargo.lock", "src", "benches", "scripts"})

    def test_a_copy_goes_where_docker_would_put_it(self):
        folder = self.with_text("").parent
        for name in ["one", "src/two", "src/in/three"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        files = [(Path(name), folder / name) for name in ["one", "src/two", "src/in/three"]]
        root = folder / "root"
        dockerfile.copy(root, "/build", files, "one ./")
        dockerfile.copy(root, "/build", files, "src src")
        dockerfile.copy(root, "/build", files, "one /elsewhere")
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        self.assertEqual(
            found, {"build/one", "build/src/two", "build/src/in/three", "elsewhere"}
        )
        with self.assertRaises(dockerfile.NotUnderstood):
            dockerfile.copy(root, "/build", files, "four ./")


if __name__ == "__main__":
    unittest.main()
