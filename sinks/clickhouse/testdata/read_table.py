"""Reads a table with the official Python client and prints one JSON array a row.

Every value is a string: milliseconds for times, hex digits for addresses, text as
it is, sorted key:value pairs for maps.
"""
import datetime
import ipaddress
import json
import sys

import clickhouse_connect


def text(value):
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        return str(round(value.timestamp() * 1000))
    if isinstance(value, ipaddress.IPv4Address):
        return "00000000000000000000ffff" + value.packed.hex()
    if isinstance(value, ipaddress.IPv6Address):
        return value.packed.hex()
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{k}:{v}" for k, v in value.items())) + "}"
    return str(value)


host, port, database, table, columns = sys.argv[1:]
client = clickhouse_connect.get_client(host=host, port=int(port), database=database)
for row in client.query(f"SELECT {columns} FROM {table}").result_rows:
    print(json.dumps([text(v) for v in row]))
client.close()
