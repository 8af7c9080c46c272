# SPDX-License-Identifier: Apache-2.0
"""moto's S3 on a free port of the loopback, with the bucket `lathe`: prints its address, then serves until it is killed."""

import http.client
import logging
import sys
import threading

from moto.server import create_backend_app
from werkzeug.serving import make_server


def serve():
    """The server, listening; nothing runs yet."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True)


def make_bucket(port, name):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    c.request("PUT", f"/{name}")
    assert c.getresponse().status == 200


if __name__ == "__main__":
    server = serve()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    make_bucket(server.port, "lathe")
    print(f"http://127.0.0.1:{server.port}/lathe", flush=True)
    sys.stdout.close()
    thread.join()
