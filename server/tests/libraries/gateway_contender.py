"""Stands in line by etcd's Lock or Election service, spoken to as JSON: says its key when it has it, and gives it back when
told a line. Arguments: ENDPOINT lock|elect NAME."""

import base64
import json
import sys
import urllib.request

endpoint, kind, name = sys.argv[1:]


def call(path, body):
    request = urllib.request.Request(endpoint + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


lease = call("/v3/lease/grant", {"TTL": 120})["ID"]
if kind == "lock":
    key = call("/v3/lock/lock", {"name": base64_of(name), "lease": lease})["key"]
else:
    leader = call("/v3/election/campaign", {"name": base64_of(name), "lease": lease, "value": base64_of("gateway")})["leader"]
    key = leader["key"]
print(base64.b64decode(key).decode(), flush=True)
sys.stdin.readline()
if kind == "lock":
    call("/v3/lock/unlock", {"key": key})
else:
    call("/v3/election/resign", {"leader": leader})
call("/v3/lease/revoke", {"ID": lease})
