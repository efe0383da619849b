"""The files of visdom's page: from a registry, a bundle or a cache, and never a wrong one."""

import hashlib
import io
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder.errors import OutputError, ServerError
from flexrec.replay.server import assets
from flexrec.replay.server.asset_list import Asset, all_assets, needed
from flexrec.replay.server.assets import page_folder, provide, survey, write_bundle
from flexrec.replay.server.npm import find_registry


def made(file: str, package: str, content: bytes, family: str = "") -> tuple[Asset, bytes]:
    digest = hashlib.sha256(content).hexdigest()
    return Asset(file, package, f"dist/{file}", digest, family), content


CONTENTS = dict(
    (
        made("js/one.js", "one@1.0.0", b"one" * 1000),
        made("js/two.js", "@scope/two@2.0.0", b"two"),
        made("css/two.css", "@scope/two@2.0.0", b"two's style"),
        made("js/old.js", "old@0.1.0", b"for the other visdom", family="other"),
    )
)
OURS = [asset for asset in CONTENTS if not asset.family]


class Registry(ThreadingHTTPServer):
    """An npm registry that has these packages, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.contents = dict(CONTENTS)
        self.elsewhere = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/npm/"

    def tarball(self, path: str) -> bytes | None:
        found = re.fullmatch(r"/npm/((?:@\w+/)?(\w+))/-/\2-([\d.]+)\.tgz", path)
        if not found:
            return None
        package = f"{found[1]}@{found[3]}"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for asset, content in self.contents.items():
                if asset.package == package:
                    entry = tarfile.TarInfo(f"package/{asset.member}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        return packed.getvalue()


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        if self.server.elsewhere:
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere.rstrip("/") + self.path[4:])
            self.end_headers()
            return
        body = self.server.tarball(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry on the loopback."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few assets, none of which is there, no npm, and no configuration of the user's."""
    monkeypatch.setattr(assets, "all_assets", lambda: tuple(CONTENTS))
    monkeypatch.setattr(assets, "needed", lambda _: tuple(OURS))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "")
    for name in list(os.environ):
        if name.lower().startswith("npm_config_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)


def test_what_is_missing_is_fetched_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert survey().missing == tuple(OURS)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.url)
    told: list[tuple[str, int, int]] = []
    page = provide(progress=lambda *what: told.append(what))
    assert page.whole
    assert {asset.file: Path(page.files[asset.file]).read_bytes() for asset in OURS} == {
        asset.file: CONTENTS[asset] for asset in OURS
    }
    assert registry.asked == ["/npm/one/-/one-1.0.0.tgz", "/npm/@scope/two/-/two-2.0.0.tgz"]
    assert {package for package, _, _ in told} == {"one@1.0.0", "@scope/two@2.0.0"}
    assert all(0 < done <= total for _, done, total in told)
    assert provide().files == page.files
    assert len(registry.asked) == 2


def test_nothing_is_written_beside_visdom(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = assets._visdoms_static()
    assert static is not None
    before = sorted(static.rglob("*"))
    monkeypatch.setenv("npm_config_registry", registry.url)
    provide()
    assert sorted(static.rglob("*")) == before
    assert all(Path(path).is_relative_to(page_folder()) for path in survey().files.values())


def test_a_wrong_file_is_not_taken(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", registry.url)
    registry.contents[OURS[1]] = b"something else"
    with pytest.raises(ServerError, match=r"js/two\.js of @scope/two@2\.0\.0 whose checksum"):
        provide()
    assert OURS[1] in survey().missing
    registry.contents[OURS[1]] = CONTENTS[OURS[1]]
    assert provide().whole


def test_a_file_that_spoils_in_the_cache_is_fetched_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", registry.url)
    path = Path(provide().files["js/one.js"])
    path.write_bytes(path.read_bytes()[:-1])
    assert survey().missing == (OURS[0],)
    assert provide().whole
    assert path.read_bytes() == CONTENTS[OURS[0]]


@pytest.mark.parametrize("where", [".npmrc", "home/.npmrc", "named"])
def test_npms_files_are_read(
    where: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "abc")
    if where == "named":
        monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "named"))
    host = registry.url.removeprefix("http:")
    (tmp_path / where).write_text(
        f'; a comment = no\nregistry = "{registry.url}"\n{host}:_authToken=${{SECRET}}\n'
    )
    assert provide().whole
    assert set(registry.authorizations) == {"Bearer abc"}


def test_the_environment_overrules_the_files(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".npmrc").write_text("registry=http://127.0.0.1:1/\n")
    assert find_registry().url == "http://127.0.0.1:1/"
    monkeypatch.setenv("npm_config_registry", registry.url)
    assert find_registry().url == registry.url


def test_a_secret_does_not_follow_a_redirection(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry() as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        registry.elsewhere = mirror.url
        host = registry.url.removeprefix("http:")
        (tmp_path / ".npmrc").write_text(f"registry={registry.url}\n{host}:_auth=abc\n")
        assert provide().whole
        mirror.shutdown()
        thread.join()
    assert set(registry.authorizations) == {"Basic abc"}
    assert set(mirror.authorizations) == {None}


def test_npm_itself_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo http://127.0.0.1:2/\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_registry().url == "http://127.0.0.1:2/"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("", "set npm_config_registry"),
        ("file:///etc", "no web address"),
        ("http://127.0.0.1:1/", "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_says_what_to_do(
    setting: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("npm_config_registry", setting)
    with pytest.raises(ServerError, match=says) as caught:
        provide()
    assert "flexrec assets bundle page.zip" in str(caught.value)
    assert "bundle=PATH" in str(caught.value)


def test_a_package_that_is_not_there_is_named(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", registry.url.replace("/npm/", "/elsewhere/"))
    with pytest.raises(ServerError, match=r"one-1\.0\.0\.tgz answers HTTP status 404"):
        provide()


def test_a_bundle_brings_everything(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", registry.url)
    made = write_bundle("page.zip")
    assert (made.path, made.files) == (Path("page.zip"), len(CONTENTS))
    assert not page_folder().exists()
    first = Path("page.zip").read_bytes()
    monkeypatch.delenv("npm_config_registry")
    assert provide(bundle="page.zip").whole
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert not survey().whole
    assert provide(bundle="page.zip").whole
    assert Path("page.zip").read_bytes() == first


def test_a_bundle_is_the_same_twice(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", registry.url)
    write_bundle("a.zip")
    write_bundle("b.zip")
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()


def test_a_wrong_bundle_is_refused(tmp_path: Path) -> None:
    Path("text.zip").write_text("no zip")
    with pytest.raises(ServerError, match="cannot be read as a bundle"):
        provide(bundle="text.zip")
    with pytest.raises(ServerError, match="cannot be read as a bundle"):
        provide(bundle="absent.zip")
    with zipfile.ZipFile("bad.zip", "w") as archive:
        archive.writestr(OURS[0].name, "tampered")
        archive.writestr("../../evil", "outside")
    with pytest.raises(ServerError, match=r"one\.js does not have the checksum"):
        provide(bundle="bad.zip")
    with zipfile.ZipFile("part.zip", "w") as archive:
        archive.writestr("../../evil", "outside")
        archive.writestr(OURS[0].name, CONTENTS[OURS[0]])
    with pytest.raises(ServerError, match=r"part\.zip lacks js/two\.js, css/two\.css"):
        provide(bundle="part.zip")
    assert not list(tmp_path.parent.rglob("evil"))


def test_visdoms_own_download_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        assets,
        "_VISDOMS_OWN_DOWNLOAD",
        "import sys, pathlib\n"
        f"for name, text in {[(a.file, CONTENTS[a]) for a in OURS]!r}:\n"
        "    path = pathlib.Path(sys.argv[1], 'static', name)\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    path.write_bytes(text)\n",
    )
    assert write_bundle("page.zip").files == len(OURS)
    assert provide(bundle="page.zip").whole
    monkeypatch.setattr(assets, "_VISDOMS_OWN_DOWNLOAD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    with pytest.raises(ServerError, match=r"visdom's own download did not give js/one\.js"):
        write_bundle("none.zip")
    assert not Path("none.zip").exists()


def test_a_cache_that_cannot_be_written_is_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("npm_config_registry", registry.url)
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
        provide()


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert page_folder() == tmp_path / "home/.cache/flexrec/visdom-page"


def test_every_file_that_the_page_names_is_known() -> None:
    static = assets._visdoms_static()
    assert static is not None
    page = (static / "index.html").read_text()
    named = set(re.findall(r"static_url\(['\"]([^'\"]+)['\"]\)", page)) - {"../user/style.css"}
    known = {asset.file for asset in needed(metadata.version("visdom"))}
    assert len(named) > 15
    assert {name for name in named if not (static / name).is_file()} <= known


def test_the_list_is_sound() -> None:
    for family in ("0.2", "0.3"):
        files = [asset.file for asset in all_assets() if asset.family in ("", family)]
        assert len(files) == len(set(files))
    for asset in all_assets():
        assert re.fullmatch(r"[0-9a-f]{64}", asset.sha256)
        assert re.fullmatch(r"[\w.-]+@\d+\.\d+\.\d+", asset.package)
        assert ".." not in asset.name


def test_the_page_of_02_has_every_font_of_its_formulas() -> None:
    """One that is missing takes the titles off all plots."""
    files = {asset.file for asset in needed("0.2.4")}
    fonts = "js/mathjax/2.7.5/jax/output/SVG/fonts/TeX"
    families = (
        "AMS Caligraphic Fraktur Main Math SansSerif Script Size1 Size2 Size3 Size4 Typewriter"
    )
    for family in families.split():
        assert any(f.startswith(f"{fonts}/{family}/") and f.endswith("/Main.js") for f in files)
    assert f"{fonts}/AMS/Regular/MathOperators.js" in files
    assert f"{fonts}/fontdata-extra.js" in files
    assert "js/mathjax/2.7.5/extensions/TeX/boldsymbol.js" in files
    assert "js/mathjax/2.7.5/jax/output/SVG/autoload/mtable.js" in files
