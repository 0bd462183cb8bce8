"""A driver for mqassay with a toy broker inside: it keeps everything in memory. The lines are described in driver.md.
Start: mqassay verify --driver 'python3 driver_example.py' no-loss
With the argument "forget" the toy loses every twentieth batch that it acknowledges, and the judge finds it."""

import json
import sys

forgetful = "forget" in sys.argv
topics = {}  # topic -> list of partitions, each {"start": first offset that stays, "log": [records]}
batches = 0


def answer(request):
    global batches
    call = request["call"]
    if call == "create-topic":
        topics[request["topic"]] = [{"start": 0, "log": []} for _ in range(request["queues"])]
        return {}
    queue = topics[request["topic"]][request["partition"]]
    log = queue["log"]
    if call == "produce":
        batches += 1
        first = len(log)
        if not (forgetful and batches % 20 == 0):
            for place, record in enumerate(request["records"]):
                log.append({**record, "offset": first + place})
        return {"first_offset": first, "attempts": 1}
    if call == "poll":
        start = max(request["offset"], queue["start"])
        return {"records": log[start : start + request["max_records"]]}
    if call == "list-offset":
        query = request["query"]
        if query == "earliest":
            return {"offset": queue["start"], "timestamp_ms": -1}
        if query == "latest":
            return {"offset": len(log), "timestamp_ms": -1}
        for record in log[queue["start"] :]:
            if record["timestamp_ms"] >= query["timestamp"]:
                return {"offset": record["offset"], "timestamp_ms": record["timestamp_ms"]}
        return {"offset": -1, "timestamp_ms": -1}
    if call == "delete-records":
        queue["start"] = max(queue["start"], min(request["before"], len(log)))
        return {"low_watermark": queue["start"]}
    raise ValueError("unknown call " + call)


for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({"id": asked["id"], "outcome": "done", **answer(asked)}), flush=True)
