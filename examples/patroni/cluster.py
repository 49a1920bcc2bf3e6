"""Three Tenure members, three Patroni nodes and their PostgreSQL on one machine, all in one directory and on loopback.

Run by `up`, it starts them, says where all is, and stops them at Ctrl-C; it restarts nobody, so that what happens when a
part dies can be seen. The test (`scenarios.py`) uses the same parts and breaks them. Every process dies with this one.
"""

import argparse
import json
import os
import pwd
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
POSTGRES = Path("/usr/lib/postgresql/15/bin")
PATRONI = Path(sys.executable).parent
STOP_SECONDS_MAX = 60
START_SECONDS_MAX = 90


class Failure(Exception):
    """What did not happen, or should not have, in one line."""


def call(url, body=None, method=None, timeout=3.0):
    """The answer's status and JSON; (0, None) when nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    except OSError:
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def wait_for(what, condition, seconds):
    """Returns the first true value of `condition`, or fails saying what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(0.1)


class Program:
    """A process with a directory and a log of its own."""

    def __init__(self, name, directory, user):
        self.name = name
        self.directory = directory
        self.log = directory / "log"
        self.user = user
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        # The kernel ends it when this process is gone, however that came about. Must be called by the main thread.
        wrapped = ["setpriv", "--pdeathsig", "TERM"]
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            wrapped += ["--reuid", self.user, "--regid", str(owner.pw_gid), "--init-groups"]
        environment = {"PATH": f"{POSTGRES}:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(self.directory)}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*wrapped, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.directory, env=environment, start_new_session=True)

    def signal(self, number):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait(self, seconds=STOP_SECONDS_MAX):
        """Kills what has not ended in time; that is a failure, but for the caller to judge."""
        if self.process is None:
            return True
        try:
            self.process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False


class Member(Program):
    """A Tenure member."""

    def __init__(self, number, cluster):
        super().__init__(f"t{number}", cluster.directory / f"t{number}", None)
        self.cluster = cluster
        self.address = f"127.0.0.1:{cluster.port + number}"
        self.url = f"http://{self.address}"
        self.peer_url = f"http://127.0.0.1:{cluster.port + 10 + number}"

    def command(self):
        everyone = ",".join(f"{member.name}={member.peer_url}" for member in self.cluster.members)
        # Each renewal of status is a revision: without compaction the history would grow for ever.
        return [self.cluster.server, "--name", self.name, "--data-dir", str(self.directory / "data"),
                "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
                "--initial-cluster", everyone, "--initial-cluster-token", "tenure-patroni",
                "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"]

    def ready(self):
        return call(f"{self.url}/readyz")[0] == 200

    def leads(self):
        status, answer = call(f"{self.url}/v3/maintenance/status", {}, timeout=1.0)
        return status == 200 and answer.get("leader", "0") == answer["header"]["member_id"]


class Node(Program):
    """A Patroni node with its PostgreSQL."""

    def __init__(self, number, cluster):
        super().__init__(f"n{number}", cluster.directory / f"n{number}", cluster.user)
        self.cluster = cluster
        self.data = self.directory / "data"
        self.configuration = self.directory / "patroni.yml"
        self.postgres_port = cluster.port + 20 + number
        self.rest_port = cluster.port + 30 + number
        self.rest = f"http://127.0.0.1:{self.rest_port}"

    def command(self):
        template = string.Template((HERE / "patroni.yml").read_text(encoding="utf-8"))
        self.configuration.write_text(template.substitute(
            name=self.name, members=json.dumps([member.address for member in self.cluster.members]),
            rest_port=self.rest_port, postgres_port=self.postgres_port, bin_dir=POSTGRES, data_dir=self.data,
            directory=self.directory), encoding="utf-8")
        return [str(PATRONI / "patroni"), str(self.configuration)]

    def state(self):
        """What the node says of itself; empty when it does not answer."""
        return call(f"{self.rest}/patroni", timeout=2.0)[1] or {}

    def is_primary(self):
        return call(f"{self.rest}/primary", timeout=2.0)[0] == 200

    def processes(self):
        """Patroni, the postmaster, which is a session of its own, and all that descend from them."""
        found = []
        pids = [self.process.pid] if self.running() else []
        try:
            pids.append(int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0]))
        except (OSError, ValueError, IndexError):
            pass
        for pid in pids:
            try:
                process = psutil.Process(pid)
                # A stale file may name a stranger.
                if pid != pids[0] and process.name() != "postgres":
                    continue
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                pass
        return found

    def crash(self):
        """All of the node at once, as if its machine had lost power."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()


class Cluster:
    """All parts, and what is asked of them together."""

    def __init__(self, directory, server, port, user):
        self.directory = directory
        self.server = server
        self.port = port
        self.user = user
        self.members = []
        self.members += [Member(number, self) for number in (1, 2, 3)]
        self.nodes = [Node(number, self) for number in (1, 2, 3)]

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        patronictl = self.directory / "patronictl"
        # patronictl reads one node's file for the members' addresses; any of the three would do.
        patronictl.write_text(f'#!/bin/sh\nexec {PATRONI}/patronictl -c {self.nodes[0].configuration} "$@"\n', encoding="utf-8")
        patronictl.chmod(0o755)
        for member in self.members:
            member.start()
        self.wait_members()
        for node in self.nodes:
            node.start()

    def stop(self):
        """True when all ended by themselves. PostgreSQL first, for its shutdown is reported to the store."""
        well = True
        for parts in (self.nodes, self.members):
            for part in parts:
                part.signal(signal.SIGCONT)
                part.signal(signal.SIGTERM)
            for part in parts:
                well &= part.wait()
        # A PostgreSQL whose Patroni had been killed would stay.
        for node in self.nodes:
            if node.process is not None:
                node.crash()
        return well

    def wait_members(self):
        wait_for("three members that serve", lambda: all(member.ready() for member in self.members), START_SECONDS_MAX)

    def leading_member(self):
        return wait_for("a leader among the members",
                        lambda: next((member for member in self.members if member.running() and member.leads()), None), 20)

    def primary(self):
        return wait_for("a primary", lambda: next((node for node in self.nodes if node.is_primary()), None), 60)

    def roles(self):
        """Each node's role and state as the primary sees them, or nothing when no node is primary."""
        for node in self.nodes:
            if node.is_primary():
                members = (call(f"{node.rest}/cluster", timeout=2.0)[1] or {}).get("members", [])
                return {member["name"]: (member["role"], member["state"]) for member in members}
        return {}

    def whole(self):
        """A primary, a synchronous standby and another replica, which both stream."""
        roles = self.roles()
        return sorted(roles.values()) == [("leader", "running"), ("replica", "streaming"), ("sync_standby", "streaming")] and roles

    def wait_whole(self, seconds=START_SECONDS_MAX):
        return wait_for("a primary with two standbys, one of them synchronous", self.whole, seconds)

    def patronictl(self, *arguments, timeout=60):
        return subprocess.run([self.directory / "patronictl", *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def add_arguments(parser):
    parser.add_argument("--port", type=int, default=24000,
                        help="ports from here on: members at +1 to +3, their peers +11, PostgreSQL +21, Patroni +31 (default: %(default)s)")
    parser.add_argument("--user", default="postgres" if os.getuid() == 0 else None,
                        help="who Patroni and PostgreSQL run as when this is run by root (default: %(default)s)")


def explain(cluster):
    listing = cluster.patronictl("list").stdout
    members = ",".join(member.address for member in cluster.members)
    ports = ",".join(str(node.postgres_port) for node in cluster.nodes)
    print(f"""
{listing}
All is in {cluster.directory}: the members' data and logs in t1, t2 and t3, the nodes' configurations, logs and data in n1, n2 and n3.

In another terminal:
  {cluster.directory}/patronictl list
  {cluster.directory}/patronictl switchover --force
  PGPASSWORD=postgres psql 'host=127.0.0.1,127.0.0.1,127.0.0.1 port={ports} user=postgres target_session_attrs=read-write'
  ETCDCTL_API=3 etcdctl --endpoints={members} get --prefix /service/demo/
Kill one and look again; its process id:
  {'  '.join(f'{part.name} {part.process.pid}' for part in cluster.members + cluster.nodes)}

Ctrl-C stops all; the same command takes it up again.""", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="up", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dir", type=Path, default=Path("/tmp/tenure-patroni"), help="where all is kept (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left in the directory")
    add_arguments(parser)
    options = parser.parse_args()
    directory = options.dir.resolve()
    if options.fresh:
        for part in ("t1", "t2", "t3", "n1", "n2", "n3"):
            shutil.rmtree(directory / part, ignore_errors=True)
    cluster = Cluster(directory, os.environ["TENURED"], options.port, options.user)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    told = set()
    try:
        print(f"Starting three members of Tenure and three nodes of Patroni in {directory} ...", flush=True)
        cluster.start()
        cluster.wait_whole()
        explain(cluster)
        while True:
            for part in cluster.members + cluster.nodes:
                if not part.running() and part.name not in told:
                    told.add(part.name)
                    print(f"{part.name} ended ({part.process.returncode}). To have it again, stop all and run `up` once more; "
                          f"its command was: {shlex.join(part.process.args)}", flush=True)
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    except Failure as failure:
        sys.exit(f"{failure}; see the logs in {directory}")
    finally:
        print("Stopping all ...", flush=True)
        cluster.stop()


if __name__ == "__main__":
    main()
