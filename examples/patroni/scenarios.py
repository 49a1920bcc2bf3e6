"""Breaks the parts of the example while clients write to every node, and judges what the clients were told.

In every scenario: never two nodes that acknowledge, no acknowledged row lost (synchronous mode), no demotion but in an
outage of all members or a switchover that was asked for, and a fail-over within ttl + loop_wait + 5 s.
"""

import argparse
import base64
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import writers
from cluster import Cluster, Failure, add_arguments, call, wait_for

TTL, LOOP_WAIT = 20, 2
FAILOVER_SECONDS_MAX = TTL + LOOP_WAIT + 5
# Longer than the lease, so that one which is counted wrongly would end.
FAULT_SECONDS = TTL + 8
# Without a fail-over writes may falter when a member is replaced, but not long.
FALTER_SECONDS_MAX = 5
SCENARIO_SECONDS_MAX = 300


class Trial:
    """A cluster under writers, and the marks between which a scenario is judged."""

    def __init__(self, cluster, round_number):
        self.cluster = cluster
        self.round = round_number
        self.writers = writers.Writers(cluster.nodes)
        self.began = time.monotonic()
        self.marks = {}

    def begin(self):
        self.began = time.monotonic()
        self.marks = {node.name: node.log.stat().st_size if node.log.exists() else 0 for node in self.cluster.nodes}

    def logged(self, pattern):
        """The lines of Patroni's logs since the scenario began that match."""
        found = []
        for node in self.cluster.nodes:
            with open(node.log, "rb") as log:
                log.seek(self.marks.get(node.name, 0))
                text = log.read().decode(errors="replace")
            found += [f"{node.name}: {line}" for line in text.splitlines() if re.search(pattern, line, re.IGNORECASE)]
        return found

    def judge(self, demotion_allowed):
        """What holds after every scenario, once the cluster is whole again."""
        faults = writers.overlapping(list(self.writers.rows))
        rows = list(self.writers.rows)
        missing = writers.lost(rows, self.cluster.primary())
        if missing:
            faults.append(f"{len(missing)} of {len(rows)} acknowledged rows are lost, the first {missing[0]}")
        demotions = self.logged("demot")
        if demotions and not demotion_allowed:
            faults.append(f"demoted: {demotions[0]}")
        if faults:
            raise Failure("; ".join(faults))

    def pass_time(self, seconds):
        """Lets a fault last; not waiting for anything, for nothing is what should happen."""
        time.sleep(seconds)

    def written_by(self, nodes, since):
        """Waits until one of these nodes acknowledges what was sent later than `since`; how long that took."""
        names = {node.name for node in nodes}
        row = wait_for("an acknowledged row", lambda: self.writers.first_since(since, names), 60)
        return row.acknowledged - since

    def unmoved(self, primary, seconds_max=FALTER_SECONDS_MAX):
        """No fail-over since the beginning, and no longer silence than this."""
        now = time.monotonic()
        since = [row for row in list(self.writers.rows) if row.acknowledged > self.began]
        if {row.node for row in since} != {primary.name} or len({row.timeline for row in since}) != 1:
            raise Failure(f"{primary.name} should have written alone, but {sorted({(row.node, row.timeline) for row in since})} did")
        gap = self.writers.longest_gap(self.began, now)
        if gap > seconds_max:
            raise Failure(f"nothing was acknowledged for {gap:.1f} s")
        return gap


def bootstrap(trial):
    """A cluster from nothing."""
    trial.cluster.start()
    trial.cluster.wait_whole()
    took = time.monotonic() - trial.began
    trial.writers.start(trial.cluster.primary())
    wait_for("an acknowledged row", trial.writers.last, 20)
    return f"whole after {took:.1f} s"


def switchover(trial):
    """The primary hands over, asked to."""
    old = trial.cluster.primary()
    candidate = next(name for name, (role, _) in trial.cluster.roles().items() if role == "sync_standby")
    asked = time.monotonic()
    answer = trial.cluster.patronictl("switchover", "--leader", old.name, "--candidate", candidate, "--force")
    if answer.returncode != 0:
        raise Failure(f"patronictl: {answer.stdout}{answer.stderr}")
    wait_for(f"{candidate} as the primary", lambda: trial.cluster.primary().name == candidate, 30)
    trial.written_by([node for node in trial.cluster.nodes if node is not old], time.monotonic())
    gap = trial.writers.longest_gap(asked, time.monotonic())
    trial.cluster.wait_whole()
    return f"{old.name} to {candidate}, {gap:.1f} s without writes"


def fail_over(trial, also=None):
    """The crash of the primary (and of this member, in the same moment) and what it leads to."""
    old = trial.cluster.primary()
    crashed = time.monotonic()
    if also is not None:
        also.signal(signal.SIGKILL)
    old.crash()
    took = trial.written_by([node for node in trial.cluster.nodes if node is not old], crashed)
    if took > FAILOVER_SECONDS_MAX:
        raise Failure(f"the fail-over took {took:.1f} s")
    if also is not None:
        also.wait()
        also.start()
    old.start()
    trial.cluster.wait_members()
    trial.cluster.wait_whole()
    rejoined = time.monotonic() - crashed
    return f"{old.name} to {trial.cluster.primary().name}, written again after {took:.1f} s, whole after {rejoined:.1f} s"


def kill(trial):
    """kill -9 of the primary: Patroni, PostgreSQL and all that is theirs."""
    return fail_over(trial)


def both(trial):
    """The same while the members' leader dies in the same moment."""
    member = trial.cluster.leading_member()
    return f"{member.name} died; {fail_over(trial, member)}"


def pause(trial):
    """The leader of the members stands still for longer than the lease lasts, and comes back."""
    primary, member = trial.cluster.primary(), trial.cluster.leading_member()
    member.signal(signal.SIGSTOP)
    trial.pass_time(FAULT_SECONDS)
    member.signal(signal.SIGCONT)
    trial.cluster.wait_members()
    trial.cluster.wait_whole()
    return f"{member.name} stood for {FAULT_SECONDS} s, {trial.unmoved(primary):.1f} s without writes"


def take_away(trial):
    """No member answers: in odd rounds they stand still, in even ones they died."""
    for member in trial.cluster.members:
        member.signal(signal.SIGSTOP if trial.round % 2 else signal.SIGKILL)


def bring_back(trial):
    for member in trial.cluster.members:
        if trial.round % 2:
            member.signal(signal.SIGCONT)
        else:
            member.wait()
            member.start()
    trial.cluster.wait_members()


def outage(trial):
    """No member answers: the primary must give up before anybody else could have its place."""
    primary = trial.cluster.primary()
    gone = time.monotonic()
    take_away(trial)
    wait_for(f"{primary.name} to refuse writes", lambda: not primary.is_primary(), TTL)
    trial.pass_time(max(0.0, gone + FAULT_SECONDS - time.monotonic()))
    last = trial.writers.last().acknowledged - gone
    if last > TTL:
        raise Failure(f"{primary.name} acknowledged for {last:.1f} s without the store")
    back = time.monotonic()
    bring_back(trial)
    took = trial.written_by(trial.cluster.nodes, back)
    trial.cluster.wait_whole()
    return f"{primary.name} wrote for {last:.1f} s; written again {took:.1f} s after the members were back"


def failsafe(trial):
    """No member answers, but all nodes see each other: in failsafe mode the primary stays."""
    primary = trial.cluster.primary()
    configure(trial, True)
    trial.begin()
    take_away(trial)
    trial.pass_time(FAULT_SECONDS + TTL / 2)
    bring_back(trial)
    trial.written_by([primary], time.monotonic())
    trial.cluster.wait_whole()
    gap = trial.unmoved(primary)
    # What it says when it relies on the others, to be sure that this is what was tried.
    if not trial.logged("continue to run as a leader because failsafe mode is enabled"):
        raise Failure("Patroni did not need its failsafe mode")
    configure(trial, False)
    return f"{primary.name} wrote on for {FAULT_SECONDS + TTL / 2:.0f} s, {gap:.1f} s without writes"


def configure(trial, failsafe_mode):
    """Sets failsafe mode, and waits until the primary has told the others in the store."""
    primary = trial.cluster.primary()
    status, _ = call(f"{primary.rest}/config", {"failsafe_mode": failsafe_mode}, method="PATCH")
    if status != 200:
        raise Failure(f"PATCH /config of {primary.name}: {status}")
    key = base64.b64encode(b"/service/demo/failsafe").decode()

    def known():
        count = (call(f"{trial.cluster.members[0].url}/v3/kv/range", {"key": key})[1] or {}).get("count", "0")
        return (count == "1") == failsafe_mode or not failsafe_mode
    wait_for("the store to know who may vote in failsafe mode", known, 20)


def rolling(trial):
    """Every member is restarted, one after the other and twice, while others than Patroni write too."""
    primary = trial.cluster.primary()
    ending = threading.Event()
    accepted = []

    def load():
        for number in itertools.count():
            if ending.wait(0.005):
                return
            body = {"key": base64.b64encode(f"load/{number % 1000}".encode()).decode(), "value": base64.b64encode(bytes(200)).decode()}
            if call(f"{random.choice(trial.cluster.members).url}/v3/kv/put", body, timeout=1.0)[0] == 200:
                accepted.append(number)
    others = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for thread in others:
        thread.start()
    try:
        for member in trial.cluster.members * 2:
            member.signal(signal.SIGTERM)
            if not member.wait(20):
                raise Failure(f"{member.name} did not end within 20 s of SIGTERM")
            member.start()
            trial.cluster.wait_members()
            # So that the members go at different moments of Patroni's loop.
            trial.pass_time(LOOP_WAIT * random.random())
    finally:
        ending.set()
        for thread in others:
            thread.join()
    trial.pass_time(TTL + LOOP_WAIT)
    trial.cluster.wait_whole()
    return f"6 restarts under {len(accepted)} other writes, {trial.unmoved(primary):.1f} s without writes"


SCENARIOS = [bootstrap, switchover, kill, pause, outage, failsafe, rolling, both]
# A switchover is a demotion that was asked for.
MAY_DEMOTE = {switchover, outage}


def run_round(options, number, chosen):
    directory = Path(tempfile.mkdtemp(prefix="tenure-patroni-", dir=options.dir))
    cluster = Cluster(directory, os.environ["TENURED"], options.port, options.user)
    trial = Trial(cluster, number)
    try:
        for scenario in chosen:
            # Nothing here may wait for ever, whatever hangs.
            signal.alarm(SCENARIO_SECONDS_MAX)
            trial.begin()
            said = scenario(trial)
            trial.judge(scenario in MAY_DEMOTE)
            print(f"round {number}  {scenario.__name__:10}  ok  {said}", flush=True)
        signal.alarm(SCENARIO_SECONDS_MAX)
        trial.writers.stop()
        trial.judge(True)
        rows = trial.writers.rows
        print(f"round {number}  {len(rows)} rows acknowledged in {len({row.timeline for row in rows})} reigns, "
              f"none lost, no two at once ({trial.writers.unknown} unknown, {trial.writers.refused} refused)", flush=True)
        if not cluster.stop():
            raise Failure("a part did not end when it was told to")
    except Exception as failure:
        print(f"round {number}  {scenario.__name__:10}  FAILED  {failure!r}; logs are in {directory}", flush=True)
        return False
    finally:
        trial.writers.ending.set()
        cluster.stop()
        signal.alarm(0)
    shutil.rmtree(directory)
    return True


def main():
    parser = argparse.ArgumentParser(prog="test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", default=[],
                        help="which, in this order, after bootstrap (default: all): " + ", ".join(one.__name__ for one in SCENARIOS))
    parser.add_argument("--rounds", type=int, default=1, help="how often, each from a new cluster (default: %(default)s)")
    parser.add_argument("--dir", type=Path, default=Path("/tmp"), help="where the data is meanwhile (default: %(default)s)")
    add_arguments(parser)
    options = parser.parse_args()
    known = {one.__name__: one for one in SCENARIOS}
    unknown = [name for name in options.scenarios if name not in known]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    chosen = [known[name] for name in options.scenarios] or SCENARIOS
    if chosen[0] is not bootstrap:
        chosen.insert(0, bootstrap)

    def too_long(*_):
        raise Failure(f"still not done after {SCENARIO_SECONDS_MAX} s")
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    passed = sum(run_round(options, number, chosen) for number in range(1, options.rounds + 1))
    print(f"{passed} of {options.rounds} rounds passed")
    sys.exit(0 if passed == options.rounds else 1)


if __name__ == "__main__":
    main()
