"""Call every RPC once with an empty request, and print the status of each as JSON. Arguments: SERVER=PORT ..."""

import json
import sys
from typing import Any

from dubstage.client import DubstageCallError, connect, rpcs


def status(connection: Any, rpc: rpcs.Rpc[Any, Any]) -> str:
    """Return `OK`, or the status and the field of a refusal."""
    empty = rpc.request()
    try:
        match rpc:
            case rpcs.Unary():
                connection.unary(rpc, empty, timeout_s=30)
            case rpcs.Upload():
                connection.upload(rpc, [empty], timeout_s=30)
            case rpcs.Download():
                list(connection.download(rpc, empty, timeout_s=30))
            case _:
                list(connection.stream(rpc, [empty], timeout_s=30))
    except DubstageCallError as error:
        return f"{error.code} {error.field}".strip()
    return "OK"


def main() -> None:
    """Call all servers."""
    ports = dict(argument.split("=") for argument in sys.argv[1:])
    found = {}
    for rpc in rpcs.ALL:
        name = rpc.service.removeprefix("dubstage.").partition(".")[0]
        with connect(f"127.0.0.1:{ports.get(name, ports['gateway'])}") as connection:
            found[f"{rpc.service}/{rpc.method}"] = status(connection, rpc)
    print(json.dumps(found))


main()
