"""Prints the first event of a kind that strongSwan's Python client gets from a daemon, as JSON.

usage: vici_listen.py LIBRARY SOCKET EVENT

Says `listening` once the daemon has confirmed the registration.
"""

import json
import socket
import sys

sys.path.insert(0, sys.argv[1])
import vici  # noqa: E402


def readable(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        # The order of the keys is part of the interface, and JSON's objects have none.
        return [{"key": key, "value": readable(inner)} for key, inner in value.items()]
    return [readable(inner) for inner in value]


def main():
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(sys.argv[2])
    session = vici.Session(stream)
    receive = session.transport.receive

    def confirmed(*arguments):
        packet = receive(*arguments)
        session.transport.receive = receive
        print("listening", flush=True)
        return packet

    session.transport.receive = confirmed
    for _, message in session.listen([sys.argv[3]]):
        json.dump(readable(message), sys.stdout)
        return


main()
