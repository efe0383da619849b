"""Talking HTTP to a visdom server, and saying what is wrong where none answers.

No plots and no visdom here: `visdom` knows what to say, this knows how.
"""

import hashlib
import ipaddress
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from flexrec.recorder.errors import MissingDependency, ServerError

try:
    import requests
except ImportError as missing:
    raise MissingDependency.of("plotting into visdom", "visdom") from missing


CONNECT_SECONDS = 5.0
PROBE_SECONDS = 3.0
PROBE_BYTES = 4096
RETRIED = frozenset({500, 502, 503, 504})


class TransientError(ServerError):
    """The server may answer if it is asked again: it is restarting, was cut off, or failed."""


class Connection:
    """A visdom server's address, and one HTTP session with it.

        >>> connection = Connection("localhost", 8097)
        >>> connection.url
        'http://localhost:8097'

    Nothing is sent before the first call. A login is tried only where the server asks for one.
    Servers on the loopback are reached directly, whatever proxy the environment names.

    Args:
        server: "http://host", "https://host" or "host"; a port or a path in it counts.
        port: used where `server` names none.
        base_url: the server's `-base_url`, as "/visdom".
        username, password: by default VISDOM_USERNAME and VISDOM_PASSWORD of the environment.
        timeout: seconds without a byte from the server after which a request has failed.

    Raises:
        ServerError: `server` is not such an address.
    """

    def __init__(
        self,
        server: str = "http://localhost",
        port: int = 8097,
        *,
        base_url: str = "",
        username: str | None = None,
        password: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.url, host = _address(server, port, base_url)
        self.timeout = timeout
        self._username = username or os.environ.get("VISDOM_USERNAME", "")
        self._password = password or os.environ.get("VISDOM_PASSWORD", "")
        self._session = requests.Session()
        self._session.trust_env = not _is_loopback(host)

    def post(self, endpoint: str, message: Mapping[str, Any]) -> str:
        """What the server answers to one request.

        Raises:
            TransientError: nobody listens, cut off, or status 500, 502, 503 or 504.
            ServerError: anything else that is not an answer of visdom's.
        """
        return self._authorised(endpoint, message, self.timeout, None)

    def probe(self) -> None:
        """Make sure, within seconds, that visdom answers here and lets us in.

        Raises:
            ServerError: nobody listens, the name does not resolve, the port is silent, the
                server is not visdom, or it wants a login that it was not given.
        """
        question = {"win": "", "eid": "main"}
        answer = self._authorised("win_exists", question, PROBE_SECONDS, PROBE_BYTES)
        if answer not in ("true", "false"):
            raise self._not_visdom(f"answers {answer[:40]!r}")

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()

    def _authorised(
        self, endpoint: str, message: Mapping[str, Any], seconds: float, limit: int | None
    ) -> str:
        status, text = self._exchange(endpoint, message, seconds, limit)
        if _wants_login(status, text):
            self._log_in(seconds)
            status, text = self._exchange(endpoint, message, seconds, limit)
        if status in RETRIED:
            raise TransientError(f"{self.url} fails with HTTP status {status} on {endpoint}")
        if status != requests.codes.ok:
            raise self._not_visdom(f"answers HTTP status {status} to POST /{endpoint}")
        return text

    def _log_in(self, seconds: float) -> None:
        if not (self._username and self._password):
            raise ServerError(
                f"{self.url} asks for a login: give user name and password, "
                "or set VISDOM_USERNAME and VISDOM_PASSWORD"
            )
        # visdom's own login sends the password's digest, never the password.
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        user = {"username": self._username, "password": digest}
        status, _ = self._exchange("", user, seconds, PROBE_BYTES)
        if status != requests.codes.ok:
            raise ServerError(
                f"{self.url} refuses the password of user {self._username!r} (HTTP {status})"
            )

    def _exchange(
        self, endpoint: str, message: Mapping[str, Any], seconds: float, limit: int | None
    ) -> tuple[int, str]:
        body = json.dumps(message, allow_nan=False).encode()
        try:
            with self._session.post(
                f"{self.url}/{endpoint}" if endpoint else self.url,
                data=body,
                timeout=(min(seconds, CONNECT_SECONDS), seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                return response.status_code, _read(response, seconds, limit)
        except requests.RequestException as error:
            raise self._explained(error, seconds) from error

    def _explained(self, error: requests.RequestException, seconds: float) -> ServerError:
        where = self.url
        causes = {type(cause).__name__ for cause in _causes(error)}
        if isinstance(error, requests.exceptions.ProxyError):
            return ServerError(f"{where} cannot be reached through the environment's HTTP proxy")
        if isinstance(error, requests.exceptions.SSLError):
            return ServerError(f"{where} does not speak TLS as it should: http instead of https?")
        if "gaierror" in causes:
            return ServerError(f"{where}: the host name does not resolve", hint="check server=")
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return ServerError(f"{where} cannot be reached: wrong host, or a firewall between")
        if isinstance(error, requests.exceptions.ReadTimeout):
            return ServerError(
                f"{where} takes connections but stays silent for {seconds:g} s: "
                "it hangs, or it is not visdom"
            )
        if "ConnectionRefusedError" in causes:
            return TransientError(
                f"nobody listens at {where}: start visdom (flexrec serve)",
                hint="or give another server= and port=",
            )
        if causes & {"BadStatusLine", "LineTooLong", "HTTPException"}:
            return self._not_visdom("does not speak HTTP")
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return TransientError(f"{where} cut the connection: it stopped, or it is not visdom")
        return ServerError(f"{where} cannot be asked: {error}")

    def _not_visdom(self, what: str) -> ServerError:
        return ServerError(
            f"what listens at {self.url} is not visdom, or not under this base URL: it {what}"
        )


def _address(server: str, port: int, base_url: str) -> tuple[str, str]:
    """The URL that requests start with, and its host."""
    try:
        parts = urlsplit(server if "://" in server else f"http://{server}")
        host, port = parts.hostname, parts.port or port
    except ValueError as error:
        raise ServerError(f"{server!r} is not a server's address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or not 0 < port < 65536:
        raise ServerError(f"{server!r}, port {port}: not an address such as http://localhost")
    path = "".join(f"/{part}" for part in f"{parts.path}/{base_url}".split("/") if part)
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}:{port}{path}", host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _wants_login(status: int, text: str) -> bool:
    # 0.3.0 answers 401; 0.2.4 answers 400 without a word.
    return status == requests.codes.unauthorized or (
        status == requests.codes.bad_request and not text
    )


def _read(response: requests.Response, seconds: float, limit: int | None) -> str:
    """The body; with a limit, so much of it as comes in time: some servers never end."""
    if limit is None:
        return response.text
    deadline, body = time.monotonic() + seconds, b""
    for chunk in response.iter_content(256):
        body += chunk
        if len(body) > limit or time.monotonic() > deadline:
            break
    return body.decode("utf-8", "replace")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
