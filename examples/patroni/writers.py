"""Clients that write to every node all the time, the record of what they were told, and the verdict on it.

A client knows nothing of Patroni: it offers its rows to one node and notes which were acknowledged, when, and in which of
PostgreSQL's timelines. A timeline is a reign, for each promotion begins a new one.
"""

import threading
import time
from collections import namedtuple

import psycopg

Row = namedtuple("Row", "identifier node timeline sent acknowledged")
INSERT = "INSERT INTO acknowledged (identifier) VALUES (%s) RETURNING substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
PAUSE_SECONDS = 0.02
REFUSED_PAUSE_SECONDS = 0.1


def connect(node):
    return psycopg.connect(host="127.0.0.1", port=node.postgres_port, user="postgres", password="postgres", dbname="postgres",
                           autocommit=True, connect_timeout=2)


class Writers:
    """One client for each node."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.rows = []
        self.unknown = 0
        self.refused = 0
        self.ending = threading.Event()
        self.threads = []

    def start(self, primary):
        with connect(primary) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS acknowledged (identifier text PRIMARY KEY)")
        for node in self.nodes:
            thread = threading.Thread(target=self.write_to, args=(node,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(10)

    def write_to(self, node):
        count = 0
        while not self.ending.is_set():
            try:
                with connect(node) as connection:
                    notices = []
                    # PostgreSQL acknowledges what it stopped waiting to replicate, with a warning: that is no promise.
                    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
                    while not self.ending.is_set():
                        count += 1
                        self.write(node, connection, f"{node.name}-{count}", notices)
            except psycopg.Error:
                self.ending.wait(REFUSED_PAUSE_SECONDS)

    def write(self, node, connection, identifier, notices):
        notices.clear()
        sent = time.monotonic()
        try:
            timeline = connection.execute(INSERT, (identifier,)).fetchone()[0]
        except psycopg.errors.ReadOnlySqlTransaction:
            self.refused += 1
            self.ending.wait(REFUSED_PAUSE_SECONDS)
            return
        except psycopg.Error:
            self.unknown += 1
            raise
        if notices:
            self.unknown += 1
        else:
            self.rows.append(Row(identifier, node.name, int(timeline, 16), sent, time.monotonic()))
        self.ending.wait(PAUSE_SECONDS)

    def last(self):
        return self.rows[-1] if self.rows else None

    def first_since(self, when, nodes):
        """The first row that was sent after `when` and acknowledged by one of these nodes."""
        return next((row for row in list(self.rows) if row.sent > when and row.node in nodes), None)

    def longest_gap(self, begin, end):
        """The longest time in this interval in which nobody was told that a row is safe."""
        times = sorted([begin, end, *(row.acknowledged for row in list(self.rows) if begin < row.acknowledged < end)])
        return max(later - earlier for earlier, later in zip(times, times[1:]))


def overlapping(rows):
    """What speaks against there having been one acknowledging node at a time: nothing, if all is well."""
    faults = []
    reigns = {}
    for row in rows:
        reigns.setdefault(row.timeline, []).append(row)
    for timeline, reign in reigns.items():
        nodes = sorted({row.node for row in reign})
        if len(nodes) > 1:
            faults.append(f"timeline {timeline} was acknowledged by {' and '.join(nodes)}")
    ordered = sorted(reigns)
    for earlier, later in zip(ordered, ordered[1:]):
        last = max(reigns[earlier], key=lambda row: row.acknowledged)
        first = min(reigns[later], key=lambda row: row.acknowledged)
        if last.acknowledged >= first.acknowledged:
            faults.append(f"{last.node} acknowledged in timeline {earlier} {last.acknowledged - first.acknowledged:.3f} s after "
                          f"{first.node} had in timeline {later}")
    return faults


def lost(rows, node):
    """The acknowledged rows that this node has not."""
    with connect(node) as connection:
        present = {identifier for (identifier,) in connection.execute("SELECT identifier FROM acknowledged")}
    return [row for row in rows if row.identifier not in present]
