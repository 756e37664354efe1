"""moto's S3 over HTTP, one request at a time: `python -m tests.contract.stores.moto_server PORT`.

Two requests that write the same object at once make moto answer 500 (it closes the buffer that the other reads).
No real store does so, and the tests write the same blob from many threads and processes.
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def one_at_a_time(application: Any) -> Any:
    """Return the WSGI application behind a lock, which is held until the answer is whole."""
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with lock:
            return list(application(environ, start_response))

    return serve


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time(DomainDispatcherApplication(create_backend_app)), threaded=True)
