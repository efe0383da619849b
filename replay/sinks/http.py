"""Send HTTP requests to a visdom server, and explain what is wrong if none answers.

No plots and no visdom here: visdom.py builds the messages.
"""

import hashlib
import ipaddress
import json
import math
import os
import socket
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
    """A failure that may pass if the request is repeated: the server restarts, or cut it off."""


class Connection:
    """A visdom server's address, and one HTTP session with it.

        >>> connection = Connection("localhost", 8097)
        >>> connection.url
        'http://localhost:8097'

    Nothing is sent before the first call. It logs in only if the server asks for a login. Servers
    on this machine are reached directly, even if the environment names a proxy. A forked process
    has its own HTTP session; an unpickled copy opens a new one.

    Args:
        server: "http://host", "https://host" or "host"; may include a port and a path.
        port: used if `server` has no port.
        base_url: the server's `-base_url`, such as "/visdom".
        username, password: by default the environment variables VISDOM_USERNAME and
            VISDOM_PASSWORD.
        timeout: seconds without a byte from the server after which a request has failed.

    Raises:
        ServerError: `server`, `port` or `timeout` is invalid.
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
        if not (isinstance(timeout, (int, float)) and 0 < timeout < math.inf):
            raise ServerError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        self.url, self._host = _address(server, port, base_url)
        self.timeout = timeout
        self._username = username or os.environ.get("VISDOM_USERNAME", "")
        self._password = password or os.environ.get("VISDOM_PASSWORD", "")
        self._sessions: dict[int, requests.Session] = {}  # by process
        self.opened = 0  # connections, without those that the server announced to close
        self._port = 0  # of our end of the latest connection
        self._kept = True  # whether the server announced to close the latest

    @property
    def _session(self) -> requests.Session:
        """This process's session; two processes sharing one would read each other's answers."""
        session = self._sessions.get(os.getpid())
        if session is None:
            session = requests.Session()
            session.trust_env = not _is_local(self._host)
            self._sessions = {os.getpid(): session}
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def post(self, endpoint: str, message: Mapping[str, Any]) -> str:
        """Send one request, and return the server's answer.

        Raises:
            TransientError: nobody listens, the connection was cut, or the status is 500, 502, 503
                or 504.
            ServerError: anything else that is not an answer of visdom's.
        """
        return self._authorised(endpoint, message, self.timeout, None)

    def probe(self) -> None:
        """Check, within seconds, that visdom answers here and accepts the login.

        Raises:
            ServerError: nobody listens, the name does not resolve, the port is silent, the server
                is not visdom, or it needs a login that was not given.
        """
        question, seconds = {"win": "", "eid": "main"}, min(self.timeout, PROBE_SECONDS)
        answer = self._authorised("win_exists", question, seconds, PROBE_BYTES)
        if answer not in ("true", "false"):
            raise self._not_visdom(f"answers {answer[:40]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _authorised(
        self, endpoint: str, message: Mapping[str, Any], seconds: float, limit: int | None
    ) -> str:
        status, text = self._exchange(endpoint, message, seconds, limit)
        if _wants_login(status, text):
            self._log_in(seconds)
            status, text = self._exchange(endpoint, message, seconds, limit)
        if status == requests.codes.ok:
            return text
        proxy = self._proxy()
        if proxy:
            error = TransientError if status in RETRIED else ServerError
            raise error(
                f"{self.url} was asked through the proxy {proxy}, and the answer was HTTP status "
                f"{status} to POST /{endpoint}; {self._directly()}"
            )
        if status in RETRIED:
            raise TransientError(f"{self.url} fails with HTTP status {status} on {endpoint}")
        raise self._not_visdom(f"answers HTTP status {status} to POST /{endpoint}")

    def _proxy(self) -> str:
        """The environment's proxy for this server, without its password; "" if there is none."""
        if not self._session.trust_env:
            return ""
        proxies = requests.utils.get_environ_proxies(self.url)
        found = requests.utils.select_proxy(self.url, proxies)
        return found.rpartition("@")[2] if found else ""

    def _directly(self) -> str:
        return f"to reach the server directly, set NO_PROXY={self._host} in the environment"

    def _log_in(self, seconds: float) -> None:
        if not (self._username and self._password):
            raise ServerError(
                f"{self.url} asks for a login: give user name and password, "
                "or set VISDOM_USERNAME and VISDOM_PASSWORD"
            )
        # As in visdom's login page, the password's digest is sent, never the password.
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
                self._count(response)
                return response.status_code, _read(response, seconds, limit)
        except requests.RequestException as error:
            raise self._explained(error, seconds) from error

    def _count(self, response: requests.Response) -> None:
        """Count the connections: a restarted server does not answer over the old one."""
        sock = getattr(response.raw.connection, "sock", None)
        port = sock.getsockname()[1] if sock is not None else 0
        self.opened += self._kept and port != self._port
        said = response.headers.get("Connection", "keep-alive" if response.raw.version > 10 else "")
        self._port, self._kept = port, said.lower() == "keep-alive"

    def _explained(self, error: requests.RequestException, seconds: float) -> ServerError:
        where = self.url
        causes = {type(cause).__name__ for cause in _causes(error)}
        if isinstance(error, requests.exceptions.ProxyError):
            return ServerError(
                f"{where} cannot be reached through the proxy {self._proxy()} that the environment "
                f"names; {self._directly()}"
            )
        if isinstance(error, requests.exceptions.SSLError):
            return ServerError(f"{where} does not speak TLS as it should: http instead of https?")
        if "gaierror" in causes:
            return ServerError(f"{where}: the host name does not resolve; check the address")
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return ServerError(f"{where} cannot be reached: wrong host, or a firewall between")
        if isinstance(error, requests.exceptions.ReadTimeout):
            proxy = self._proxy()
            if proxy:
                return ServerError(
                    f"{where} was asked through the proxy {proxy}, which stays silent for "
                    f"{seconds:g} s; {self._directly()}"
                )
            return ServerError(
                f"{where} takes connections but stays silent for {seconds:g} s: "
                "it hangs, or it is not visdom"
            )
        if "ConnectionRefusedError" in causes:
            return TransientError(
                f"nobody listens at {where}: start visdom (flexrec serve), "
                "name another server and port, or write an HTML page instead"
            )
        if causes & {"BadStatusLine", "LineTooLong", "HTTPException"}:
            return self._not_visdom("does not speak HTTP")
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            proxy = self._proxy()
            if proxy:
                return TransientError(
                    f"{where} was asked through the proxy {proxy}, and the connection was cut; "
                    f"{self._directly()}"
                )
            return TransientError(f"{where} cut the connection: it stopped, or it is not visdom")
        return ServerError(f"{where} cannot be asked: {error}")

    def _not_visdom(self, what: str) -> ServerError:
        proxy = self._proxy()
        if proxy:
            return ServerError(
                f"{self.url} was asked through the proxy {proxy}, and what answers is not visdom: "
                f"it {what}; {self._directly()}"
            )
        return ServerError(
            f"what listens at {self.url} is not visdom, or not under this base URL: it {what}"
        )


def _address(server: str, port: int, base_url: str) -> tuple[str, str]:
    """The common prefix of all request URLs, and the host."""
    if not isinstance(server, str):
        raise ServerError(f"a server is an address such as http://localhost, got {server!r}")
    if not isinstance(base_url, str):
        raise ServerError(f"a base URL is a path such as /visdom, got {base_url!r}")
    if not isinstance(port, int):
        raise ServerError(f"a server's port must be a whole number such as 8097, got {port!r}")
    try:
        parts = urlsplit(server if "://" in server else f"http://{server}")
        host, port = parts.hostname, parts.port or port
    except ValueError as error:
        raise ServerError(f"{server!r} is not a server's address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or not 0 < port < 65536:
        raise ServerError(f"{server!r}, port {port}: not an address such as http://localhost")
    if host.endswith("localhost."):  # some resolvers do not know it
        host = host.removesuffix(".")
    path = "".join(f"/{part}" for part in f"{parts.path}/{base_url}".split("/") if part)
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}:{port}{path}", host


def _is_local(host: str) -> bool:
    """Whether the host is this machine, in any spelling, such as 127.1, 0.0.0.0 or localhost."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _wants_login(status: int, text: str) -> bool:
    # 0.3.0 answers 401; 0.2.4 answers 400 without a text.
    return status == requests.codes.unauthorized or (
        status == requests.codes.bad_request and not text
    )


def _read(response: requests.Response, seconds: float, limit: int | None) -> str:
    """The body; with a limit, only what comes in time, since some servers never end."""
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
