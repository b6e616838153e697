"""The Dockerfile's text. scripts/check-image builds and runs it; this needs nothing, and looks at
how the file is read, and at what only an engine would act on."""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from deploy_processes import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import dockerfile  # noqa: E402

FILE = PROJECT / "Dockerfile"
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
LABELS = ["title", "description", "version", "revision", "source", "licenses", "base.name"]


def problems(path):
    build, final = dockerfile.read(path)
    wrong = []
    if not final.base.startswith("gcr.io/distroless/cc-debian12") or "bookworm" not in build.base:
        wrong.append("built against another glibc than it runs with")
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
    steps = [name for name, _, _ in build.steps]
    if steps.count("RUN") != 2 or steps.index("RUN") > len(steps) - 1 - steps[::-1].index("COPY"):
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
            ("cc-debian12", "cc-debian13"),
            ("USER 65532:65532", "USER nonroot"),
            ('"healthcheck"', '"health"'),
            ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGQUIT"),
            ("image.revision", "image.rev"),
            ("COPY src src\n", ""),
        ]:
            self.assertIn(old, text)
            self.assertNotEqual(problems(self.with_text(text.replace(old, new))), [], new)

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
        self.assertEqual(found, {"Cargo.toml", "Cargo.lock", "src", "benches"})

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
