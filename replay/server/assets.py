"""Get the files that visdom's page needs from a cache, a bundle or the npm registry.

asset_list.py lists them. A file is accepted only if its checksum matches, and nothing is ever
written into visdom's own folder.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from flexrec.recorder.errors import (
    MissingDependency,
    OutputError,
    ServerError,
    counted,
    listed,
)
from flexrec.recorder.files.atomic_write import ANYTHING, Kind, check_target, replacing
from flexrec.recorder.files.cache import cache_folder
from flexrec.replay.server.asset_list import Asset, all_assets, needed
from flexrec.replay.server.npm import MAX_FILE_BYTES, find_registry

Progress = Callable[[str, int, int], None]
"""Called with the package that is being fetched, the bytes received, and the bytes in total."""

DOWNLOAD_SECONDS = 300.0
_VISDOMS_OWN_DOWNLOAD = (
    "import sys; sys.modules['torch'] = sys.modules['openTSNE'] = None\n"
    "from visdom.server.build import download_scripts\n"
    "download_scripts(install_dir=sys.argv[1])\n"
)


@dataclass(frozen=True)
class Page:
    """The files that the installed visdom's page needs, and where they are.

    Attributes:
        version: visdom's version.
        installed: files in visdom's own folder, by their names below `static/`.
        cached: files in the cache, with the right checksums.
        missing: files in neither.
    """

    version: str
    installed: dict[str, Path]
    cached: dict[str, Path]
    missing: tuple[Asset, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def files(self) -> dict[str, str]:
        """The files that a server must serve from outside visdom's folder: {name: path}."""
        return {name: str(path) for name, path in self.cached.items()}


def page_folder() -> Path:
    """The folder of fetched files, in the user's cache."""
    return cache_folder("visdom-page")


def survey() -> Page:
    """Find which files of the page are available, without fetching anything.

        if not survey().whole:
            page = provide()

    Raises:
        MissingDependency: visdom is not installed.
    """
    static = _visdoms_static()
    if static is None:
        raise MissingDependency.of("visdom's page", "visdom")
    version = metadata.version("visdom")
    installed, cached, missing = {}, {}, []
    for asset in needed(version):
        own, kept = static / asset.file, page_folder() / asset.name
        if _is_right(kept, asset):
            cached[asset.file] = kept
        elif own.is_file() and own.stat().st_size:
            installed[asset.file] = own
        else:
            missing.append(asset)
    return Page(version, installed, cached, tuple(missing))


def provide(
    *, bundle: str | os.PathLike[str] | None = None, progress: Progress | None = None
) -> Page:
    """Get the missing files of the page, from a bundle or from the npm registry.

        page = provide(bundle="page.zip")
        with start_server(env_path="envs", files=page.files) as server: ...

    Fetched files are stored in the cache, so that the next call needs neither.

    Args:
        bundle: a file of `write_bundle`; all its files are copied to the cache.
        progress: called while files are fetched.

    Raises:
        ServerError: the bundle is invalid, or a file is missing and cannot be fetched; the message
            says what to do.
    """
    if bundle is not None:
        _unpack(Path(bundle))
    page = survey()
    if page.whole:
        return page
    if bundle is not None:
        raise ServerError(
            f"{bundle} lacks {_listed(page.missing)} for the page of visdom {page.version}: "
            "make the bundle anew with this version of flexrec"
        )
    try:
        for asset, content in _from_registry(page.missing, progress):
            _keep(asset, content)
    except ServerError as error:
        raise ServerError(
            f"{counted(len(page.missing), 'file')} of visdom's page cannot be fetched: "
            f"{error.message}; set npm_config_registry to a registry that this machine reaches, or "
            "make a bundle on a connected machine (flexrec assets bundle page.zip)",
            hint="give it here as bundle=PATH",
        ) from error
    return survey()


@dataclass(frozen=True)
class Bundle:
    """The result of `write_bundle`.

    Attributes:
        path: the zip file.
        files: the number of files in it.
        size: its size in bytes.
    """

    path: Path
    files: int
    size: int


def write_bundle(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write all files, for every version of visdom, to a zip file.

        write_bundle("page.zip")

    They come from the cache and visdom's folder, else from the npm registry, else from visdom's own
    download, which asks several hosts and gets only the files of its own version.

    Args:
        path: the zip file to write.
        overwrite: whether to overwrite an existing bundle.
        progress: called while files are fetched.

    Raises:
        OutputError: a file exists that may not be overwritten.
        ServerError: a file cannot be fetched; then nothing is written.
        OSError: the file cannot be written.
    """
    check_target(path, _BUNDLE, overwrite=overwrite)
    contents = {asset: _at_hand(asset) for asset in all_assets()}
    missing = [asset for asset, content in contents.items() if content is None]
    if missing:
        try:
            contents |= dict(_from_registry(missing, progress))
        except ServerError as error:
            contents |= dict(_from_visdom(missing, error))
    path = Path(path)
    with (
        replacing(path, _BUNDLE, overwrite=overwrite) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for asset, content in sorted(contents.items(), key=lambda item: item[0].name):
            if content is not None:
                # A fixed date, so that the same files give the same bundle.
                entry = zipfile.ZipInfo(asset.name, (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    files = sum(content is not None for content in contents.values())
    return Bundle(path, files, path.stat().st_size)


def _holds_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return not {asset.name for asset in all_assets()}.isdisjoint(archive.namelist())
    except (zipfile.BadZipFile, ValueError):
        return False


_BUNDLE = Kind("a bundle of visdom's page", _holds_bundle)


def _from_registry(
    assets: Iterable[Asset], progress: Progress | None
) -> Iterator[tuple[Asset, bytes]]:
    """Fetch each asset with its content, package by package."""
    registry = find_registry()
    packages: dict[str, list[Asset]] = {}
    for asset in assets:
        packages.setdefault(asset.package, []).append(asset)
    for package, wanted in packages.items():
        found = registry.files(
            package,
            [asset.member for asset in wanted],
            progress=_for_package(progress, package),
        )
        for asset in wanted:
            if not _matches(found.get(asset.member), asset):
                raise ServerError(
                    f"{registry.url} gave a {asset.member} of {package} whose checksum is not "
                    "the one that flexrec knows: it was rejected"
                )
            yield asset, found[asset.member]


def _for_package(progress: Progress | None, package: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(package, done, total)


def _from_visdom(missing: Iterable[Asset], why: ServerError) -> Iterator[tuple[Asset, bytes]]:
    """Run visdom's own download, for its own version; it must give every file of that."""
    version = survey().version
    own = set(needed(version))
    with tempfile.TemporaryDirectory() as folder:
        with suppress(subprocess.TimeoutExpired):  # files downloaded before the error count
            subprocess.run(  # noqa: S603 - our own arguments, no shell
                [sys.executable, "-c", _VISDOMS_OWN_DOWNLOAD, folder],
                capture_output=True,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        lacking = []
        for asset in missing:
            if asset not in own:
                continue
            content = _read(Path(folder) / "static" / asset.file)
            if _matches(content, asset):
                yield asset, content or b""
            else:
                lacking.append(asset)
    if lacking:
        raise ServerError(
            f"{why}; and visdom's own download did not give {_listed(lacking)} with the "
            "checksum that flexrec knows"
        )


def _unpack(bundle: Path) -> None:
    """Copy the files of a bundle to the cache."""
    by_name = {asset.name: asset for asset in all_assets()}
    try:
        with zipfile.ZipFile(bundle) as archive:
            for entry in archive.infolist():
                asset = by_name.get(entry.filename)
                if asset is None or entry.file_size > MAX_FILE_BYTES:
                    continue
                content = archive.read(entry)
                if not _matches(content, asset):
                    raise ServerError(
                        f"{bundle}: {entry.filename} does not have the checksum that flexrec "
                        "knows: the bundle is damaged, or was tampered with"
                    )
                _keep(asset, content)
    except OutputError:
        raise
    except (OSError, zipfile.BadZipFile) as error:
        raise ServerError(f"{bundle} cannot be read as a bundle: {error}") from error


def _keep(asset: Asset, content: bytes) -> None:
    path = page_folder() / asset.name
    if _is_right(path, asset):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, ANYTHING, overwrite=True) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"visdom's page cannot be kept in {page_folder()}: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _visdoms_static() -> Path | None:
    """The folder of visdom's own page, to which visdom's download writes."""
    spec = importlib.util.find_spec("visdom")
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("static")


def _at_hand(asset: Asset) -> bytes | None:
    static = _visdoms_static()
    for path in (page_folder() / asset.name, static and static / asset.file):
        content = _read(path) if path else None
        if _matches(content, asset):
            return content
    return None


def _is_right(path: Path, asset: Asset) -> bool:
    return _matches(_read(path), asset)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _matches(content: bytes | None, asset: Asset) -> bool:
    return content is not None and hashlib.sha256(content).hexdigest() == asset.sha256


def _listed(assets: Iterable[Asset]) -> str:
    return listed((asset.file for asset in assets), most=3)
