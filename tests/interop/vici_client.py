"""Talks to a daemon with strongSwan's Python client and prints what it answered as JSON.

usage: vici_client.py LIBRARY SOCKET CONNECTION

CONNECTION is a file with the arguments of `load-conn` and `load-shared`, as JSON.
"""

import json
import socket
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
import vici  # noqa: E402

EVENTS = ["ike-updown", "child-updown", "ike-rekey", "child-rekey"]
WAIT = 10


def session():
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(sys.argv[2])
    return vici.Session(stream)


def readable(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        # The order of the keys is part of the interface, and JSON's objects have none.
        return [{"key": key, "value": readable(inner)} for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return [readable(inner) for inner in value]
    return value


class Listener(threading.Thread):
    """Collects events; `wait` returns when one of a name came since the last time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.changed, self.taken = [], threading.Condition(), 0
        self.session = session()
        self.registered = threading.Event()
        self.count_confirmations()

    def count_confirmations(self):
        """The client registers when the thread runs: what happens before that is not seen."""
        transport, confirmed = self.session.transport, []
        receive = transport.receive

        def counted(*arguments):
            packet = receive(*arguments)
            confirmed.append(packet)
            if len(confirmed) == len(EVENTS):
                self.registered.set()
            return packet

        transport.receive = counted

    def begin(self):
        self.start()
        if not self.registered.wait(WAIT):
            raise SystemExit("the events were not confirmed")

    def run(self):
        for name, message in self.session.listen(EVENTS):
            with self.changed:
                self.seen.append([readable(name), readable(message)])
                self.changed.notify_all()

    def wait(self, name):
        def is_there():
            for index, (seen, _) in enumerate(self.seen):
                if index >= self.taken and seen == name:
                    self.taken = index + 1
                    return True
            return False

        with self.changed:
            if not self.changed.wait_for(is_there, WAIT):
                raise SystemExit(f"{name} did not come; came: {json.dumps(self.seen)}")


def until(what, is_so):
    """Waits for what no event announces."""
    end = time.monotonic() + WAIT
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.05)


def refused(act):
    try:
        act()
    except (vici.exception.CommandException, vici.exception.SessionException) as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def main():
    with open(sys.argv[3], encoding="utf-8") as file:
        wanted = json.load(file)
    client, listener = session(), Listener()
    answers = {}
    client.load_conn(wanted["conn"])
    client.load_shared(wanted["shared"])
    answers["conns"] = readable(client.get_conns())
    answers["shared"] = readable(client.get_shared())
    answers["list-conns"] = readable(list(client.list_conns()))
    listener.begin()
    logged = list(client.initiate({"child": "net", "timeout": "10000"}))
    answers["control-log"] = sorted(logged[0].keys())
    listener.wait("child-updown")
    answers["list-sas"] = readable(list(client.list_sas()))
    answers["list-sas of another child"] = readable(list(client.list_sas({"child": "other"})))
    answers["rekey"] = readable(client.rekey({"child": "net"}))
    listener.wait("child-rekey")
    client.rekey({"ike": "gw"})
    listener.wait("ike-rekey")
    until("the end of the old IKE SA", lambda: len(list(client.list_sas())) == 1)
    answers["counters"] = readable(client.get_counters({"name": "gw"}))
    answers["install"] = readable(client.install({"child": "net", "ike": "gw"}))
    answers["policies"] = readable(list(client.list_policies({"trap": "yes"})))
    answers["uninstall"] = readable(client.uninstall({"child": "net", "ike": "gw"}))
    list(client.terminate({"ike": "gw", "timeout": "10000"}))
    listener.wait("ike-updown")
    answers["refused"] = {
        "unknown command": refused(lambda: client.request("nonsense")),
        "unknown key": refused(lambda: client.load_conn({"gw": {"nonsense": "1"}})),
        "unknown child": refused(lambda: list(client.initiate({"child": "nope"}))),
        "nothing to terminate": refused(lambda: list(client.terminate({"ike": "nope"}))),
        "nothing to rekey": refused(lambda: client.rekey({"ike": "nope"})),
        "unknown policy": refused(lambda: client.uninstall({"child": "nope", "ike": "gw"})),
        "a token": refused(lambda: client.load_token({"handle": "01", "pin": "1"})),
        "unknown connection": refused(lambda: client.unload_conn({"name": "nope"})),
        "no counters": refused(lambda: client.get_counters({"name": "nope"})),
    }
    client.unload_conn({"name": "gw"})
    client.unload_shared({"id": wanted["shared"]["id"]})
    answers["conns afterwards"] = readable(client.get_conns())
    answers["version"] = sorted(client.version().keys())
    answers["events"] = listener.seen
    json.dump(answers, sys.stdout)


main()
