"""A toy broker that is a process of its own, and its driver, for the tests of drivers and hooks.
`serve FOLDER` keeps topics in FOLDER and answers JSON lines on a free port; with `lossy` it acknowledges batches that it
writes only later, so that a kill loses them. `drive FOLDER` is the driver. Not an example for users: see docs."""

import json
import os
import socket
import sys
import time
from pathlib import Path

mode, folder = sys.argv[1], Path(sys.argv[2])
lossy = "lossy" in sys.argv


def serve():
    topics, pending = {}, []
    journal = open(folder / "journal", "a+")
    journal.seek(0)
    for line in journal:
        apply(topics, json.loads(line))
    listener = socket.create_server(("127.0.0.1", 0))
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "port.new").write_text(str(listener.getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                request = json.loads(line)
                result = apply(topics, request)
                if request["call"] in ("create-topic", "produce", "delete-records"):
                    pending.append(line)
                if pending and (not lossy or len(pending) >= 12 or request["call"] == "create-topic"):
                    journal.write("".join(pending))
                    journal.flush()
                    pending.clear()
                stream.write(json.dumps({"id": request["id"], "outcome": "done", **result}) + "\n")
                stream.flush()


def apply(topics, request):
    call = request["call"]
    if call == "create-topic":
        topics[request["topic"]] = [{"start": 0, "log": []} for _ in range(request["queues"])]
        return {}
    queue = topics[request["topic"]][request["partition"]]
    log = queue["log"]
    if call == "produce":
        first = len(log)
        log.extend({**record, "offset": first + place} for place, record in enumerate(request["records"]))
        return {"first_offset": first, "attempts": 1}
    if call == "poll":
        start = max(request["offset"], queue["start"])
        return {"records": log[start : start + request["max_records"]]}
    if call == "delete-records":
        queue["start"] = max(queue["start"], min(request["before"], len(log)))
        return {"low_watermark": queue["start"]}
    offset = {"earliest": queue["start"], "latest": len(log)}.get(str(request["query"]))
    if offset is not None:
        return {"offset": offset, "timestamp_ms": -1}
    late = [record for record in log[queue["start"] :] if record["timestamp_ms"] >= request["query"]["timestamp"]]
    found = late[0] if late else {"offset": -1, "timestamp_ms": -1}
    return {"offset": found["offset"], "timestamp_ms": found["timestamp_ms"]}


def drive():
    stream = None
    for line in sys.stdin:
        request = json.loads(line)
        answer = None
        until = time.monotonic() + 5
        while answer is None and time.monotonic() < until:
            try:
                stream = stream or dial()
                stream.write(line)
                stream.flush()
                answer = stream.readline() or None
            except (OSError, ValueError):
                answer = None
            if answer is None:
                stream = None
                if request["call"] in ("produce", "delete-records"):
                    break  # It may have been done; sending it again could do it twice.
                time.sleep(0.01)
        lost = json.dumps({"id": request["id"], "outcome": "unknown", "why": "no answer"}) + "\n"
        sys.stdout.write(answer or lost)
        sys.stdout.flush()


def dial():
    port = int((folder / "port").read_text())
    return socket.create_connection(("127.0.0.1", port), timeout=5).makefile("rw")


{"serve": serve, "drive": drive}[mode]()
