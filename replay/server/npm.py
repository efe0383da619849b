"""Get files of npm packages from the registry that npm is configured to use, without npm.

The registry's address comes only from the user's configuration; there is no default. Fetched data
is untrusted: the caller compares checksums.
"""

import io
import os
import re
import shutil
import ssl
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from flexrec.recorder.errors import ServerError

TIMEOUT_SECONDS = 30.0
MAX_PACKAGE_BYTES = 64 << 20
MAX_FILE_BYTES = 16 << 20
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Registry:
    """An npm registry, and the credentials for it.

        registry = find_registry()
        files = registry.files("jquery@3.1.1", ["dist/jquery.min.js"])

    Attributes:
        url: its address.
        authorization: the authorization header, or "".
        cafile: a file of certificates to trust besides the system's, or "".
    """

    url: str
    authorization: str = ""
    cafile: str = ""

    def files(
        self,
        package: str,
        members: Iterable[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, bytes]:
        """Get files of a package, by their paths; files that it does not contain are left out.

        Args:
            package: name and version, such as `"jquery@3.1.1"`.
            members: paths in the package.
            progress: called with the bytes received, and the bytes in total (0: unknown).

        Raises:
            ServerError: the registry cannot be reached, refuses, or sends no package.
        """
        wanted = set(members)
        found = {}
        packed = self._package(package, progress)
        try:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
                for entry in archive:
                    # The first folder is usually, but not always, called "package".
                    name = entry.name.partition("/")[2]
                    if name in wanted and entry.isfile() and entry.size <= MAX_FILE_BYTES:
                        content = archive.extractfile(entry)
                        found[name] = content.read() if content else b""
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ServerError(f"{self.url} sent no npm package for {package}: {error}") from error
        return found

    def _package(self, package: str, progress: Callable[[int, int], None] | None) -> bytes:
        name, _, version = package.rpartition("@")
        bare = name.rpartition("/")[2]
        url = f"{self.url.rstrip('/')}/{quote(name, safe='@/')}/-/{bare}-{version}.tgz"
        request = urllib.request.Request(url)  # noqa: S310 - find_registry lets only http(s) pass
        if self.authorization:  # not sent on when another host is redirected to
            request.add_unredirected_header("Authorization", self.authorization)
        try:
            context = ssl.create_default_context()
            if self.cafile:
                context.load_verify_locations(self.cafile)
            with urllib.request.urlopen(  # noqa: S310 - as above
                request, timeout=TIMEOUT_SECONDS, context=context
            ) as answer:
                total = int(answer.headers.get("Content-Length") or 0)
                packed = bytearray()
                while chunk := answer.read(CHUNK_BYTES):
                    packed += chunk
                    if len(packed) > MAX_PACKAGE_BYTES:
                        raise ServerError(f"{url} is too large to be {package}")
                    if progress is not None:
                        progress(len(packed), total)
                return bytes(packed)
        except urllib.error.HTTPError as error:
            raise ServerError(f"{url} answers HTTP status {error.code} ({error.reason})") from error
        except (OSError, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            raise ServerError(f"{url} cannot be fetched: {reason}") from error


def find_registry(environ: Mapping[str, str] = os.environ) -> Registry:
    """Find the registry that npm would use: from the environment, an `.npmrc`, or npm itself.

        npm_config_registry=https://npm.example.org/ flexrec serve

    Sources, in order: `npm_config_registry`; `.npmrc` in the working folder; the user's
    (`npm_config_userconfig`, or `~/.npmrc`); the global one; and, if npm is installed, the output
    of `npm config get registry`. An `_authToken` or `_auth` for the registry is sent to it, and a
    `cafile` is trusted.

    Raises:
        ServerError: no registry is configured, or its address is not a web address.
    """
    settings = _settings(environ)
    url = settings.get("registry") or _ask_npm(environ)
    if not url:
        raise ServerError(
            "no npm registry is configured: set npm_config_registry to the address of one that "
            "this machine reaches, or give a bundle (made elsewhere: flexrec assets bundle)"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServerError(f"npm's registry is configured as {url!r}, which is no web address")
    return Registry(url, _authorization(parts.netloc, parts.path, settings), _cafile(settings))


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """npm's settings; earlier files override later ones, and the environment overrides all."""
    lowered = {name.lower(): value for name, value in environ.items()}
    user = lowered.get("npm_config_userconfig") or str(Path.home() / ".npmrc")
    everyone = lowered.get("npm_config_globalconfig", "/etc/npmrc")
    settings: dict[str, str] = {}
    for path in (everyone, user, ".npmrc"):
        settings |= _npmrc(Path(path), environ)
    if "node_extra_ca_certs" in lowered:
        settings.setdefault("cafile", lowered["node_extra_ca_certs"])
    prefix = "npm_config_"
    settings |= {
        name.removeprefix(prefix): value
        for name, value in lowered.items()
        if name.startswith(prefix) and value
    }
    return settings


def _npmrc(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    settings = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith((";", "#")):
            value = value.strip().strip("\"'")
            settings[name.strip()] = re.sub(
                r"\$\{(\w+)\}", lambda found: environ.get(found[1], found[0]), value
            )
    return settings


def _authorization(netloc: str, path: str, settings: Mapping[str, str]) -> str:
    """The header for this registry; npm stores secrets under its address without the scheme."""
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        scope = "/".join([f"//{netloc}", *parts[:depth]])
        if token := settings.get(f"{scope}/:_authToken"):
            return f"Bearer {token}"
        if basic := settings.get(f"{scope}/:_auth"):
            return f"Basic {basic}"
    return ""


def _cafile(settings: Mapping[str, str]) -> str:
    path = settings.get("cafile", "")
    if path and not Path(path).is_file():
        raise ServerError(f"npm's cafile is configured as {path!r}, which is not there")
    return path


def _ask_npm(environ: Mapping[str, str]) -> str:
    npm = shutil.which("npm", path=environ.get("PATH"))
    if npm is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed question, no shell
            [npm, "config", "get", "registry"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=dict(environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.strip()
    return "" if done.returncode or said == "undefined" else said
