"""A file from the web, whole or not at all."""

import http.client
import time
import urllib.error
import urllib.request

BUSY = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 4.0, 16.0)  # seconds before each further try


def fetch(url: str) -> bytes:
    """The content at a URL; asked for again where the server is busy or the transfer was cut.

    Raises:
        OSError: it cannot be had.
    """
    for wait in (*WAITS, None):
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or wait is None:
                raise
        except http.client.HTTPException as error:  # cut: no OSError, and says little
            if wait is None:
                raise OSError(f"the transfer was cut: {error!r}") from error
        except (ConnectionResetError, TimeoutError):
            if wait is None:
                raise
        time.sleep(wait)
    raise AssertionError  # the last try returns or raises
